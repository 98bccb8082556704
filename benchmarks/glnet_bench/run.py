"""A run: part by part, all backends in turns within each part, saved after every one."""

from __future__ import annotations

import contextlib
import datetime
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from glnet_bench import ceilings, machine, operations
from glnet_bench import scene as scenes
from glnet_bench.nvidia import open_nvml
from glnet_bench.processes import ProcessDiedError, growth, is_flat, run_fresh
from glnet_bench.record import Record
from glnet_bench.runners import TORCH, Options, Runner, open_runner
from glnet_bench.sampling import Case, Measured, Plan, Timed, measure
from glnet_bench.scene import Scene
from glnet_bench.settings import Frame, Settings
from glnet_bench.statistics import Summary
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.devices import cores
from glnet_infer.errors import BackendError, GlnetError, one_line
from glnet_infer.manifest import MANIFEST_NAME
from glnet_infer.meshes import Meshes
from glnet_infer.recoverer import MeshRecoverer

TIMED_REGION = (
    "Engine: from inputs in the memory of the device that runs the network to outputs there; end-to-end: one call of "
    "MeshRecoverer, from a decoded frame and its boxes in host memory to Meshes in host memory (crop, upload, engine, "
    "download, camera and packing), without decoding the frame and without drawing the overlay."
)

HOST = "host"
"""Key of the stages that no backend takes part in: decoding the frame, drawing the overlay."""

STAGES = ("decode", "crop", "upload", "engine", "download", "packing", "overlay")
"""In the order in which a frame goes through them."""

_PLACES = 4
"""Decimals of samples in the file: tenths of a microsecond, finer than any clock here."""


def bundle_head(bundle: Bundle) -> dict[str, Any]:
    """Which bundle a run measures."""
    manifest = bundle.manifest
    return {
        "manifest_sha256": record_file(bundle.directory / MANIFEST_NAME).sha256,
        "graph_sha256": manifest.graph.file.sha256,
        "network": manifest.network.name,
        "weights": manifest.network.weights,
        "weights_sha256": manifest.network.sha256,
        "body": manifest.body.name,
        "vertices": manifest.body.vertices,
        "crop_size": manifest.crop.size,
        "precision": manifest.graph.precision,
        "engines": {
            record.file.file: {
                "sha256": record.file.sha256,
                "flavor": record.flavor,
                "version": record.version,
                "precision": record.precision,
                "compute_capabilities": list(record.compute_capabilities),
                "profile": list(record.profile),
            }
            for record in manifest.engines
        },
    }


def part_names(settings: Settings) -> list[str]:
    """The parts of a run, in order."""
    names = ["floor", *(f"start/{name}" for name in settings.backends)]
    names += [f"soak/{name}" for name in settings.backends if settings.soak]
    names += [f"batch/{count}" for count in settings.batches]
    return names + [f"frame/{frame.name}/{count}" for frame in settings.frames for count in settings.persons]


class Run:
    """Measures what a record lacks.

    Args:
        bundle: What is measured.
        settings: How.
        options: For opening backends.
        record: Where results go; finished parts in it are kept.
    """

    def __init__(self, bundle: Bundle, settings: Settings, options: Options, record: Record) -> None:
        self._bundle, self._settings, self._options, self._record = bundle, settings, options, record
        self._plan = Plan(
            samples=settings.samples,
            least=min(Plan.least, settings.samples),
            seconds=settings.seconds,
            warm_up_seconds=2 * settings.seconds,
        )
        self._nvml = open_nvml()
        self._runners: dict[str, Runner] | None = None

    def __call__(self, tell: Callable[[str], None]) -> None:
        """Measure, part by part; ``tell`` hears the name of each that begins.

        Raises:
            OutputError: The record cannot be written.
        """
        document = self._record.document
        document["started"] = document["started"] or _now()
        self._watch(began=True)
        try:
            for name in part_names(self._settings):
                if self._record.has(name):
                    continue
                tell(name)
                content = self._part(*name.split("/"))
                self._watch()  # before it is saved: what happened meanwhile belongs to the part
                self._record.add(name, content)
            document["finished"] = document["finished"] or _now()
            self._record.save()
        finally:
            self.close()

    def close(self) -> None:
        """Close all backends. Calling it twice is allowed."""
        for runner in (self._runners or {}).values():
            with contextlib.suppress(Exception):  # what was measured is worth more than a tidy end
                runner.close()
        self._runners = None

    def _watch(self, *, began: bool = False) -> None:
        self._record.document["watched"].append({"began": began, **machine.watch(self._nvml)})

    def _part(self, kind: str, *what: str) -> Any:
        settings = self._settings
        if kind == "floor":
            return measure_floor(self._bundle, settings)
        if kind == "start":
            return self._fresh(what[0], 0)
        if kind == "soak":
            died = self._died(what[0])
            return {"reason": died} if died else self._fresh(what[0], settings.soak)
        count = int(what[-1])
        if kind == "batch":
            cases = self._batch_cases(count)
        else:
            cases = self._frame_cases(next(frame for frame in settings.frames if frame.name == what[0]), count)
        measured = measure(list(cases), self._plan, seed=count, after_failure=_free_memory)
        return {name: row(result, count) for name, result in measured.items()}

    def _fresh(self, name: str, frames: int) -> dict[str, Any]:
        frame, persons = self._settings.frames[0], self._settings.persons[0]
        try:
            bus = self._nvml.bus if self._nvml else None
            found = run_fresh(self._bundle.directory, name, self._options, frame, persons, frames=frames, bus=bus)
        except ProcessDiedError as error:
            return {"reason": _reason(error), "died": True}
        except GlnetError as error:
            return {"reason": _reason(error)}
        readings = found.get("readings")
        if readings is not None:
            found["growth"] = {where: growth(readings, where) for where in ("host", "device")}
            found["flat"] = {where: is_flat(readings, where) for where in ("host", "device")}
        return found

    def _died(self, name: str) -> str | None:
        """Why a backend took the process of its start with it; None where it did not."""
        alone = self._record.document["parts"].get(f"start/{name}", {})
        return alone["reason"] if alone.get("died") else None

    def _opened(self) -> dict[str, Runner]:
        """The backends that run here; the record learns why the others do not."""
        if self._runners is None:
            self._runners = {}
            for name in self._settings.backends:
                start = time.perf_counter()
                died = self._died(name)
                if died:  # here it would take the run with it
                    self._record.document["backends"][name] = {"reason": died}
                    continue
                try:
                    runner = open_runner(name, self._bundle, self._options)
                except Exception as error:  # whatever a backend raises belongs to its row
                    self._record.document["backends"][name] = {"reason": _reason(error)}
                    continue
                self._runners[name] = runner
                self._record.document["backends"][name] = {
                    "says": runner.says,
                    "device": runner.device,
                    "precision": runner.precision,
                    "clock": runner.clock,
                    "at_once": runner.at_once,
                    "load_seconds": time.perf_counter() - start,
                }
        return self._runners

    def _batch_cases(self, count: int) -> Iterator[Case]:
        """Engine-only times of one call with so many crops, and end-to-end times of as many persons, side by side."""
        crops, cameras = scenes.batch(count, self._bundle.manifest.crop.size)
        scene = Scene.make(self._settings.frames[0], count)
        for name, runner in self._opened().items():
            recoverer = runner.recoverer(self._bundle.directory, runner.backend)

            def call(runner: Runner = runner, recoverer: MeshRecoverer = recoverer) -> Timed:
                if runner.most is not None and count > runner.most:
                    raise BackendError(
                        f"The engine takes at most {runner.most} crops in a call.",
                        fix="export with a larger --batch MIN:OPT:MAX",
                    )
                runner.staged.reset()
                runner.staged.run(crops, cameras)
                engine = runner.staged.parts["engine"]
                start = time.perf_counter()
                recoverer(scene.image, scene.boxes)
                return {"engine": engine, "end_to_end": 1000 * (time.perf_counter() - start)}

            yield Case(name, call, "end_to_end")

    def _frame_cases(self, frame: Frame, persons: int) -> Iterator[Case]:
        """End-to-end times of a frame, and its stages."""
        scene = Scene.make(frame, persons)
        recoverer = None
        for name, runner in self._opened().items():
            recoverer = runner.recoverer(self._bundle.directory, runner.backend)
            staged = runner.recoverer(self._bundle.directory, runner.staged)

            def call(runner: Runner = runner, whole: MeshRecoverer = recoverer, staged: MeshRecoverer = staged) -> Timed:
                times = staged_call(runner, staged, scene)
                if not runner.times_itself:
                    start = time.perf_counter()
                    whole(scene.image, scene.boxes)
                    times["end_to_end"] = 1000 * (time.perf_counter() - start)
                return times

            yield Case(name, call, "end_to_end")
        if recoverer is not None:
            yield host_case(recoverer, scene)


def staged_call(runner: Runner, recoverer: MeshRecoverer, scene: Scene) -> Timed:
    """One call of a recoverer on a staged backend: its stages, which add up to ``end_to_end``."""
    staged = runner.staged
    staged.reset()
    start = time.perf_counter()
    recoverer(scene.image, scene.boxes)
    end = time.perf_counter()
    return {
        "end_to_end": 1000 * (end - start),
        "crop": 1000 * (staged.began - start),
        **staged.parts,
        "packing": 1000 * (end - staged.ended),
    }


def host_case(recoverer: MeshRecoverer, scene: Scene) -> Case:
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

    return Case(HOST, call, "decode")


def row(measured: Measured, crops: int) -> dict[str, Any]:
    """A row of the record: summaries, raw samples visit by visit, warm-up; the reason where there are none."""
    content: dict[str, Any] = {}
    if measured.failure is not None:
        content["reason"] = _reason(measured.failure)
    if measured.warm_up is not None:
        warm_up = measured.warm_up
        content["warm_up"] = {
            "calls": warm_up.calls,
            "seconds": warm_up.seconds,
            "first_ms": warm_up.first,
            "stable": warm_up.stable,
        }
    content["parts"] = {
        part: {"summary": Summary.of(visits).to_document(), "visits": [[round(ms, _PLACES) for ms in v] for v in visits]}
        for part, visits in measured.visits.items()
    }
    for part in ("engine", "end_to_end"):
        if part in content["parts"]:
            content["parts"][part]["per_second"] = 1000 * crops / content["parts"][part]["summary"]["mean"]
    return content


def measure_floor(bundle: Bundle, settings: Settings) -> dict[str, Any]:
    """Ceilings of this machine, costs of the bundle's graphs, and the floors of all batches that follow."""
    found: dict[str, Any] = {"ceilings": {}, "costs": {}, "times": {}}
    measured = {}
    ways: dict[str, Callable[[], ceilings.Ceilings]] = {
        "cpu": lambda: ceilings.measure_cpu(settings.threads or cores()),
        "cuda": lambda: ceilings.measure_gpu(with_torch=not set(TORCH).isdisjoint(settings.backends)),
    }
    for device, way in ways.items():
        try:
            measured[device] = way()
            found["ceilings"][device] = measured[device].to_document()
        except Exception as error:  # no GPU, no memory, no library: then there is no floor
            found["ceilings"][device] = {"reason": _reason(error)}
    for precision, path in graphs(bundle).items():
        for crops in (1, *(count for count in settings.batches if count != 1)):
            try:
                cost = operations.count(path, crops)
            except (GlnetError, ImportError) as error:
                found["costs"][precision] = {"reason": _reason(error)}
                break
            found["costs"].setdefault(precision, cost.to_document())
            for device, ceiling in measured.items():
                if cost.half_operations and ceiling.half_operations is None:
                    continue
                times = ceilings.floor(cost, ceiling)
                found["times"][f"{device}/{precision}/{crops}"] = {"bound": times.bound, "by_layer": times.by_layer}
    return found


def graphs(bundle: Bundle) -> dict[str, Path]:
    """The bundle's ONNX files by precision."""
    found = {bundle.manifest.graph.precision: bundle.graph}
    for record in bundle.manifest.engines:
        name = (record.layers.get("graph") or {}).get("file")
        if name and (bundle.directory / name).is_file():
            found.setdefault(record.precision, bundle.directory / name)
    return found


def _free_memory() -> None:
    """Give back what a call left that ran out of memory, or the next backend runs out of it too."""
    gc.collect()
    if "torch" in sys.modules:
        with contextlib.suppress(Exception):  # after an illegal access CUDA refuses this too; the others' rows go on
            sys.modules["torch"].cuda.empty_cache()  # does nothing where CUDA was not started


def _reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, GlnetError):
        return f"{error.what} {error.why}".strip()
    return f"{type(error).__name__}: {one_line(error)}"[:400]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
