"""A run as one typed value: what its file holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from glnet_bench.record.names import FLOOR, Kind, Part, check_names
from glnet_bench.record.results import BackendEntry, Floor, FloorTimes, Row, Soak, Start, Times
from glnet_bench.record.surroundings import Code, Machine, MeasuredBundle, Note
from glnet_bench.settings import Settings

SCHEMA_VERSION = 2
PROGRAM = "glnet-bench"


@dataclass(kw_only=True)
class RunRecord:
    """Everything about a run.

    Attributes:
        settings: What was asked for.
        bundle: What was measured.
        machine: Where.
        code: By which code; None in runs from before it was recorded.
        started: When, ISO 8601.
        finished: When; None where parts are missing.
        watched: The machine before, between and after the measurements.
        backends: Backends that were opened, or why not.
        floor: The machine's ceilings and what follows from them; None before they were measured.
        starts: Starts by backend.
        soaks: Memory over many frames, by backend.
        rows: Times of every batch and frame, by backend.
        left_out: Parts that a default run has no time for, each with the reason.
    """

    schema: int = SCHEMA_VERSION
    program: str = PROGRAM
    settings: Settings
    bundle: MeasuredBundle
    machine: Machine
    code: Code | None = None
    started: str | None = None
    finished: str | None = None
    watched: list[Note] = field(default_factory=list)
    backends: dict[str, BackendEntry] = field(default_factory=dict)
    floor: Floor | None = None
    starts: dict[str, Start] = field(default_factory=dict)
    soaks: dict[str, Soak] = field(default_factory=dict)
    rows: dict[Part, dict[str, Row]] = field(default_factory=dict)
    left_out: dict[Part, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = {frame.name for frame in self.settings.frames}
        for part, rows in self.rows.items():
            check_names(rows, "backend")
            if part.kind not in (Kind.BATCH, Kind.FRAME):
                raise ValueError(f"{part} has no rows of times")
            if part.kind is Kind.FRAME and part.frame not in frames:
                raise ValueError(f"{part} is of a frame that the settings do not name")
        for names in (self.backends, self.starts, self.soaks):
            check_names(names, "backend")

    def has(self, part: Part) -> bool:
        """Whether a part was measured, well or not, or left out."""
        return part in self.parts() or part in self.left_out

    def parts(self) -> set[Part]:
        """All parts that were measured."""
        alone = {*map(Part.start, self.starts), *map(Part.soak, self.soaks)}
        return {*self.rows, *alone, *([FLOOR] if self.floor else [])}

    def times(self, part: Part, backend: str, what: str) -> Times | None:
        """Times of a backend in a part; None where there are none."""
        row = self.rows.get(part, {}).get(backend)
        return row.times.get(what) if row else None

    def rows_of(self, kind: Kind) -> Iterator[tuple[Part, str, Row]]:
        """Rows of a kind of part with their backends, in the order of the settings."""
        for part, rows in self.rows.items():
            if part.kind is kind:
                yield from ((part, name, rows[name]) for name in self.settings.backends if name in rows)

    def floor_of(self, backend: str, crops: int) -> FloorTimes | None:
        """The floor of a backend's call; None where it was not measured."""
        entry = self.backends.get(backend)
        if entry is None or self.floor is None:
            return None
        found = (
            times
            for case, times in self.floor.times.items()
            if (case.device, case.precision, case.crops) == (entry.device, entry.precision, crops)
        )
        return next(found, None)
