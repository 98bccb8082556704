"""Warm-up and turns, on a clock that only the cases move."""

import itertools
import weakref

import pytest

from glnet_bench.estimates import Summary
from glnet_bench.measure.sampling import Case, MeasuringPlan, measure, warm_up

PLAN = MeasuringPlan(samples=20, least=5, seconds=100, calls=4, warm_up_seconds=60)


class Clock:
    """Seconds that pass only when somebody works."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def work(self, milliseconds):
        self.now += milliseconds / 1000
        return milliseconds


@pytest.fixture
def clock():
    return Clock()


def worker(clock, times):
    """A call that takes the next of these times, and the last one for ever after."""
    coming = itertools.chain(times, itertools.repeat(times[-1]))
    return lambda: clock.work(next(coming))


def case(clock, key, times, log=None):
    call = worker(clock, times)

    def timed():
        if log is not None:
            log.append(key)
        milliseconds = call()
        return {"whole": milliseconds, "half": milliseconds / 2}

    return Case(key, timed, "whole")


def test_warm_up_ends_when_two_windows_agree(clock):
    found = warm_up(worker(clock, [500, 80, 40, 20, 15, 12, 11, 10]), PLAN, clock)
    assert found.stable
    assert found.first_ms == pytest.approx(500)
    # Windows of five: medians 12 and 10 at the 11th call are too far apart, 11 and 10 too, then 10 and 10.
    assert found.calls == 1 + 14
    assert found.seconds == pytest.approx((500 + 80 + 40 + 20 + 15 + 12 + 11 + 8 * 10) / 1000)


def test_a_steady_call_needs_two_windows(clock):
    assert warm_up(worker(clock, [10]), PLAN, clock).calls == 1 + 10


def test_a_first_call_that_compiles_leaves_the_others_their_time(clock):
    found = warm_up(worker(clock, [300_000, 10]), PLAN, clock)
    assert (found.calls, found.first_ms, found.stable) == (1 + 10, pytest.approx(300_000), True)


def test_the_first_call_counts_whole(clock):
    """A compiler may work in a part of the call that its other part is timed beside."""

    def call():
        clock.work(90_000)
        return clock.work(10)

    assert warm_up(call, PLAN, clock).first_ms == pytest.approx(90_010)


def test_a_single_slow_call_does_not_prolong_warm_up(clock):
    assert warm_up(worker(clock, [10, 10, 10, 900, 10]), PLAN, clock).calls == 1 + 10


def test_warm_up_that_never_settles_ends_by_the_clock(clock):
    found = warm_up(worker(clock, [1000 * 1.2**n for n in range(20)]), PLAN, clock)
    assert found.stable is False
    assert found.seconds >= PLAN.warm_up_seconds
    assert found.calls < 16


def test_too_few_calls_are_not_judged(clock):
    """A call longer than the limit is made once more after the first."""
    found = warm_up(worker(clock, [90_000]), PLAN, clock)
    assert (found.calls, found.stable) == (2, None)


def test_percentiles_of_a_case_are_those_of_its_timed_calls(clock):
    times = [10] * 11 + list(range(1, 21))
    found = measure([case(clock, "one", times)], PLAN, clock=clock)["one"]
    summary = Summary.of(found.turns["whole"])
    assert summary.samples == 20
    assert (summary.min, summary.p50, summary.max) == (1, 10.5, 20)
    assert Summary.of(found.turns["half"]).p50 == 5.25
    assert found.warm_up.calls == 11


def test_turns_are_short_and_keep_their_samples_together(clock):
    found = measure([case(clock, key, [10]) for key in "ab"], PLAN, clock=clock)
    for key in "ab":
        assert [len(turn) for turn in found[key].turns["whole"]] == [4] * 5


def test_cases_take_turns_in_a_changing_order(clock):
    log = []
    measure([case(clock, key, [10], log) for key in "abc"], PLAN, clock=clock)
    turns = [key for key, _ in itertools.groupby(log[30:])]  # after warm-up
    assert len(turns) >= 13  # five turns each, neighbours of two rounds at most joined
    orders = {tuple(turns[start : start + 3]) for start in range(0, 12, 3)}
    assert len(orders) > 1


def test_the_call_after_another_case_ran_is_not_timed(clock):
    def cold_case(key):
        def call():
            cold = last[0] != key
            last[0] = key
            return {"whole": clock.work(1000 if cold else 10)}

        return Case(key, call, "whole")

    last = [None]
    found = measure([cold_case("a"), cold_case("b")], PLAN, clock=clock)
    for result in found.values():
        assert Summary.of(result.turns["whole"]).max == 10


def test_a_drift_of_the_machine_reaches_all_cases(clock):
    def drifting(key):
        return Case(key, lambda: {"whole": clock.work(10 * (1 + clock.now - 1000))}, "whole")

    found = measure([drifting("a"), drifting("b")], PLAN, clock=clock)
    medians = [Summary.of(result.turns["whole"]).p50 for result in found.values()]
    assert max(medians) / min(medians) < 1.5  # one after the other, it would be the drift of a whole case: above 2


def test_slow_cases_stop_after_their_time_with_a_few_calls(clock):
    found = measure([case(clock, "slow", [30_000])], PLAN, clock=clock)["slow"]
    assert Summary.of(found.turns["whole"]).samples == PLAN.least
    assert all(len(turn) == 1 for turn in found.turns["whole"])


@pytest.mark.parametrize("milliseconds", [10, 900, 18_000])
def test_calls_are_spread_over_turns_enough_for_an_interval(clock, milliseconds):
    """Also where a hundred calls would fit into three turns, or two calls just overstep a turn's time."""
    plan = MeasuringPlan(samples=30, calls=10, seconds=5)
    found = measure([case(clock, "one", [milliseconds])], plan, clock=clock)["one"]
    assert len(found.turns["whole"]) >= plan.turns == 5


def test_a_device_that_rests_between_turns_is_awake_when_it_is_timed(clock):
    """Its clock falls while others run, and takes 0.25 s of work to rise again."""
    worked = [0.0]

    def gpu():
        took = clock.work(10 if worked[0] >= 0.25 else 30)
        worked[0] += took / 1000
        return {"whole": took}

    def other():
        worked[0] = 0.0
        return {"whole": clock.work(10)}

    readings = itertools.count(1000)
    cases = [Case("gpu", gpu, "whole", 0.3, lambda: next(readings)), Case("other", other, "whole")]
    found = measure(cases, PLAN, clock=clock)
    assert Summary.of(found["gpu"].turns["whole"]).max == 10
    assert found["gpu"].clocks_mhz == [1000, 1001, 1002, 1003, 1004]  # one a turn
    assert found["other"].clocks_mhz == []


def test_the_last_to_warm_up_settles_too(clock):
    """Nobody ran before its first turn, but a warm-up of eleven short calls may have ended before its clock had risen."""
    log = []
    measure([Case("gpu", case(clock, "gpu", [1], log).call, "whole", 0.3)], PLAN, clock=clock)
    assert len(log) >= 11 + 5 * (300 + 4) - 1


@pytest.mark.parametrize("healthy", [0, 3, 14])
def test_a_case_that_fails_leaves_the_others_alone(clock, healthy):
    calls = itertools.count()

    def call():
        if next(calls) >= healthy:
            raise RuntimeError("out of memory")
        return {"whole": clock.work(10)}

    found = measure([Case("bad", call, "whole"), case(clock, "good", [10])], PLAN, clock=clock)
    assert str(found["bad"].failure) == "out of memory"
    assert (found["bad"].warm_up is None) == (healthy < 10)
    # Eleven calls of warm-up, one untimed, since the good case was called after it, then two good ones of a turn.
    assert found["bad"].turns == ({"whole": [[10, 10]]} if healthy == 14 else {})
    assert found["good"].failure is None
    assert Summary.of(found["good"].turns["whole"]).samples == 20


@pytest.mark.parametrize("healthy", [0, 14])
def test_a_failed_call_keeps_nothing_in_memory(clock, healthy):
    """Else a backend that ran out of memory would take it from the others, as long as its error is kept."""

    class Activations:
        pass

    calls, held, log = itertools.count(), [], []

    def call():
        activations = Activations()
        held.append(weakref.ref(activations))
        if next(calls) >= healthy:
            try:
                raise RuntimeError("out of memory")
            except RuntimeError as error:
                raise ValueError("no kernel") from error
        return {"whole": clock.work(10)}

    def after_failure():
        log.append("freed")
        assert held[-1]() is None

    found = measure(
        [Case("bad", call, "whole"), case(clock, "good", [10], log)], PLAN, after_failure=after_failure, clock=clock
    )
    assert str(found["bad"].failure) == "no kernel"
    assert log.count("freed") == 1 and "good" in log[log.index("freed") :]


def test_no_cases_take_no_time(clock):
    assert measure([], PLAN, clock=clock) == {}
