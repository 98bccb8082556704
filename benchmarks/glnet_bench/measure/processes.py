"""Running a backend in a fresh process: the only way to see what starting and holding it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glnet_bench.runners.base import Options
from glnet_bench.settings import Frame
from glnet_infer.errors import BackendError

ALLOWED_GROWTH = 0.01
"""Of what was held after a tenth of the frames, when pools and caches are full."""

START_SECONDS = 900
"""A backend that has not started and answered after this hangs; compiling a large network takes minutes."""


SOAK_MARGIN = 10
"""A memory run that takes so many times as long as its frames should hangs."""


class ProcessDiedError(BackendError):
    """A backend took its process with it, or hung in it."""


def run_fresh(
    bundle: Path,
    backend: str,
    options: Options,
    frame: Frame,
    persons: int,
    *,
    frames: int = 0,
    seconds: float | None = None,
    bus: str | None = None,
) -> dict[str, Any]:
    """What :mod:`glnet_bench.measure.start` prints of a backend.

    Args:
        bundle: Directory.
        backend: One of ``glnet_bench.runners.base.BACKENDS``.
        options: For opening it.
        frame: What it is called on.
        persons: In it.
        frames: Of the memory run, none where 0.
        seconds: After which the process hangs; :data:`START_SECONDS` where None.
        bus: PCI address of the GPU whose memory is read.

    Raises:
        BackendError: The backend cannot run.
        ProcessDiedError: The process died, or did not answer in time.
    """
    size = f"{frame.width}x{frame.height}"
    command = [sys.executable, "-m", "glnet_bench.measure.start", str(bundle), backend, "--frame", size]
    command += ["--persons", str(persons), "--frames", str(frames)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    if options.checkpoint is not None:
        command += ["--checkpoint", str(options.checkpoint)]
    if bus is not None:
        command += ["--bus", bus]
    # The monotonic clock is the machine's, so the child can subtract.
    command += ["--spawned", repr(time.monotonic())]
    limit = START_SECONDS if seconds is None else seconds
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise ProcessDiedError(
            f"{backend} did not answer in a process of its own.", why=f"waited {limit:.0f} s", fix="see glnet-doctor"
        ) from None
    try:
        document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = next(iter(reversed(result.stderr.strip().splitlines())), "")
        raise ProcessDiedError(
            f"{backend} died in a process of its own.", why=last or f"exit code {result.returncode}", fix="see glnet-doctor"
        ) from None
    if "error" in document:
        error = document["error"]
        raise BackendError(error["what"], why=error["why"], fix=error["fix"])
    return document


@dataclass(frozen=True)
class Growth:
    """By how much memory grew over the frames of a run.

    Attributes:
        bytes: At the end less after a tenth of the frames, in which pools and caches fill.
        share: The same, of what was held after that tenth.
    """

    bytes: int
    share: float

    @property
    def is_flat(self) -> bool:
        """Whether memory stayed what it was: it grew by no more than :data:`ALLOWED_GROWTH`."""
        return self.share <= ALLOWED_GROWTH


def growth(readings: Sequence[dict[str, Any]], where: str) -> Growth | None:
    """How memory grew from a tenth of a run to its end; None where it was not read then.

    Args:
        readings: From :func:`glnet_bench.measure.start.soak`.
        where: ``host`` or ``device``.
    """
    if not readings:
        return None
    last = readings[-1]
    first = next(reading for reading in readings if 10 * reading["frame"] >= last["frame"])
    if first is last or not first[where] or last[where] is None:
        return None
    grown = last[where] - first[where]
    return Growth(grown, grown / first[where])


def soak_seconds(frames: int, each: float) -> float:
    """How long a memory run may take.

    Args:
        frames: It has.
        each: Seconds that one of them should take.
    """
    return START_SECONDS + SOAK_MARGIN * frames * each
