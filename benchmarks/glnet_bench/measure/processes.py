"""Running a backend alone, in a process of its own: the only way to see what starting and holding it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from glnet_bench.measure.failures import ProcessDiedError
from glnet_bench.record.codec import decode
from glnet_bench.record.results import Soak
from glnet_bench.runners.base import Options
from glnet_bench.settings import Frame
from glnet_infer.errors import BackendError

START_SECONDS = 900
"""A backend that has not started and answered after this hangs; compiling a large network takes minutes."""

SOAK_MARGIN = 10
"""A memory run that takes so many times as long as its frames should hangs."""


def run_alone(
    bundle: Path,
    backend: str,
    options: Options,
    frame: Frame,
    persons: int,
    *,
    frames: int = 0,
    seconds: float | None = None,
    bus: str | None = None,
) -> Soak:
    """What :mod:`glnet_bench.measure.alone` prints of a backend.

    Args:
        bundle: Directory of the bundle.
        backend: One of ``glnet_bench.runners.registry.backend_names``.
        options: Options for opening it.
        frame: Frame that it is called on.
        persons: Persons in the frame.
        frames: Frames of the memory run, none where 0.
        seconds: Seconds after which the process hangs; :data:`START_SECONDS` where None.
        bus: PCI address of the GPU whose memory is read.

    Returns:
        The start, without readings of memory where there are no frames.

    Raises:
        BackendError: The backend cannot run.
        ProcessDiedError: The process died, or did not answer in time.
    """
    size = f"{frame.width}x{frame.height}"
    command = [sys.executable, "-X", "utf8", "-m", "glnet_bench.measure.alone", str(bundle), backend, "--frame", size]
    command += ["--persons", str(persons), "--frames", str(frames)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    if options.checkpoint is not None:
        command += ["--checkpoint", str(options.checkpoint)]
    for address in options.addresses:
        command += ["--address", address]
    if bus is not None:
        command += ["--bus", bus]
    # The monotonic clock is the machine's, so the child can subtract.
    command += ["--spawned", repr(time.monotonic())]
    limit = START_SECONDS if seconds is None else seconds
    try:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=limit)
    except subprocess.TimeoutExpired:
        raise ProcessDiedError(
            f"{backend} did not answer in a process of its own.", why=f"waited {limit:.0f} s", fix="see glnet-doctor"
        ) from None
    try:
        document = json.loads(result.stdout.splitlines()[-1])
        if "error" not in document:
            return decode(Soak, document)
    except (IndexError, ValueError, TypeError):
        last = next(iter(reversed(result.stderr.strip().splitlines())), "")
        raise ProcessDiedError(
            f"{backend} died in a process of its own.", why=last or f"exit code {result.returncode}", fix="see glnet-doctor"
        ) from None
    error = document["error"]
    raise BackendError(error["what"], why=error["why"], fix=error["fix"])


def soak_seconds(frames: int, each: float) -> float:
    """How long a memory run may take.

    Args:
        frames: Number of its frames.
        each: Seconds that one of them should take.
    """
    return START_SECONDS + SOAK_MARGIN * frames * each
