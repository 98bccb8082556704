"""Runs the readers on changed files: ``python tests/fuzz/run.py --cases 100000``. Every fault is named with its cases.

A case is made again alone: ``python tests/fuzz/run.py image --case 4711 --keep case.img``.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import targets
from harness import Report, generator, run_watched

_TOGETHER = 5000
"""Cases for one process; what libraries keep of them is freed with it."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", help="Readers to run; all where none is named.")
    parser.add_argument("--cases", type=int, default=1000, help="Cases for each reader.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first case.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of all random numbers.")
    parser.add_argument("--jobs", type=int, default=1, help="Processes at a time.")
    parser.add_argument("--case", type=int, help="Run this case alone, in this process, with its traceback.")
    parser.add_argument("--keep", type=Path, help="File for what --case reads.")
    options = parser.parse_args()
    names = options.target or list(targets.TARGETS)
    if options.case is not None:
        return _run_alone(names[0], options.seed, options.case, options.keep)
    stop = options.first + options.cases
    parts = [
        (name, range(start, min(start + _TOGETHER, stop)))
        for start in range(options.first, stop, _TOGETHER)
        for name in names
    ]
    reports, seconds = {name: Report() for name in names}, dict.fromkeys(names, 0.0)

    def run(part: tuple[str, range]) -> tuple[str, Report, float]:
        started = time.monotonic()
        return part[0], run_watched(part[0], options.seed, part[1]), time.monotonic() - started

    with ThreadPoolExecutor(options.jobs) as pool:
        for name, report, took in pool.map(run, parts):
            reports[name].add(report)
            seconds[name] += took
    print("| reader | cases | read | refused | faults | slowest, s | most memory, MB | took, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, report in reports.items():
        wrong = sum(map(len, report.faults.values()))
        print(
            f"| {name} | {options.cases} | {report.accepted} | {report.refused} | {wrong} | {report.slowest:.2f} "
            f"| {report.fattest / 1e6:.0f} | {seconds[name]:.0f} |"
        )
    faults = [
        f"{name}: {what}: {len(cases)} cases, such as {', '.join(map(str, sorted(cases)[:3]))}"
        for name, report in reports.items()
        for what, cases in report.faults.items()
    ]
    print("\n".join(faults))
    return 1 if faults else 0


def _run_alone(name: str, seed: int, case: int, keep: Path | None) -> int:
    import tempfile

    target = targets.target(name)
    made = target.make(generator(name, seed, case))
    if keep is not None:
        keep.write_bytes(made if isinstance(made, bytes) else repr(made).encode())
    with tempfile.TemporaryDirectory() as folder:
        target.run(made, Path(folder))
    print("It was read.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
