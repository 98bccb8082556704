"""Ratios within a run, between rows that took turns: growth with persons and with the frame, gain over eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glnet_bench.estimates import Interval, Visits, ratio_of_medians, turns
from glnet_bench.runners.base import EAGER


@dataclass(frozen=True)
class Scaling:
    """Of a backend in one frame, medians divided by each other; None where a row has no samples.

    Attributes:
        backend: Its name.
        frame: Its name.
        fewest: Persons.
        most: Persons.
        per_person: Time per person with the most persons, by that with the fewest.
        by_engine: End-to-end by engine, of the same calls with one person.
        by_frame: End-to-end with the fewest persons, by that in the smallest frame.
        turns: The fewest visits that one of these rests on.
    """

    backend: str
    frame: str
    fewest: int
    most: int
    per_person: Interval | None
    by_engine: Interval | None
    by_frame: Interval | None
    turns: int


def scalings(document: dict[str, Any]) -> list[Scaling]:
    """What a run says of growth, by backend and frame."""
    settings = document["settings"]
    fewest, most = min(settings["persons"]), max(settings["persons"])
    frames = [frame["name"] for frame in settings["frames"]]
    smallest = min(settings["frames"], key=lambda frame: frame["width"] * frame["height"])["name"]

    def visits(backend: str, frame: str, persons: int, part: str = "end_to_end") -> Visits:
        row = document["parts"].get(f"frame/{frame}/{persons}", {}).get(backend, {})
        found: Visits = row.get("parts", {}).get(part, {}).get("visits", [])
        return found

    found = []
    for backend in settings["backends"]:
        for frame in frames:
            few, many, alone = (visits(backend, frame, count) for count in (fewest, most, 1))
            engine, small = visits(backend, frame, 1, "engine"), visits(backend, smallest, fewest)
            grown = _ratio(few, many) if most > fewest else None
            entry = Scaling(
                backend=backend,
                frame=frame,
                fewest=fewest,
                most=most,
                per_person=grown / (most / fewest) if grown else None,
                by_engine=_ratio(engine, alone, paired=True),
                by_frame=_ratio(small, few) if frame != smallest else None,
                turns=min((turns(side) for side in (few, many, alone, small) if side), default=0),
            )
            if any((entry.per_person, entry.by_engine, entry.by_frame)):
                found.append(entry)
    return found


def faster_than_eager(document: dict[str, Any], backend: str, crops: str) -> Interval | None:
    """Engine-only time of eager PyTorch in float32 by a backend's, for as many crops in a call; None where one has none."""
    rows = document["parts"].get(f"batch/{crops}", {})
    if backend == EAGER:
        return None
    own, eager = (rows.get(name, {}).get("parts", {}).get("engine", {}).get("visits", []) for name in (backend, EAGER))
    return _ratio(own, eager)


def _ratio(first: Visits, second: Visits, *, paired: bool = False) -> Interval | None:
    return ratio_of_medians(first, second, paired=paired) if turns(first) and turns(second) else None
