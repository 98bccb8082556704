"""Ratios within a run, between rows that took turns: growth with persons and with the frame, gain over eager PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from glnet_bench.estimates import Interval, Turns, count_turns, ratio
from glnet_bench.record.names import EAGER, END_TO_END, NETWORK, Kind, Part
from glnet_bench.record.run import RunRecord

Gains = dict[tuple[Part, str], Interval]
"""How many times as fast as eager PyTorch the network is, by part of the run and backend."""


@dataclass(frozen=True)
class Scaling:
    """Medians of a backend in one frame, divided by each other; None where a row has no samples.

    Attributes:
        backend: Name of the backend.
        frame: Name of the frame.
        fewest: Fewest persons.
        most: Most persons.
        per_person: Time per person with the most persons, by that with the fewest.
        by_network: End-to-end by network, in the same calls with one person.
        by_frame: End-to-end with the fewest persons, by that in the smallest frame.
        turns: The fewest turns that one of these rests on.
    """

    backend: str
    frame: str
    fewest: int
    most: int
    per_person: Interval | None
    by_network: Interval | None
    by_frame: Interval | None
    turns: int


def scalings(run: RunRecord) -> list[Scaling]:
    """What a run says of growth, by backend and frame."""
    settings = run.settings
    fewest, most = min(settings.persons), max(settings.persons)
    smallest = min(settings.frames, key=lambda frame: frame.width * frame.height).name

    def turns(backend: str, frame: str, persons: int, what: str = END_TO_END) -> Turns:
        times = run.times(Part.of_frame(frame, persons), backend, what)
        return times.turns if times else ()

    found = []
    for backend in settings.backends:
        for frame in (each.name for each in settings.frames):
            few, many, alone = (turns(backend, frame, count) for count in (fewest, most, 1))
            network, small = turns(backend, frame, 1, NETWORK), turns(backend, smallest, fewest)
            grown = ratio(few, many) if most > fewest else None
            entry = Scaling(
                backend=backend,
                frame=frame,
                fewest=fewest,
                most=most,
                per_person=grown / (most / fewest) if grown else None,
                by_network=ratio(network, alone, paired=True),
                by_frame=ratio(small, few) if frame != smallest else None,
                turns=min((count_turns(side) for side in (few, many, alone, small) if side), default=0),
            )
            if any((entry.per_person, entry.by_network, entry.by_frame)):
                found.append(entry)
    return found


def gains(run: RunRecord) -> Gains:
    """The gain of every batch and backend that has one."""
    found = {(part, name): faster_than_eager(run, name, part) for part, name, _ in run.rows_of(Kind.BATCH)}
    return {key: gain for key, gain in found.items() if gain}


def faster_than_eager(run: RunRecord, backend: str, part: Part) -> Interval | None:
    """The network's time in eager PyTorch by that in a backend; None where one was not timed."""
    own, eager = (run.times(part, name, NETWORK) for name in (backend, EAGER))
    return ratio(own.turns, eager.turns) if own and eager and backend != EAGER else None
