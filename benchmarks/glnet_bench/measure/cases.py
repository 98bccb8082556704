"""What a run times: calls of every backend, as cases that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from glnet_bench.estimates import Timed
from glnet_bench.machine.nvml import Nvml
from glnet_bench.measure import scene as scenes
from glnet_bench.measure.sampling import Case
from glnet_bench.measure.scene import Scene
from glnet_bench.record.names import END_TO_END, HOST, NETWORK, Part
from glnet_bench.runners.base import Runner
from glnet_bench.settings import Frame
from glnet_infer.bundle import Bundle
from glnet_infer.errors import BackendError
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes

GPU_SETTLE = 0.3
"""Seconds of untimed calls before a GPU is timed: at rest it lowers its clocks, and raises them in tenths of a second."""


class Cases:
    """Cases of opened backends, each called by its part of the run and its backend.

    Args:
        bundle: What they run.
        runners: The backends.
        nvml: NVML of the GPU whose clock is read after each turn.
    """

    def __init__(self, bundle: Bundle, runners: dict[str, Runner], nvml: Nvml | None) -> None:
        self._bundle, self._runners, self._nvml = bundle, runners, nvml

    def batch(self, crops: int, frame: Frame) -> Iterator[Case]:
        """The network's times of one call with so many crops, and end-to-end times of as many persons, side by side.

        Args:
            crops: Crops in a call, and persons in the frame.
            frame: Frame that the persons are in.
        """
        arrays = scenes.batch(crops, self._bundle.manifest.crop.size)
        scene = Scene.make(frame, crops)
        for name, runner in self._runners.items():
            recoverer = runner.recoverer(self._bundle, runner.backend)

            def call(runner: Runner = runner, recoverer: MeshRecoverer = recoverer) -> Timed:
                if runner.most_crops is not None and crops > runner.most_crops:
                    raise BackendError(
                        f"The engine takes at most {runner.most_crops} crops in a call.",
                        fix="export with a larger --batch MIN:OPT:MAX",
                    )
                runner.staged.reset()
                runner.staged.run(*arrays)
                network = runner.staged.times[NETWORK]
                start = time.perf_counter()
                recoverer(scene.image, scene.boxes)
                return {NETWORK: network, END_TO_END: 1000 * (time.perf_counter() - start)}

            yield self._case(Part.batch(crops), name, call)

    def frames(self, parts: dict[Part, Frame]) -> Iterator[Case]:
        """End-to-end times of frames, and their stages.

        Args:
            parts: Parts of the run, each with its frame.
        """
        scenery = {part: Scene.make(frame, part.count) for part, frame in parts.items()}
        recoverer = None
        for name, runner in self._runners.items():
            recoverer = runner.recoverer(self._bundle, runner.backend)
            staged = runner.recoverer(self._bundle, runner.staged)
            for part, scene in scenery.items():

                def call(
                    scene: Scene = scene,
                    runner: Runner = runner,
                    whole: MeshRecoverer = recoverer,
                    staged: MeshRecoverer = staged,
                ) -> Timed:
                    times = staged_call(runner, staged, scene)
                    if not runner.times_itself:
                        start = time.perf_counter()
                        whole(scene.image, scene.boxes)
                        times[END_TO_END] = 1000 * (time.perf_counter() - start)
                    return times

                yield self._case(part, name, call)
        if recoverer is not None:
            for part, scene in scenery.items():
                yield host_case(part, recoverer, scene)

    def _case(self, part: Part, name: str, call: Callable[[], Timed]) -> Case:
        if self._runners[name].device != "cuda":
            return Case((part, name), call, END_TO_END)
        return Case((part, name), call, END_TO_END, GPU_SETTLE, self._nvml.sm_clock if self._nvml else None)


def staged_call(runner: Runner, recoverer: MeshRecoverer, scene: Scene) -> Timed:
    """One call of a recoverer on a staged backend: its stages, which add up to the whole."""
    staged = runner.staged
    staged.reset()
    start = time.perf_counter()
    recoverer(scene.image, scene.boxes)
    end = time.perf_counter()
    return {
        END_TO_END: 1000 * (end - start),
        "crop": 1000 * (staged.began - start),
        **staged.times,
        "packing": 1000 * (end - staged.ended),
    }


def host_case(part: Part, recoverer: MeshRecoverer, scene: Scene) -> Case:
    """Decoding the frame and drawing the overlay, which are the same whatever the backend."""
    meshes: list[Meshes] = []

    def call() -> Timed:
        if not meshes:
            meshes.append(recoverer(scene.image, scene.boxes))
        start = time.perf_counter()
        image = scenes.decode(scene.encoded)
        decoded = time.perf_counter()
        meshes[0].overlay(image)
        return {"decode": 1000 * (decoded - start), "overlay": 1000 * (time.perf_counter() - decoded)}

    return Case((part, HOST), call, "decode")
