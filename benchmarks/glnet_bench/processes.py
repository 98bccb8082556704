"""Running a backend in a fresh process: the only way to see what starting and holding it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glnet_bench.runners import Options
from glnet_bench.settings import Frame
from glnet_infer.errors import BackendError

ALLOWED_GROWTH = 8 << 20
"""Bytes. Allocators move by some megabytes; a leak of a kilobyte in each of 10,000 frames is ten."""


START_SECONDS = 900
"""A backend that has not started and answered after this hangs; compiling a large network takes minutes."""


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
    bus: str | None = None,
) -> dict[str, Any]:
    """What :mod:`glnet_bench.fresh` prints of a backend.

    Args:
        bundle: Directory.
        backend: One of ``glnet_bench.runners.BACKENDS``.
        options: For opening it.
        frame: What it is called on.
        persons: In it.
        frames: Of the memory run, none where 0.
        bus: PCI address of the GPU whose memory is read.

    Raises:
        BackendError: The backend cannot run.
        ProcessDiedError: The process died, or did not answer in :data:`START_SECONDS`; a memory run may take any time.
    """
    size = f"{frame.width}x{frame.height}"
    command = [sys.executable, "-m", "glnet_bench.fresh", str(bundle), backend, "--frame", size]
    command += ["--persons", str(persons), "--frames", str(frames)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    if options.checkpoint is not None:
        command += ["--checkpoint", str(options.checkpoint)]
    if bus is not None:
        command += ["--bus", bus]
    # The monotonic clock is the machine's, so the child can subtract.
    command += ["--spawned", repr(time.monotonic())]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=None if frames else START_SECONDS)
    except subprocess.TimeoutExpired:
        raise ProcessDiedError(
            f"{backend} did not answer in a process of its own.", why=f"waited {START_SECONDS} s", fix="see glnet-doctor"
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


def growth(readings: Sequence[dict[str, Any]], where: str) -> int | None:
    """Bytes by which memory grew after the first quarter of a run, in which pools and caches fill.

    Args:
        readings: From :func:`glnet_bench.fresh.soak`.
        where: ``host`` or ``device``.

    Returns:
        Median of the last quarter less that of the second; None where memory was not read.
    """
    values = [reading[where] for reading in readings]
    if len(values) < 4 or None in values:
        return None
    quarter = len(values) // 4
    return int(np.median(values[-quarter:]) - np.median(values[quarter : 2 * quarter]))


def is_flat(readings: Sequence[dict[str, Any]], where: str) -> bool | None:
    """Whether memory stayed what it was; None where it was not read."""
    grown = growth(readings, where)
    return None if grown is None else grown <= ALLOWED_GROWTH
