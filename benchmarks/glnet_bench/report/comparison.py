"""Two runs side by side: ratios of medians, and which of them are more than chance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from glnet_bench.estimates import FEWEST_TURNS, Interval, ratio_of_medians, turns


@dataclass(frozen=True)
class ComparedRow:
    """A row that both runs have.

    Attributes:
        part: Of the run, such as ``batch/8``.
        backend: Its name.
        what: ``engine``, ``end_to_end`` or a stage.
        first: Median of the first run, milliseconds.
        second: Of the second.
        ratio: The second by the first, with its confidence interval.
        samples: Calls of the first and of the second run.
        turns: Visits, likewise.
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

    def to_document(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


def compare(first: dict[str, Any], second: dict[str, Any], *, confidence: float = 0.95) -> list[ComparedRow]:
    """Every time that both runs have samples of."""
    rows = []
    # The end-to-end times of a batch are of each run's first frame.
    same_frame = first["settings"]["frames"][:1] == second["settings"]["frames"][:1]
    for part, backends in first["parts"].items():
        if not part.startswith(("batch/", "frame/")):
            continue
        for backend, row in backends.items():
            other = second["parts"].get(part, {}).get(backend, {})
            for what, found in row["parts"].items():
                match = other.get("parts", {}).get(what)
                if match is None or (what == "end_to_end" and part.startswith("batch/") and not same_frame):
                    continue
                ratio = ratio_of_medians(found["visits"], match["visits"], confidence=confidence)
                one, two = found["summary"], match["summary"]
                samples = one["samples"], two["samples"]
                visits = turns(found["visits"]), turns(match["visits"])
                rows.append(ComparedRow(part, backend, what, one["p50"], two["p50"], ratio, samples, visits))
    return rows


def table(rows: list[ComparedRow], confidence: float) -> str:
    """The rows as Markdown."""
    if not rows:
        return "The two runs have no row in common."
    lines = [
        f"| part | backend | what | A p50 ms | B p50 ms | B / A | {confidence:.0%} interval | calls | turns | B is |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row.part} | {row.backend} | {row.what} | {row.first:.3f} | {row.second:.3f} | {row.ratio.value:.3f} "
        f"| {row.ratio.low:.3f} to {row.ratio.high:.3f} | {row.samples[0]}, {row.samples[1]} "
        f"| {row.turns[0]}, {row.turns[1]} | {row.verdict} |"
        for row in rows
    ]
    return "\n".join(lines)
