"""A run: measurement by measurement, all that one compares in turns within it, saved after every one."""

from __future__ import annotations

import contextlib
import datetime
import gc
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glnet_bench.floor import ceilings, operations
from glnet_bench.machine import hardware as machine
from glnet_bench.machine.nvidia import open_nvml
from glnet_bench.measure.cases import Cases
from glnet_bench.measure.failures import failed, reason
from glnet_bench.measure.processes import ProcessDiedError, growth, run_fresh, soak_seconds
from glnet_bench.measure.sampling import Case, Measured, Plan, measure
from glnet_bench.record import Record
from glnet_bench.runners.base import TORCH, Options, Runner, open_runner
from glnet_bench.settings import Frame, Settings
from glnet_bench.statistics import Summary
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import MANIFEST_NAME
from glnet_infer.bundle.records import ENGINES
from glnet_infer.devices import cores
from glnet_infer.errors import BackendError, GlnetError

TIMED_REGION = (
    "Engine: from inputs in the memory of the device that runs the network to outputs there; end-to-end: one call of "
    "MeshRecoverer, from a decoded frame and its boxes in host memory to Meshes in host memory (crop, upload, engine, "
    "download, camera and packing), without decoding the frame and without drawing the overlay."
)

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


FRAMES = "frames"
"""The measurement of all numbers of persons in all frames: growth is seen only between times that were taken in turns."""


def measurements(settings: Settings) -> dict[str, list[str]]:
    """The measurements of a run in order, and the parts of the record that each makes."""
    names = ["floor", *(f"start/{name}" for name in settings.backends)]
    names += [f"soak/{name}" for name in settings.backends if settings.soak]
    names += [f"batch/{count}" for count in settings.batches]
    return {**{name: [name] for name in names}, FRAMES: list(frame_parts(settings))}


def frame_parts(settings: Settings) -> dict[str, tuple[Frame, int]]:
    """The parts of the record that have frames, each with its frame and the persons in it."""
    return {f"frame/{frame.name}/{count}": (frame, count) for frame in settings.frames for count in settings.persons}


class Run:
    """Measures what a record lacks.

    Args:
        bundle: What is measured.
        settings: How.
        options: For opening backends.
        record: Where results go; finished parts in it are kept, but those that failed for want of memory or time.
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
        """Measure what is wanting; ``tell`` hears the name of each measurement that begins.

        Raises:
            OutputError: The record cannot be written.
        """
        document = self._record.document
        document["started"] = document["started"] or _now()
        began = False
        try:
            for name, parts in measurements(self._settings).items():
                if not any(map(self._wants, parts)):  # asked now: what went well just before may make more wanted
                    continue
                if not began:  # a run that is complete has nothing to say of the machine of today
                    self._watch(began=True)
                    began = True
                tell(name)
                document["finished"] = None
                content = self._measure(name)
                self._watch(after=name)  # before it is saved: what happened meanwhile belongs to it
                self._record.add(content)
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

    def _watch(self, *, began: bool = False, after: str | None = None) -> None:
        self._record.document["watched"].append({"began": began, "after": after, **machine.watch(self._nvml)})

    def _wants(self, part: str) -> bool:
        """Whether a part must be measured: the first time, or after a failure that may have been the moment's."""
        found = self._record.document["parts"].get(part)
        if found is None:
            return True
        if not part.startswith(("batch/", "frame/")):
            return bool(found.get("retry"))
        return any(row.get("retry") and not self._died(backend) for backend, row in found.items())

    def _measure(self, name: str) -> dict[str, Any]:
        """Parts of the record."""
        kind, _, what = name.partition("/")
        if kind == "floor":
            return {name: measure_floor(self._bundle, self._settings)}
        if kind == "start":
            return {name: self._fresh(what, self._settings.persons[0])}
        if kind == "soak":
            return {name: self._soak(what)}
        frames, size = self._settings.frames, self._bundle.manifest.crop.size
        cases = Cases(self._bundle.directory, self._opened(), self._nvml)
        if kind == "batch":
            return self._in_turns(cases.batch(name, frames[0], int(what), size), {name: int(what)})
        parts = frame_parts(self._settings)
        return self._in_turns(cases.frames(parts), {part: persons for part, (_, persons) in parts.items()})

    def _in_turns(self, cases: Iterable[Case], crops: dict[str, int]) -> dict[str, Any]:
        """Rows of parts, each with the crops that its calls take, by backend."""
        entries = self._record.document["backends"].items()
        barred = {name: {**entry, "parts": {}} for name, entry in entries if entry.get("retry")}
        rows: dict[str, dict[str, Any]] = {part: dict(barred) for part in crops}
        measured = measure(list(cases), self._plan, seed=max(crops.values()), after_failure=_free_memory)
        for (part, backend), result in measured.items():
            rows[part][backend] = row(result, crops[part])
        return rows

    def _soak(self, name: str) -> dict[str, Any]:
        """Memory over many frames, with the most persons, who need the most of it."""
        died, settings = self._died(name), self._settings
        if died:
            return {"reason": died, "retry": True}
        start = self._record.document["parts"].get(f"start/{name}", {})
        # A call grows with its persons at most; where none was made, a second for each is much.
        each = start.get("seconds", {}).get("further", settings.persons[0]) * max(settings.persons) / settings.persons[0]
        limit = soak_seconds(settings.soak, each)
        found = self._fresh(name, max(settings.persons), frames=settings.soak, seconds=limit)
        if "readings" in found:
            grown = {where: growth(found["readings"], where) for where in ("host", "device")}
            found["growth"] = {where: asdict(memory) if memory else None for where, memory in grown.items()}
            found["flat"] = {where: memory.is_flat if memory else None for where, memory in grown.items()}
        return found

    def _fresh(self, name: str, persons: int, **soak: Any) -> dict[str, Any]:
        bus = self._nvml.bus if self._nvml else None
        frame = self._settings.frames[0]
        try:
            found = run_fresh(self._bundle.directory, name, self._options, frame, persons, bus=bus, **soak)
        except ProcessDiedError as error:
            return {**failed(error), "died": True}
        except GlnetError as error:
            return failed(error)
        return {"persons": persons, **found}

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
                    self._record.document["backends"][name] = {"reason": died, "retry": True}
                    continue
                try:
                    runner = open_runner(name, self._bundle, self._options)
                except Exception as error:  # whatever a backend raises belongs to its row
                    self._record.document["backends"][name] = failed(error)
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


def row(measured: Measured, crops: int) -> dict[str, Any]:
    """A row of the record: summaries, raw samples visit by visit, warm-up, clocks; the reason why there are no more."""
    content = failed(measured.failure) if measured.failure is not None else {}
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
    if measured.clocks_mhz:
        content["clocks_mhz"] = measured.clocks_mhz
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
            found["ceilings"][device] = {"reason": reason(error)}
    for precision, path in graphs(bundle).items():
        for crops in (1, *(count for count in settings.batches if count != 1)):
            try:
                cost = operations.count(path, crops)
            except (GlnetError, ImportError) as error:
                found["costs"][precision] = {"reason": reason(error)}
                break
            found["costs"].setdefault(precision, cost.to_document())
            for device, ceiling in measured.items():
                try:
                    times = ceilings.floor(cost, ceiling)
                except BackendError:  # it computes in what was not measured
                    continue
                found["times"][f"{device}/{precision}/{crops}"] = {"bound": times.bound, "by_layer": times.by_layer}
    return found


def graphs(bundle: Bundle) -> dict[str, Path]:
    """The bundle's ONNX files by precision."""
    manifest = bundle.manifest
    records = [record for record in (manifest.graph, manifest.graph_for(ENGINES)) if record is not None]
    found: dict[str, Path] = {}
    for record in records:
        found.setdefault(record.precision, bundle.directory / record.file.file)
    return {precision: path for precision, path in found.items() if path.is_file()}


def _free_memory() -> None:
    """Give back what a call left that ran out of memory, or the next backend runs out of it too."""
    gc.collect()
    if "torch" in sys.modules:
        with contextlib.suppress(Exception):  # after an illegal access CUDA refuses this too; the others' rows go on
            sys.modules["torch"].cuda.empty_cache()  # does nothing where CUDA was not started


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
