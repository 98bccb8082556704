"""Timing several cases in turns: warm-up until stable, then a few calls of each in an order that changes every round."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from glnet_bench.estimates import FEWEST_TURNS, Timed
from glnet_bench.record.names import Part
from glnet_bench.record.results import WarmUp
from glnet_bench.settings import Settings

Key = tuple[Part, str]
"""What a case is called: its part of the run, and its backend."""


@dataclass(frozen=True)
class MeasuringPlan:
    """How long to measure.

    Attributes:
        samples: Timed calls of a case that are enough.
        least: Timed calls of a case that are made however long they take.
        seconds: After so much timed work a case needs no more than ``least`` calls.
        calls: Most timed calls in a turn, before another case has its own.
        turns: Fewest turns over which the timed calls of a case are spread, where there are as many calls.
        warm_up_seconds: Warm-up ends so long after the first call, stable or not.
        window: Calls in each of the two windows whose medians tell whether times are stable.
        tolerance: Largest difference of these medians, relative to the smaller.
    """

    samples: int = 100
    least: int = 5
    seconds: float = 5.0
    calls: int = 10
    turns: int = FEWEST_TURNS
    warm_up_seconds: float = 10.0
    window: int = 5
    tolerance: float = 0.05

    @classmethod
    def of(cls, settings: Settings) -> MeasuringPlan:
        """The plan of a run."""
        return cls(
            samples=settings.samples,
            least=min(cls.least, settings.samples),
            seconds=settings.seconds,
            warm_up_seconds=2 * settings.seconds,
        )

    def seconds_for(self, call: float, settle: float = 0.0) -> float:
        """About how many seconds a case takes, with its warm-up and untimed calls.

        Args:
            call: Seconds of a call.
            settle: See :class:`Case`.
        """
        warm_up = 1 + max(1, min(2 * self.window, math.ceil(self.warm_up_seconds / call)))
        timed = min(self.samples, max(self.least, math.ceil(self.seconds / call)))
        turns = min(timed, max(self.turns, math.ceil(timed / self.calls)))
        return call * (warm_up + timed) + turns * max(call, settle)


@dataclass
class Case:
    """Something to time.

    Attributes:
        key: Part of the run, and backend.
        call: Does it once and says how long each stage took.
        primary: The stage that tells whether warm-up is over.
        settle: Seconds of untimed calls at the beginning of every turn, for a device that lowers its clocks at rest.
        clock_mhz: Reads the device's clock after every turn; None where it is not read.
    """

    key: Key
    call: Callable[[], Timed]
    primary: str
    settle: float = 0.0
    clock_mhz: Callable[[], float | None] | None = None


@dataclass
class Measured:
    """What was measured of a case.

    Attributes:
        turns: Samples in milliseconds by stage, then turn by turn.
        warm_up: None where the case failed in it.
        failure: What the case raised, if it did; samples before that are kept.
        clocks_mhz: The device's clock at the end of every turn, where it is read.
    """

    turns: dict[str, list[list[float]]] = field(default_factory=dict)
    warm_up: WarmUp | None = None
    failure: Exception | None = None
    clocks_mhz: list[float | None] = field(default_factory=list)


def warm_up(call: Callable[[], float], plan: MeasuringPlan, clock: Callable[[], float] = time.perf_counter) -> WarmUp:
    """Call until the medians of two neighbouring windows agree, or time has run out.

    Args:
        call: Returns milliseconds.
        plan: Windows, tolerance and the limit.
        clock: Seconds, never going back.
    """
    begin = clock()
    call()
    called = clock()
    # A compiler may take minutes in the first call, and says nothing about the later ones.
    limit = called + plan.warm_up_seconds
    times: list[float] = []
    stable = None
    while not stable and clock() < limit:
        times.append(call())
        if len(times) >= 2 * plan.window:
            earlier = statistics.median(times[-2 * plan.window : -plan.window])
            later = statistics.median(times[-plan.window :])
            stable = abs(later - earlier) <= plan.tolerance * min(earlier, later)
    return WarmUp(1 + len(times), clock() - begin, 1000 * (called - begin), stable)


def measure(
    cases: list[Case],
    plan: MeasuringPlan,
    *,
    seed: int = 0,
    after_failure: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Measured]:
    """Time cases in turns, so that a machine that slows down slows all of them.

    Every round gives the unfinished cases a turn each, in a new random order. A turn begins with an untimed call when
    another case ran before it: caches hold the other's data then. On a device that settles it begins with ``Case.settle``
    seconds of them, whoever ran before.

    Args:
        cases: Cases with different keys. One that raises is dropped, and the others go on.
        plan: How long.
        seed: Seed of the order.
        after_failure: Called when a case has failed, before the next is called.
        clock: Seconds, never going back.
    """
    results = {case.key: Measured() for case in cases}
    waiting = []
    for case in cases:
        result = results[case.key]
        try:
            result.warm_up = warm_up(_primary(case), plan, clock)
        except Exception as error:  # whatever a backend raises belongs to its row
            result.failure = _without_frames(error)
            after_failure()
        else:
            waiting.append(_Turns(case, result, plan, clock))
    order, last = random.Random(seed), waiting[-1] if waiting else None
    while waiting:
        order.shuffle(waiting)
        for turns in list(waiting):
            turns.take(others_ran=turns is not last)
            last = turns
            if turns.finished:
                if turns.failed:
                    after_failure()
                waiting.remove(turns)
    return results


def _without_frames(error: Exception) -> Exception:
    """An error without the frames that it came through: they hold all that a call had in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _primary(case: Case) -> Callable[[], float]:
    return lambda: case.call()[case.primary]


class _Turns:
    """A case's turns."""

    def __init__(self, case: Case, result: Measured, plan: MeasuringPlan, clock: Callable[[], float]) -> None:
        self._case, self._result, self._plan, self._clock = case, result, plan, clock
        self._calls, self._turns, self._seconds = 0, 0, 0.0

    @property
    def failed(self) -> bool:
        return self._result.failure is not None

    @property
    def finished(self) -> bool:
        plan = self._plan
        late = self._seconds >= plan.seconds and self._calls >= plan.least and self._turns >= plan.turns
        return self.failed or self._calls >= plan.samples or late

    def take(self, others_ran: bool) -> None:
        """Take a turn: make the next timed calls."""
        timed: list[Timed] = []
        try:
            self._settle(others_ran)
            self._time(timed)
        except Exception as error:  # as above
            self._result.failure = _without_frames(error)
        if not timed:
            return
        self._calls += len(timed)
        self._turns += 1
        for stage in timed[0]:
            self._result.turns.setdefault(stage, []).append([times[stage] for times in timed])
        if self._case.clock_mhz is not None:
            self._result.clocks_mhz.append(self._case.clock_mhz())

    def _settle(self, others_ran: bool) -> None:
        """Untimed calls."""
        begin, settle = self._clock(), self._case.settle
        if others_ran or settle:
            self._case.call()
        while self._clock() - begin < settle:
            self._case.call()

    def _time(self, timed: list[Timed]) -> None:
        """Timed calls, each added to a list as it is made: those before a failure are good."""
        plan, start = self._plan, self._clock()
        most = min(plan.calls, math.ceil(plan.samples / plan.turns), plan.samples - self._calls)
        while len(timed) < most:
            timed.append(self._case.call())
            # A slow case must not hold the others up for a whole turn: its fewest turns fill its time.
            if self._clock() - start >= plan.seconds / plan.turns:
                break
        self._seconds += self._clock() - start
