"""How long the measurements of a run will take, from the calls that every backend made when it started."""

from __future__ import annotations

from collections.abc import Collection

from glnet_bench.measure.cases import GPU_SETTLE
from glnet_bench.measure.sampling import MeasuringPlan
from glnet_bench.record.names import FLOOR, Kind, Part
from glnet_bench.record.results import StartSeconds
from glnet_bench.record.run import RunRecord
from glnet_bench.settings import Settings

FRAMES = "frames"
"""The measurement of all numbers of persons in all frames: growth is seen only between times that were taken in turns."""

_FLOOR_SECONDS = 6.0
"""Products and copies run for half a second each, and are prepared; graphs are counted."""

_HOST_SECONDS = 0.03
"""Decoding a frame and drawing the overlay, for each person."""

_COMPILES = "torch-compile"


def frame_parts(settings: Settings) -> list[Part]:
    """The parts of the run that have frames."""
    return [Part.of_frame(frame.name, count) for frame in settings.frames for count in settings.persons]


def measurements(settings: Settings) -> dict[str, list[Part]]:
    """The measurements of a run in order, and the parts of the record that each makes."""
    alone = [*map(Part.start, settings.backends), FLOOR]
    alone += map(Part.soak, settings.backends if settings.soak else ())
    alone += map(Part.batch, settings.batches)
    return {**{str(part): [part] for part in alone}, FRAMES: frame_parts(settings)}


def forecast(run: RunRecord, without: Collection[Part] = ()) -> dict[str, float]:
    """About how many seconds each measurement takes that is still missing.

    A call is taken to grow with its crops. What compiles does so once for each number of crops.

    Args:
        run: A run whose backends have started.
        without: Parts that will be left out.
    """
    settings = run.settings
    left = {
        name: [part for part in parts if not run.has(part) and part not in without]
        for name, parts in measurements(settings).items()
    }
    found = {name: sum(_seconds(run, part) for part in parts) for name, parts in left.items() if parts}
    timed = [name for name, parts in left.items() if parts and parts[0].kind in (Kind.BATCH, Kind.FRAME)]
    if timed:  # which opens the backends, once for all, and for one crop
        starts = _starts(run)
        found[timed[0]] += sum(seconds.loading for seconds in starts.values())
        counts = {part.count for parts in left.values() for part in parts} - {0, 1}
        found[timed[-1]] += len(counts) * (starts[_COMPILES].loading if _COMPILES in starts else 0)
    return found


def too_long(run: RunRecord, seconds: float) -> set[Part]:
    """The parts to leave out so that the rest takes no longer than so many seconds: those of the most crops first.

    Those of the fewest crops stay, however long they take.
    """
    settings = run.settings
    counts = sorted({*settings.batches[1:], *settings.persons[1:]}, reverse=True)
    found: set[Part] = set()
    while counts and sum(forecast(run, found).values()) > seconds:
        count = counts.pop(0)
        found |= {
            part
            for part in (*map(Part.batch, settings.batches[1:]), *frame_parts(settings))
            if part.count == count and part.count != settings.persons[0] and not run.has(part)
        }
    return found


def _starts(run: RunRecord) -> dict[str, StartSeconds]:
    return {name: start.seconds for name, start in run.starts.items() if start.seconds and not start.reason}


def _seconds(run: RunRecord, part: Part) -> float:
    """About how long a part takes in all backends that have started."""
    settings, plan, starts = run.settings, MeasuringPlan.of(run.settings), _starts(run)

    def call(seconds: StartSeconds, count: int) -> float:
        return max(seconds.later_call * count / settings.persons[0], 1e-6)  # the start's was with the first number

    if part.kind is Kind.FLOOR:
        return _FLOOR_SECONDS
    if part.kind is Kind.SOAK and part.backend in starts:
        seconds = starts[part.backend]
        return seconds.total + settings.soak * call(seconds, max(settings.persons))
    if part.kind not in (Kind.BATCH, Kind.FRAME):
        return 0
    # A call of a batch is one of the network and one of the recoverer.
    calls = 2 if part.kind is Kind.BATCH else 1
    rows = sum(plan.seconds_for(calls * call(seconds, part.count), _settle(run, name)) for name, seconds in starts.items())
    return rows + (plan.seconds_for(_HOST_SECONDS * part.count) if part.kind is Kind.FRAME else 0)


def _settle(run: RunRecord, backend: str) -> float:
    return GPU_SETTLE if run.machine.gpus and backend != "onnxruntime-cpu" else 0.0


def spoken(seconds: float) -> str:
    """A time as people say it: ``40 s``, ``2 min 10 s``, ``1 h 20 min``."""
    tens = max(10, 10 * round(seconds / 10))
    if tens < 60:
        return f"{tens} s"
    if tens < 3600:
        return f"{tens // 60} min {tens % 60} s" if tens % 60 else f"{tens // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
