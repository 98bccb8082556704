"""One backend in a process of its own: start-up, memory, and memory over many frames.

Started by :mod:`glnet_bench.measure.processes`, which reads the JSON document that it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from glnet_bench.machine import hardware as machine
from glnet_bench.machine import nvml as nvmls
from glnet_bench.machine.nvml import Nvml
from glnet_bench.measure.failures import is_out_of_memory
from glnet_bench.measure.scene import Scene
from glnet_bench.record.codec import encode
from glnet_bench.record.results import Reading, Soak, StartSeconds
from glnet_bench.runners.base import Options
from glnet_bench.runners.registry import open_product
from glnet_bench.settings import parse_frames
from glnet_infer.bundle import Bundle
from glnet_infer.commands.console import error_document
from glnet_infer.errors import BackendError, GlnetError, one_line
from glnet_infer.recoverer import MeshRecoverer

FURTHER_CALLS = 5
READINGS = 100
"""Readings of memory, evenly spread over the frames."""


def start_up(
    bundle: Path, backend: str, options: Options, scene: Scene, spawned: float
) -> tuple[MeshRecoverer, StartSeconds]:
    """Open a recoverer, call it, and say how long each took.

    Args:
        bundle: Directory of the bundle.
        backend: One of ``glnet_bench.runners.registry.backend_names``.
        options: Options for opening it.
        scene: What to call it on.
        spawned: When this process was started, seconds of the monotonic clock.
    """
    entered = time.monotonic()
    opened = Bundle.open(bundle)  # once, as a product does: it reads every file for its hash
    recoverer = MeshRecoverer(opened, open_product(backend, opened, options))
    loaded = time.monotonic()
    recoverer(scene.image, scene.boxes)
    called = time.monotonic()
    further = []
    for _ in range(FURTHER_CALLS):
        begin = time.monotonic()
        recoverer(scene.image, scene.boxes)
        further.append(time.monotonic() - begin)
    return recoverer, StartSeconds(
        importing=entered - spawned,
        loading=loaded - entered,
        first_call=called - loaded,
        total=called - spawned,
        later_call=sorted(further)[FURTHER_CALLS // 2],
    )


def soak(recoverer: MeshRecoverer, scene: Scene, frames: int, nvml: Nvml | None) -> tuple[Reading, ...]:
    """Memory after growing numbers of frames."""
    readings = []
    marks = {round(frames * (index + 1) / READINGS) for index in range(READINGS)}
    for frame in range(1, frames + 1):
        recoverer(scene.image, scene.boxes)
        if frame in marks:
            readings.append(Reading(frame, machine.memory(), nvml.used_memory() if nvml else None))
    return tuple(readings)


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("backend")
    parser.add_argument("--spawned", type=float, required=True)
    parser.add_argument("--frame", required=True)
    parser.add_argument("--persons", type=int, required=True)
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--address", action="append", default=[])
    parser.add_argument("--bus", help="PCI address of the GPU; without it device memory is not read")
    given = parser.parse_args()
    try:
        document: dict[str, Any] = encode(_measured(given))
    except GlnetError as error:
        document = error_document(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise  # and die: what it left may be a GPU that refuses everything
        why = f"{type(error).__name__}: {one_line(error)}"
        document = error_document(BackendError(f"{given.backend} failed.", why=why, fix="see glnet-doctor"))
    sys.stdout.write("\n" + json.dumps(document) + "\n")


def _measured(given: argparse.Namespace) -> Soak:
    entered = time.monotonic()
    scene = Scene.make(parse_frames(given.frame)[0], given.persons)
    # By address: CUDA is for the backend to start.
    with nvmls.opened(given.bus) if given.bus else contextlib.nullcontext() as nvml:
        before = nvml.used_memory() if nvml else None
        # Making the picture is our business, and no part of anyone's start.
        spawned = given.spawned + (time.monotonic() - entered)
        options = Options(given.threads, given.checkpoint, tuple(given.address))
        recoverer, seconds = start_up(given.bundle, given.backend, options, scene, spawned)
        peak, after = machine.peak_memory(), nvml.used_memory() if nvml else None
        return Soak(
            seconds=seconds,
            host_peak=peak,
            device=None if after is None or before is None else max(0, after - before),
            persons=given.persons,
            readings=soak(recoverer, scene, given.frames, nvml) if given.frames else (),
        )


if __name__ == "__main__":
    main()
