"""One backend in a process of its own: start-up, memory, and memory over many frames.

Started by :mod:`glnet_bench.measure.processes`, which reads the JSON document that it prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from glnet_bench.machine import hardware as machine
from glnet_bench.machine.nvidia import Nvml, open_nvml
from glnet_bench.measure.failures import is_out_of_memory
from glnet_bench.measure.scene import Scene
from glnet_bench.runners.base import Options, open_product
from glnet_bench.settings import parse_frames
from glnet_infer.bundle import Bundle
from glnet_infer.commands.console import error_document
from glnet_infer.errors import BackendError, GlnetError, one_line
from glnet_infer.recoverer import MeshRecoverer

FURTHER_CALLS = 5
READINGS = 100
"""Of memory over the frames, evenly spread."""


def start_up(bundle: Path, backend: str, options: Options, scene: Scene, spawned: float) -> tuple[MeshRecoverer, Any]:
    """Open a recoverer, call it, and say how long each took.

    Args:
        bundle: Directory.
        backend: One of ``glnet_bench.runners.base.BACKENDS``.
        options: For opening it.
        scene: What to call it on.
        spawned: When this process was started, seconds of the monotonic clock.

    Returns:
        The recoverer and the times in seconds: ``import`` until this function, ``load`` of bundle and backend, ``first``
        call, their sum from the process's start as ``total``, and the median of ``further`` calls.
    """
    entered = time.monotonic()
    recoverer = MeshRecoverer(bundle, open_product(backend, Bundle.open(bundle), options))
    loaded = time.monotonic()
    recoverer(scene.image, scene.boxes)
    called = time.monotonic()
    further = []
    for _ in range(FURTHER_CALLS):
        begin = time.monotonic()
        recoverer(scene.image, scene.boxes)
        further.append(time.monotonic() - begin)
    return recoverer, {
        "import": entered - spawned,
        "load": loaded - entered,
        "first": called - loaded,
        "total": called - spawned,
        "further": sorted(further)[FURTHER_CALLS // 2],
    }


def soak(recoverer: MeshRecoverer, scene: Scene, frames: int, nvml: Nvml | None) -> list[dict[str, Any]]:
    """Memory after growing numbers of frames.

    Returns:
        Readings: ``frame``, ``host`` and ``device`` bytes, None where they cannot be read.
    """
    readings = []
    marks = {round(frames * (index + 1) / READINGS) for index in range(READINGS)}
    for frame in range(1, frames + 1):
        recoverer(scene.image, scene.boxes)
        if frame in marks:
            used = nvml.used_memory() if nvml else None
            readings.append({"frame": frame, "host": machine.memory(), "device": used})
    return readings


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
    parser.add_argument("--bus", help="PCI address of the GPU; without it device memory is not read")
    given = parser.parse_args()
    entered = time.monotonic()
    scene = Scene.make(parse_frames(given.frame)[0], given.persons)
    nvml = open_nvml(given.bus) if given.bus else None  # by address: CUDA is for the backend to start
    before = nvml.used_memory() if nvml else None
    options = Options(given.threads, given.checkpoint)
    try:
        # Making the picture is our business, and no part of anyone's start.
        spawned = given.spawned + (time.monotonic() - entered)
        recoverer, seconds = start_up(given.bundle, given.backend, options, scene, spawned)
        document: dict[str, Any] = {"seconds": seconds, "host_peak": machine.peak_memory()}
        after = nvml.used_memory() if nvml else None
        document["device"] = None if after is None or before is None else max(0, after - before)
        if given.frames:
            document["readings"] = soak(recoverer, scene, given.frames, nvml)
    except GlnetError as error:
        document = error_document(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise  # and die: what it left may be a GPU that refuses everything
        why = f"{type(error).__name__}: {one_line(error)}"
        document = error_document(BackendError(f"{given.backend} failed.", why=why, fix="see glnet-doctor"))
    sys.stdout.write("\n" + json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
