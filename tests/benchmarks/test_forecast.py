"""How long a run will take, and what a default run leaves out, from starts that are known."""

import dataclasses

import pytest

from glnet_bench.measure.forecast import FRAMES, forecast, spoken, too_long
from glnet_bench.measure.sampling import Case, MeasuringPlan, measure
from glnet_bench.record.names import FLOOR, Part
from glnet_bench.record.results import Floor, Row, Start, StartSeconds
from glnet_bench.settings import QUICK, Frame

PLAN = MeasuringPlan(samples=30, seconds=1.5, warm_up_seconds=3)


def started(later_call, loading=1.0):
    seconds = StartSeconds(importing=0.1, loading=loading, first_call=1.0, total=2.1, later_call=later_call)
    return Start(seconds=seconds)


@pytest.fixture
def run(new_run):
    """A default run whose backends have started."""

    def make(**starts):
        names = tuple(name.replace("_", "-") for name in starts)
        frames = tuple(Frame(name, 1920, 1080) for name in QUICK.frames)
        sizes = {"batches": QUICK.batches, "persons": QUICK.persons, "frames": frames}
        found = new_run(settings={"backends": names, "samples": QUICK.samples, "seconds": QUICK.seconds, **sizes})
        found.starts = dict(zip(names, starts.values(), strict=True))
        return found

    return make


@pytest.mark.parametrize("milliseconds", [1, 40, 130, 600, 2000, 9000])
def test_a_case_takes_about_as_long_as_foretold(milliseconds):
    now = [0.0]

    def call():
        now[0] += milliseconds / 1000
        return {"whole": milliseconds}

    def clock():
        return now[0]

    # Two of them, or their untimed calls at the beginning of a turn would not be made.
    measure([Case(key, call, "whole") for key in "ab"], PLAN, clock=clock)
    assert now[0] / 2 == pytest.approx(PLAN.seconds_for(milliseconds / 1000), rel=0.15)


def test_a_gpu_settles_in_every_turn():
    assert PLAN.seconds_for(0.001, settle=0.3) == pytest.approx(5 * 0.3 + 0.041, rel=0.01)


def test_times_grow_with_crops_and_with_backends(run):
    one, two = run(torch_fp32=started(0.2)), run(torch_fp32=started(0.2), onnxruntime_cpu=started(0.2))
    alone, both = forecast(one), forecast(two)
    assert list(alone) == ["floor", "batch/1", "batch/4", FRAMES]
    assert alone["batch/4"] > 1.5 * alone["batch/1"]  # fewer calls, but longer ones
    assert both["batch/4"] == pytest.approx(2 * alone["batch/4"])
    assert both["batch/1"] == pytest.approx(2 * alone["batch/1"])  # each is opened there


def test_backends_that_did_not_start_take_no_time(run):
    good = run(one=started(0.2))
    other = run(one=started(0.2), two=Start(reason="no GPU"))
    assert forecast(other) == forecast(good)


def test_what_is_measured_takes_no_more_time(run):
    found = run(one=started(0.2))
    found.floor = Floor({}, {}, {}, {}, {})
    found.rows[Part.batch(1)] = {"one": Row(reason="no memory")}
    assert list(forecast(found)) == ["batch/4", FRAMES]
    assert forecast(found)["batch/4"] == pytest.approx(forecast(run(one=started(0.2)))["batch/4"] + 1)  # opened there now


def test_what_compiles_does_so_for_every_number_of_crops(run):
    eager, compiled = run(torch_fp32=started(0.2, 60)), run(torch_compile=started(0.2, 60))
    assert sum(forecast(compiled).values()) == pytest.approx(sum(forecast(eager).values()) + 60)  # for four crops
    compiled.settings = dataclasses.replace(compiled.settings, batches=(1, 2), persons=(1, 4))
    eager.settings = compiled.settings
    assert sum(forecast(compiled).values()) == pytest.approx(sum(forecast(eager).values()) + 120)


def test_a_default_run_leaves_nothing_out_where_there_is_time(run):
    assert too_long(run(torch_fp32=started(0.13), onnxruntime_cpu=started(0.075)), QUICK.budget) == set()


def test_a_slow_machine_leaves_out_the_most_crops(run):
    slow = run(torch_fp32=started(1.3), onnxruntime_cpu=started(0.75))
    omitted = too_long(slow, QUICK.budget)
    assert omitted == {Part.batch(4), Part.of_frame("1080p", 4)}
    kept = forecast(slow, omitted)
    assert list(kept) == ["floor", "batch/1", FRAMES]
    assert sum(kept.values()) < 0.5 * sum(forecast(slow).values())


def test_the_fewest_crops_stay_however_long_they_take(run):
    omitted = too_long(run(torch_fp32=started(100)), QUICK.budget)
    assert omitted == {Part.batch(4), Part.of_frame("1080p", 4)}
    assert FLOOR not in omitted


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "10 s"), (44, "40 s"), (57, "1 min"), (71, "1 min 10 s"), (3588, "59 min 50 s"), (4900, "1 h 22 min")],
)
def test_times_are_spoken(seconds, words):
    assert spoken(seconds) == words
