"""How quiet the machine was during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from glnet_bench.record.surroundings import Note, ProcessorTime

BUSY = 0.2
"""Load per core, from others, at which a machine is called busy."""

STOLEN = 0.03
"""Share of the processors' time that a hypervisor may give to others before it is worth a warning."""

STEADY = 0.9
"""Share of a GPU's highest clock; where it fell below, its clock was not constant."""

_SHORTEST = 0.5
"""Seconds of processor time, all cores', below which shares of it are noise: Linux counts it in hundredths."""


def warnings(watched: list[Note], cores: int) -> list[str]:
    """What in the notes of a run speaks against its figures.

    Args:
        watched: Notes of the machine, the first before anything ran, each other one after the measurement that it names.
            Where a run was interrupted and went on, a note says so: what happened in between is no matter of the run.
        cores: Cores of the machine.
    """
    found: list[str] = []
    for index, note in enumerate(watched):
        if (index == 0 or note.began) and (note.load_average or 0) > BUSY * cores:
            moment = f"{'went on' if index else 'began'} (load {note.load_average:.1f} on {cores} cores)"
            found.append(f"the machine was busy with other work before the run {moment}")
    readings: tuple[tuple[str, Callable[[ProcessorTime], float], float], ...] = (
        ("other work kept up to {:.0%} of the processors busy during {}", lambda time: time.busy - time.own, BUSY),
        ("the hypervisor gave others up to {:.0%} of the processors' time during {}", lambda time: time.stolen, STOLEN),
    )
    for text, read, allowed in readings:
        shares = [(part, share) for part, share in _shares(watched, read) if share > allowed]
        if shares:
            found.append(text.format(max(share for _, share in shares), ", ".join(part for part, _ in shares)))
    throttled = _grown(watched, lambda note: note.cpu_throttle_count)
    if throttled:
        found.append(f"the CPU throttled {throttled} times")
    reasons = sorted({reason for note in watched if note.gpu for reason in note.gpu.throttled or ()})
    if reasons:
        found.append(f"the GPU's clocks were held back: {', '.join(reasons)}")
    for policy, seconds in _held_back(watched).items():
        found.append(f"the GPU was held back by its {policy} for {seconds:.1f} s")
    # A GPU at rest lowers its clock: before the run, and where a part of it was another device's.
    at_work = [note.gpu for note in watched[1:] if not note.began and note.gpu and note.gpu.load_percent != 0]
    clocks = [gpu.sm_mhz for gpu in at_work if gpu.sm_mhz]
    if clocks and min(clocks) < STEADY * max(clocks):
        found.append(f"the GPU's clock was not constant: {min(clocks)} to {max(clocks)} MHz")
    return found


def _shares(watched: list[Note], read: Callable[[ProcessorTime], float]) -> Iterator[tuple[str, float]]:
    """Parts of the run, and the share of all processors' time that something had in each."""
    for before, after in pairwise(watched):
        first, last = before.cpu_seconds, after.cpu_seconds
        if after.began or first is None or last is None:
            continue
        if last.all - first.all >= _SHORTEST:
            yield after.after or "the run", (read(last) - read(first)) / (last.all - first.all)


def _held_back(watched: list[Note]) -> dict[str, float]:
    """Seconds of the run in which the GPU was slowed down, by what; tenths of a second and more."""
    found = {}
    for policy in dict.fromkeys(policy for note in watched if note.gpu for policy in note.gpu.held_back_seconds):

        def seconds(note: Note, policy: str = policy) -> float | None:
            return note.gpu.held_back_seconds.get(policy) if note.gpu else None

        found[policy] = _grown(watched, seconds)
    return {policy: total for policy, total in found.items() if total >= 0.1}


def _grown(watched: list[Note], read: Callable[[Note], float | None]) -> float:
    """By how much a counter of the machine grew within the sittings of a run."""
    total: float = 0
    before = None
    for note in watched:
        count = read(note)
        if before is not None and count is not None and not note.began:
            total += max(count - before, 0)
        if count is not None or note.began:
            before = count
    return total
