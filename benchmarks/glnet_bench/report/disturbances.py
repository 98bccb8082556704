"""How quiet the machine was during a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

BUSY = 0.2
"""Load per core, from others, at which a machine is called busy."""

STOLEN = 0.03
"""Share of the processors' time that a hypervisor may give to others before it is worth a warning."""

STEADY = 0.9
"""Of a GPU's highest clock; where it fell below, its clock was not constant."""

_SHORTEST = 0.5
"""Seconds of processor time, all cores', below which shares of it are noise: Linux counts it in hundredths."""


def warnings(watched: list[dict[str, Any]], cores_used: int) -> list[str]:
    """What in the notes of a run speaks against its figures.

    Args:
        watched: From :func:`glnet_bench.machine.hardware.watch`, the first before anything ran, the others each after what
            their ``after`` names. The first note of every sitting of a run that was interrupted and resumed says ``began``: what
            happened between sittings is no matter of the run.
        cores_used: Cores of the machine.
    """
    found: list[str] = []
    for index, note in enumerate(watched):
        load = note["load_average"]
        if (index == 0 or note.get("began")) and load > BUSY * cores_used:
            moment = f"{'went on' if index else 'began'} (load {load:.1f} on {cores_used} cores)"
            found.append(f"the machine was busy with other work before the run {moment}")
    for text, read, allowed in (
        ("other work kept up to {:.0%} of the processors busy during {}", lambda time: time["busy"] - time["own"], BUSY),
        ("the hypervisor gave others up to {:.0%} of the processors' time during {}", lambda time: time["stolen"], STOLEN),
    ):
        shares = [(part, share) for part, share in _shares(watched, read) if share > allowed]
        if shares:
            found.append(text.format(max(share for _, share in shares), ", ".join(part for part, _ in shares)))
    throttled = _grown(watched, lambda note: note["cpu_throttle_count"])
    if throttled:
        found.append(f"the CPU throttled {throttled} times")
    reasons = sorted({reason for note in watched for reason in ((note["gpu"] or {}).get("throttled") or [])})
    if reasons:
        found.append(f"the GPU's clocks were held back: {', '.join(reasons)}")
    for policy, seconds in _held_back(watched).items():
        found.append(f"the GPU was held back by its {policy} for {seconds:.1f} s")
    # A GPU at rest lowers its clock: before the run, and where a part of it was another device's.
    parts = [note["gpu"] for note in watched[1:] if not note.get("began")]
    at_work = [gpu for gpu in parts if gpu and gpu.get("load_percent") != 0]
    clocks = [gpu["sm_mhz"] for gpu in at_work if gpu["sm_mhz"]]
    if clocks and min(clocks) < STEADY * max(clocks):
        found.append(f"the GPU's clock was not constant: {min(clocks)} to {max(clocks)} MHz")
    return found


def _shares(watched: list[dict[str, Any]], read: Callable[[dict[str, float]], float]) -> Iterator[tuple[str, float]]:
    """Parts of the run, and the share of all processors' time that something had in each."""
    for before, after in pairwise(watched):
        times = before.get("cpu_seconds"), after.get("cpu_seconds")
        if after.get("began") or None in times:
            continue
        first, last = times
        if last["all"] - first["all"] >= _SHORTEST:
            yield after.get("after") or "the run", (read(last) - read(first)) / (last["all"] - first["all"])


def _held_back(watched: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of the run in which the GPU was slowed down, by what; tenths of a second and more."""

    def seconds(note: dict[str, Any]) -> dict[str, float | None]:
        return (note["gpu"] or {}).get("held_back_seconds") or {}

    policies = dict.fromkeys(policy for note in watched for policy in seconds(note))
    grown = {policy: _grown(watched, lambda note, policy=policy: seconds(note).get(policy)) for policy in policies}
    return {policy: total for policy, total in grown.items() if total >= 0.1}


def _grown(watched: list[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]) -> float:
    """By how much a counter of the machine grew within the sittings of a run."""
    total: float = 0
    before = None
    for note in watched:
        count = read(note)
        if before is not None and count is not None and not note.get("began"):
            total += max(count - before, 0)
        if count is not None or note.get("began"):
            before = count
    return total
