"""Runs cases against a reader and says what none may do: raise errors not ours, print, run long, take memory, crash.

A process of its own runs the cases, so that a crash or an endless loop is one case's and not the run's.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glnet_infer.errors import LONGEST_MESSAGE, GlnetError

MOST_SECONDS = 5.0
"""Seconds of processor time for a case."""

MOST_BYTES = 500_000_000
"""Bytes of memory that a case may need beside what is there."""

_ADDRESSES = 6 << 30
"""Bytes of addresses beside those in use: what asks for more fails at once, and does not fill the machine."""

_WATCHED = 60.0
"""Seconds without a new case, after which a process is taken for hung."""


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        name: What it is called on the command line.
        valid: Gives what must be read.
        make: Makes a case of a generator of random numbers.
        run: Reads a case; a folder is at hand.
    """

    name: str
    valid: Callable[[], Sequence[Any]]
    make: Callable[[np.random.Generator], Any]
    run: Callable[[Any, Path], object]


@dataclass
class Report:
    """What cases of a target did.

    Attributes:
        accepted: How many were read.
        refused: How many were refused by an error of ours.
        slowest: Most seconds of processor time for a case.
        fattest: Most bytes that a case needed.
        faults: Numbers of the cases that did wrong, by what they did.
    """

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    fattest: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: Report) -> None:
        """Take another report's cases in."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.fattest = max(self.fattest, other.fattest)
        for what, cases in other.faults.items():
            self.faults.setdefault(what, []).extend(cases)


def generator(target: str, seed: int, case: int) -> np.random.Generator:
    """The random numbers of one case; every case can be made again alone."""
    return np.random.default_rng([seed, case, int.from_bytes(hashlib.sha256(target.encode()).digest()[:4], "little")])


def run_watched(target: str, seed: int, cases: range) -> Report:
    """Run cases in processes of their own; who crashes or hangs is a fault, and the others go on after it."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        shared, result, printed = (Path(folder) / name for name in ("case", "report.json", "printed"))
        while cases:
            shared.write_bytes(b"\0" * 8)
            command = [
                sys.executable,
                __file__,
                target,
                str(seed),
                str(cases.start),
                str(cases.stop),
                str(shared),
                str(result),
            ]
            with printed.open("wb") as output:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
                hung = _wait(process, shared)
            if process.returncode == 0:
                report.add(Report(**json.loads(result.read_text())))
                break
            at = int.from_bytes(shared.read_bytes(), "little")
            said = printed.read_text(errors="replace")[-2000:]
            if at == 0:
                report.faults[f"a valid file is refused, or nothing starts: {said}"] = [-1]
                break
            if result.exists():
                report.add(Report(**json.loads(result.read_text())))
                result.unlink()
            what = "hangs" if hung else f"ends the process by {process.returncode}"
            report.faults.setdefault(what, []).append(at - 1)
            cases = range(at, cases.stop)
    return report


def _wait(process: subprocess.Popen[bytes], shared: Path) -> bool:
    """Wait for a process; kill it where its cases do not go on. Returns whether that was so."""
    last, since = b"", time.monotonic()
    while True:
        try:
            process.wait(1)
            return False
        except subprocess.TimeoutExpired:
            now = shared.read_bytes()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > _WATCHED:
                process.kill()
                process.wait()
                return True


class _SlowError(BaseException):
    """Raised by the alarm; nothing of ours catches it."""


def run_cases(
    target: Target, seed: int, cases: range, reached: Callable[[int], None], save: Callable[[Report], None]
) -> Report:
    """Run cases in this process."""
    report = Report()

    def alarm(*_: object) -> None:
        raise _SlowError

    signal.signal(signal.SIGPROF, alarm)
    warnings.simplefilter("error")  # NumPy's are about numbers that no reader should have let in
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in target.valid():  # imports happen here, and count for no case
            target.run(each, folder)
        used = _memory("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES, used + _ADDRESSES))
        for case in cases:
            reached(case)
            printed = _printed()
            made = target.make(generator(target.name, seed, case))
            _forget_peak()
            before, started = _memory("VmRSS"), time.process_time()
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS * 1.5)
            what = ""
            try:
                target.run(made, folder)
                report.accepted += 1
            except GlnetError as error:
                report.refused += 1
                if len(str(error)) > LONGEST_MESSAGE or not str(error).replace("\n", "").isprintable():
                    what = "a message that is long or not printable"
            except _SlowError:
                what = "is stopped for its time"
            except BaseException as error:
                what = _describe(error)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            seconds, peak = time.process_time() - started, max(_memory("VmHWM") - before, 0)
            report.slowest, report.fattest = max(report.slowest, seconds), max(report.fattest, peak)
            if not what and _printed() != printed:
                what = "prints lines"
            if not what and seconds > MOST_SECONDS:
                what = "is slow"
            if not what and peak > MOST_BYTES:
                what = "takes too much memory"
            if what:
                report.faults.setdefault(what, []).append(case)
                save(report)
    return report


def _describe(error: BaseException) -> str:
    frames = [
        each
        for each in traceback.extract_tb(error.__traceback__)
        if "glnet" in each.filename and "fuzz" not in each.filename
    ]
    place = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else "nowhere of ours"
    return f"{type(error).__name__} at {place}: {str(error)[:100]}"


def _printed() -> int:
    """Bytes that this process wrote on stdout and stderr, which are one file."""
    sys.stdout.flush()
    return os.fstat(1).st_size


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _main() -> None:
    name, seed, start, stop, shared, result = sys.argv[1:]
    import targets

    with open(shared, "r+b") as file, mmap.mmap(file.fileno(), 8) as current:  # noqa: PTH123

        def reached(case: int) -> None:
            current[:] = (case + 1).to_bytes(8, "little")

        def save(report: Report) -> None:
            Path(result).write_text(json.dumps(asdict(report)))

        save(run_cases(targets.target(name), int(seed), range(int(start), int(stop)), reached, save))
    os._exit(0)  # what libraries do at the end is not the reader's


if __name__ == "__main__":
    _main()
