"""The stages that add a TensorRT engine to a bundle, from the bundle's own graphs: build, crop, run. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glnet_export.engines.build import build, build_crop, check_timing_cache, runs_here
from glnet_export.engines.crop_parity import LARGEST_DIFFERENCE, compare_crops
from glnet_export.engines.options import EngineOptions
from glnet_export.engines.progress import Progress, Stage, StageReport
from glnet_export.engines.toolkit import Toolkit, choose
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.backends.tensorrt.choice import fitting_module
from glnet_infer.backends.tensorrt.products import RTX, TENSORRT
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import CROPS, ENGINES, INT8_ENGINES, RUN, CropEngineRecord, EngineRecord
from glnet_infer.devices import gpus
from glnet_infer.errors import BackendError, ExportError

ENGINE_STAGES = ("build", "crop", "run")
"""In this order: the engine; the engine that cuts its crops; the comparison with float32 and the definition of crops."""

UPDATE_CROPS = "its graph is right by ONNX Runtime's tests: try another version of TensorRT or of the driver"
"""Advice where the crop engine cuts others."""

Judge = Callable[[TensorRtBackend, StageReport], dict[str, Any]]
"""Compares an engine with float32 and gives the figures for the manifest; raises ``ExportError`` where it is too far."""


@dataclass(frozen=True)
class EngineJob:
    """An engine to build.

    Attributes:
        toolkit: Builds it.
        options: Options of the engine.
    """

    toolkit: Toolkit
    options: EngineOptions

    @classmethod
    def prepare(cls, options: EngineOptions) -> "EngineJob":
        """Find what builds it, before minutes of other work.

        Raises:
            ExportError: Nothing that is installed builds it.
            OutputError: The timing cache cannot be kept.
        """
        toolkit = choose(options)
        if options.timing_cache is not None and toolkit.product is TENSORRT:
            check_timing_cache(options.timing_cache)
        return cls(toolkit, options)


def add_engine(
    directory: Path, manifest: Manifest, job: EngineJob, judge: Judge, stage: Stage, progress: Progress
) -> Manifest:
    """Build an engine, and the one that cuts its crops, from the graphs of an unfinished bundle; run them where a GPU is.

    Args:
        directory: The bundle's folder, with the graphs.
        manifest: The bundle's manifest so far. An engine of the same name in it is replaced.
        job: The engine.
        judge: Compares the engine with float32, where it can run.
        stage: Told of each stage.
        progress: Told of the phases of the build.

    Returns:
        The manifest with the engine.

    Raises:
        GlnetError: A stage failed.
    """
    toolkit, options = job.toolkit, job.options
    in_int8 = options.precision == "int8"
    graph, crop_graph = manifest.graph_for(INT8_ENGINES if in_int8 else ENGINES), manifest.graph_for(CROPS)
    if graph is None or crop_graph is None:
        raise ExportError(
            f"The bundle has no graphs that engines{' in int8' if in_int8 else ''} are built from.",
            why=f"it was exported without {'--int8 and ' if in_int8 else ''}--mixed or --trt, or by an earlier version",
            fix=f"where PyTorch is: glnet-export CHECKPOINT -o BUNDLE --mixed{' --int8' if in_int8 else ''}",
        )
    if not manifest.cuts_as_defined(crop_graph.file.file):
        raise ExportError(
            f"The bundle's {crop_graph.file.file} cuts other crops than this version.",
            why="an earlier version made it: it samples large persons without averaging",
            fix="where PyTorch is: glnet-export CHECKPOINT -o BUNDLE --mixed",
        )
    with stage("build") as report:
        report.say(str(toolkit))
        if options.timing_cache is not None and toolkit.product is RTX:
            report.say(f"{options.timing_cache} is not used: {RTX.title} measures nothing when it builds")
        record = build(
            directory / graph.file.file,
            directory,
            toolkit,
            options,
            half_layers=graph.half_layers,
            int8_layers=graph.int8_layers,
            sha256=graph.file.sha256,
            progress=progress,
        )
        report.say(
            f"{record.file.file}, {record.file.bytes / 1e6:.0f} MB, {record.precision} precision "
            f"({record.layers['int8' if in_int8 else 'half']} heavy layers in {'int8' if in_int8 else 'half'}, "
            f"{record.layers['float']} in float32), "
            f"batch {':'.join(map(str, record.profile))}"
        )
    with stage("crop") as report:
        file = crop_graph.file
        crop = build_crop(directory / file.file, directory, toolkit, options, sha256=file.sha256, progress=progress)
        record = replace(record, crop=crop)
        width, height = crop.largest_frame
        report.say(f"{crop.file.file}, {crop.file.bytes / 1e6:.1f} MB, frames up to {width} x {height}")
    others = tuple(each for each in manifest.engines if each.file.file != record.file.file)
    with stage("run") as report:
        obstacle = obstacle_to(record, directory)
        if obstacle:
            report.say(f"{record.state}: {obstacle}")
            return replace(manifest, engines=(*others, record))
        # This one alone, so that no other is chosen.
        replace(manifest, engines=(record,)).write(directory)
        with TensorRtBackend(Bundle.open(directory), int8=in_int8) as backend:
            parity = {"engine": judge(backend, report), "crop": _crops_judged(backend, manifest, crop, report)}
        return replace(manifest, engines=(*others, replace(record, state=RUN, parity=parity)))


def obstacle_to(record: EngineRecord, directory: Path) -> str:
    """Why a new engine cannot be run here; empty where nothing shows against it."""
    if not runs_here(record.compute_capabilities):
        return "no GPU here that the engine is built for"
    try:
        fitting_module(record, gpus()[0], directory)
    except BackendError as error:
        return f"{error.what} {error.why}"
    return ""


def _crops_judged(
    backend: TensorRtBackend, manifest: Manifest, engine: CropEngineRecord, report: StageReport
) -> dict[str, Any]:
    """Say how far the crops are from their definition, and refuse others.

    Raises:
        ExportError: They are further apart than rounding explains.
    """
    found = compare_crops(backend.cut, manifest.crop, engine.largest_frame)
    report.say(str(found))
    if found.largest_difference > LARGEST_DIFFERENCE:
        raise ExportError("The crop engine does not cut the crops that training saw.", why=str(found), fix=UPDATE_CROPS)
    return found.to_document()
