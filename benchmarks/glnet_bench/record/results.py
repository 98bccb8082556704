"""What was measured: rows of times, starts, memory, ceilings and floors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from glnet_bench.estimates import Summary, Turns
from glnet_bench.record.names import TIMED, FloorCase

ALLOWED_GROWTH = 0.01
"""Share by which memory may grow and still be called flat."""

MOST_SAMPLES = 10_000
MOST_TURNS = 2_000
"""Limits of a row. Drawing more of them 5,000 times anew takes seconds and gigabytes for each interval."""

_LONGEST = 1e9
"""Milliseconds: eleven days. A longer sample is damage, and its sums might overflow."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What all results share.

    Attributes:
        reason: Why there is no result, or no more of it; empty where all went well.
        retry: Whether the failure may have been the moment's: it is measured again when the run goes on.
    """

    reason: str = ""
    retry: bool = False


@dataclass(frozen=True)
class WarmUp:
    """What it took until times were stable.

    Attributes:
        calls: Untimed calls.
        seconds: Seconds that they took.
        first_ms: The whole first call, milliseconds: it compiles, or chooses kernels, in whichever of its stages.
        stable: Whether the last two windows agreed; None where time had run out before there were two.
    """

    calls: int
    seconds: float
    first_ms: float
    stable: bool | None


@dataclass(frozen=True)
class Times:
    """Samples of one stage or of the whole.

    Attributes:
        turns: Milliseconds, turn by turn.
        per_second: Crops or persons per second, where a whole is timed.
    """

    turns: tuple[tuple[float, ...], ...]
    per_second: float | None = None

    def __post_init__(self) -> None:
        samples = [sample for turn in self.turns for sample in turn]
        if not 1 <= len(samples) <= MOST_SAMPLES:
            raise ValueError(f"a row has {len(samples)} samples, not 1 to {MOST_SAMPLES}")
        if (len(self.turns) if len(self.turns) > 1 else len(samples)) > MOST_TURNS:
            raise ValueError(f"a row has more than {MOST_TURNS} turns, or as many samples in its only one")
        if not all(0 <= sample <= _LONGEST for sample in samples):
            raise ValueError("a sample is negative or longer than eleven days")

    @cached_property
    def summary(self) -> Summary:
        """Percentiles of all samples."""
        return Summary.of(self.turns)

    def derived(self) -> dict[str, Any]:
        """For readers of the file."""
        return {"summary": self.summary}


@dataclass(frozen=True, kw_only=True)
class Row(Outcome):
    """What was timed of a backend in a part of the run.

    Attributes:
        warm_up: None where it failed in the warm-up or before.
        times: Times by the names of :data:`glnet_bench.record.names.TIMED`.
        clocks_mhz: The GPU's clock at the end of every turn, where it is read.
    """

    warm_up: WarmUp | None = None
    times: dict[str, Times] = field(default_factory=dict)
    clocks_mhz: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.times if name not in TIMED]
        if unknown:
            raise ValueError(f"nothing named {unknown[0][:100]!r} is timed")

    def turns(self, what: str) -> Turns:
        """Samples of a stage, turn by turn; none where it was not timed."""
        return self.times[what].turns if what in self.times else ()


@dataclass(frozen=True, kw_only=True)
class BackendEntry(Outcome):
    """A backend of the run; without a reason it was opened.

    Attributes:
        description: What runs, for the report.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``mixed``.
        clock: What measures the network.
        at_once: Crops that a recoverer gives to the backend in one call.
        load_seconds: Seconds that it took to open.
    """

    description: str = ""
    device: str = ""
    precision: str = ""
    clock: str = ""
    at_once: int | None = None
    load_seconds: float | None = None


@dataclass(frozen=True)
class StartSeconds:
    """A start, second by second.

    Attributes:
        importing: From the start of the process until its modules were imported.
        loading: Opening bundle and backend.
        first_call: The first call.
        total: From the start of the process to the first meshes.
        later_call: Median of later calls.
    """

    importing: float
    loading: float
    first_call: float
    total: float
    later_call: float

    def __post_init__(self) -> None:
        if not all(0 <= value <= _LONGEST for value in vars(self).values()):
            raise ValueError("a start took a negative or an impossible time")


@dataclass(frozen=True, kw_only=True)
class Start(Outcome):
    """A start in a process of its own.

    Attributes:
        seconds: What took how long.
        host_peak: Most host memory that was held, bytes.
        device: By how much the GPU's used memory grew, bytes.
        persons: Persons in the frame.
        died: Whether the backend took its process with it.
    """

    seconds: StartSeconds | None = None
    host_peak: int | None = None
    device: int | None = None
    persons: int | None = None
    died: bool = False


@dataclass(frozen=True)
class Reading:
    """Memory after a number of frames, bytes; None where it was not read."""

    frame: int
    host: int | None
    device: int | None

    def used(self, where: str) -> int | None:
        """Bytes of ``host`` or ``device``."""
        return self.host if where == "host" else self.device


@dataclass(frozen=True)
class Growth:
    """By how much memory grew over the frames of a run.

    Attributes:
        bytes: Bytes at the end less those after a tenth of the frames, in which pools and caches fill.
        share: The same, divided by what was held after that tenth.
    """

    bytes: int
    share: float

    @property
    def is_flat(self) -> bool:
        """Whether memory stayed what it was: it grew by no more than :data:`ALLOWED_GROWTH`."""
        return self.share <= ALLOWED_GROWTH


@dataclass(frozen=True, kw_only=True)
class Soak(Start):
    """Memory over many frames in a process of its own.

    Attributes:
        readings: Memory after growing numbers of frames.
    """

    readings: tuple[Reading, ...] = ()

    def growth(self, where: str) -> Growth | None:
        """How memory of ``host`` or ``device`` grew from a tenth of the frames to the last; None where it was not read."""
        if not self.readings:
            return None
        last = self.readings[-1]
        first = next(reading for reading in self.readings if 10 * reading.frame >= last.frame)
        before, after = first.used(where), last.used(where)
        if first is last or not before or after is None:
            return None
        return Growth(after - before, (after - before) / before)

    def derived(self) -> dict[str, Any]:
        """For readers of the file."""
        found = {where: self.growth(where) for where in ("host", "device")} if self.readings else {}
        flat = {where: growth.is_flat if growth else None for where, growth in found.items()}
        return {"growth": found, "flat": flat} if found else {}


@dataclass(frozen=True)
class Ceilings:
    """A device's ceilings, as measured.

    Attributes:
        operations: Operations per second in float32 without TF32; None where nothing here multiplies on the device.
        half_operations: Operations per second in float16, summed in float32; None where it was not measured.
        bandwidth: Bytes per second, read and written together.
        how: What was run.
    """

    operations: float | None
    half_operations: float | None
    bandwidth: float
    how: str


@dataclass(frozen=True)
class Cost:
    """What a call on some crops takes at least.

    Attributes:
        crops: Crops in the call.
        operations: Operations in float32 or wider.
        half_operations: Operations in half precision, which the others do not hold.
        weights: Bytes of weights, read once in a call.
        interface: Bytes of the graph's inputs and outputs.
        moved: Bytes that the heavy nodes read and write when nothing stays in a cache between two of them.
        by_operator: Operations by ONNX type.
        not_counted: Types that the counter does not know and took for nothing.
    """

    crops: int
    operations: int
    half_operations: int
    weights: int
    interface: int
    moved: int
    by_operator: dict[str, int]
    not_counted: tuple[str, ...]


@dataclass(frozen=True)
class FloorTimes:
    """Times of a call that follow from a graph and the ceilings, milliseconds.

    Attributes:
        bound: All operations at the ceiling, or weights, inputs and outputs through memory once, whichever takes longer.
            Only an algorithm with fewer operations than the graph's, such as Winograd's convolution, is faster, and a cache
            that holds weights from call to call.
        by_layer: Every convolution, matrix product and GridSample reads its inputs from memory and writes its outputs back,
            each at its own ceiling; all else rides along, gathers too. What fusing it, and nothing more, attains.
    """

    bound: float
    by_layer: float

    def __post_init__(self) -> None:
        if not (0 < self.bound <= _LONGEST and 0 < self.by_layer <= _LONGEST):
            raise ValueError("a floor is not positive, or longer than eleven days")


@dataclass(frozen=True)
class Floor:
    """How fast this machine could compute the bundle's graphs at best.

    Attributes:
        ceilings: Ceilings by device.
        no_ceilings: Why a device has none.
        costs: Cost of one crop by precision.
        no_costs: Why a precision has none.
        times: Floors of calls.
    """

    ceilings: dict[str, Ceilings]
    no_ceilings: dict[str, str]
    costs: dict[str, Cost]
    no_costs: dict[str, str]
    times: dict[FloorCase, FloorTimes]
