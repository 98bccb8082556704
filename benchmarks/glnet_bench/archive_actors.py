"""What many actors would take for an archive: ``python -m glnet_bench.archive_actors RUN.json``.

The file is what ``glnet-infer ARCHIVE --ray local --json`` printed, with the seconds of its items. Items are drawn from
these until the archive is as large as is asked, and dealt to actors as the driver deals them: each that is idle gets the
next one. So the table is a simulation: of queues and of ends at which some actors are idle. It knows nothing of disks,
networks and other machines, on which actors hinder each other.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ACTORS = (1, 2, 4, 8, 16, 32, 64)


def makespan(seconds: Sequence[float], actors: int, start: float, dispatch: float) -> float:
    """Time from the first actor's start to the last item's end.

    Args:
        seconds: Time of each item, in the order of the queue.
        actors: How many there are.
        start: Seconds until an actor is ready.
        dispatch: Seconds that the driver spends on an item, on one after the other.
    """
    free = [start] * actors
    driver, last = start, 0.0
    for each in seconds:
        begin = max(heapq.heappop(free), driver)
        driver = begin + dispatch
        last = max(last, driver + each)
        heapq.heappush(free, driver + each)
    return last


def table(seconds: Sequence[float], inputs: int, total: int, start: float, dispatch: float) -> str:
    """Rows of a Markdown table.

    Args:
        seconds: Time of each recorded item.
        inputs: How many photographs these items held.
        total: Photographs of the archive.
        start: Seconds until an actor is ready.
        dispatch: Seconds that the driver spends on an item.
    """
    drawn = np.random.default_rng(0).choice(np.asarray(seconds, np.float64), max(1, round(total * len(seconds) / inputs)))
    alone = makespan(drawn.tolist(), 1, start, dispatch)
    lines = ["| actors | seconds | times as fast as one | efficiency |", "| ---: | ---: | ---: | ---: |"]
    for actors in ACTORS:
        took = makespan(drawn.tolist(), actors, start, dispatch)
        lines.append(f"| {actors} | {took:.0f} | {alone / took:.2f} | {alone / took / actors:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="Document of glnet-infer --ray --json.")
    parser.add_argument("--photographs", type=int, default=100_000, help="Size of the archive.")
    parser.add_argument("--start", type=float, default=8.0, help="Seconds until an actor is ready.")
    parser.add_argument("--dispatch", type=float, default=0.002, help="Seconds that the driver spends on an item.")
    given = parser.parse_args()
    items = [each for each in json.loads(given.run.read_text(encoding="utf-8"))["items"] if each["kind"] == "photographs"]
    seconds, inputs = [each["seconds"] for each in items], sum(each["inputs"] for each in items)
    print(f"Simulated from {len(items)} recorded items of {inputs} photographs: {given.photographs} photographs,")
    print(f"actors ready after {given.start:g} s, {1000 * given.dispatch:g} ms of the driver for each item.\n")
    print(table(seconds, inputs, given.photographs, given.start, given.dispatch))


if __name__ == "__main__":
    main()
