"""Two runs side by side: ratios of medians, and which of them are more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glnet_bench.estimates import FEWEST_TURNS, Interval, count_turns, ratio
from glnet_bench.record.codec import encode
from glnet_bench.record.names import END_TO_END, Kind
from glnet_bench.record.run import RunRecord
from glnet_bench.report import markdown


@dataclass(frozen=True)
class ComparedRow:
    """A row that both runs have.

    Attributes:
        part: Name of the part, such as ``batch/8``.
        backend: Name of the backend.
        what: ``network``, ``end_to_end`` or a stage.
        first: Median of the first run, milliseconds.
        second: Median of the second run.
        ratio: The second by the first, with its confidence interval.
        samples: Calls of the first and of the second run.
        turns: Turns of the first and of the second run.
    """

    part: str
    backend: str
    what: str
    first: float
    second: float
    ratio: Interval
    samples: tuple[int, int]
    turns: tuple[int, int]

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where the whole interval says so, and rests on turns enough."""
        if min(self.turns) < FEWEST_TURNS:
            return "too few turns"
        if self.ratio.high < 1:
            return "faster"
        return "slower" if self.ratio.low > 1 else "no difference shown"

    def derived(self) -> dict[str, Any]:
        """For readers of the document."""
        return {"verdict": self.verdict}


def compare(first: RunRecord, second: RunRecord, *, confidence: float = 0.95) -> list[ComparedRow]:
    """Every time that both runs have samples of."""
    rows = []
    # The end-to-end times of a batch are of each run's first frame.
    same_frame = first.settings.frames[0] == second.settings.frames[0]
    for part, backends in first.rows.items():
        for backend, row in backends.items():
            for what, one in row.times.items():
                other = second.times(part, backend, what)
                if other is None or (what == END_TO_END and part.kind is Kind.BATCH and not same_frame):
                    continue
                found = ratio(one.turns, other.turns, confidence=confidence)
                if found is None:  # of no time at all
                    continue
                samples = one.summary.samples, other.summary.samples
                turns = count_turns(one.turns), count_turns(other.turns)
                medians = one.summary.p50, other.summary.p50
                rows.append(ComparedRow(str(part), backend, what, *medians, found, samples, turns))
    return rows


def document(rows: list[ComparedRow], differences: list[str], confidence: float) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {"differences": differences, "confidence": confidence, "rows": encode(rows)}


def table(rows: list[ComparedRow], confidence: float) -> str:
    """The rows as Markdown."""
    if not rows:
        return "The two runs have no row in common."
    header = ["part", "backend", "what", "A p50 ms", "B p50 ms", "B / A", f"{confidence:.0%} interval"]
    header += ["calls", "turns", "B is"]
    body = [
        [
            *(row.part, row.backend, row.what),
            *(f"{value:.3f}" for value in (row.first, row.second, row.ratio.value)),
            f"{row.ratio.low:.3f} to {row.ratio.high:.3f}",
            *(f"{one}, {other}" for one, other in (row.samples, row.turns)),
            row.verdict,
        ]
        for row in rows
    ]
    return "\n".join(markdown.table(header, body, right=(3, 4, 5, 7)))
