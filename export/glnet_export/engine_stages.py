"""The stages that add a TensorRT engine to a bundle: trace in mixed precision, what that costs, build, run."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glnet.recovery import MeshRecovery
from glnet.sampling import sample_by_grid
from glnet_export.engines.build import build, build_crop, runs_here
from glnet_export.engines.crop_parity import LARGEST_DIFFERENCE, compare_crops
from glnet_export.engines.options import EngineOptions
from glnet_export.engines.progress import Progress, Stage
from glnet_export.engines.toolkit import Toolkit
from glnet_export.graph import check, trace
from glnet_export.mixed import MIXED_GRAPH_NAME, half_layers
from glnet_export.parity import as_module
from glnet_export.precision import KEEP_IN_FLOAT32, PrecisionBounds, PrecisionReport, compare_precisions
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.backends.tensorrt.choice import fitting_module
from glnet_infer.backends.tensorrt.products import RTX
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import ENGINES, RUN, CropEngineRecord, EngineRecord, GraphRecord
from glnet_infer.devices import gpus
from glnet_infer.errors import BackendError, ExportError
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.seeds import PRECISION

ENGINE_STAGES = ("mixed", "half", "build", "crop", "run")
"""In this order: the graph in mixed precision, what half precision costs, the engine, the engine that cuts its crops, the
comparison with PyTorch and with the definition of crops."""

UPDATE = f"the module alone is within the bounds; try another version of TensorRT or of the driver, or {KEEP_IN_FLOAT32}"
"""What to do where the engine costs too much."""

UPDATE_CROPS = "its graph is right by ONNX Runtime's tests: try another version of TensorRT or of the driver"
"""What to do where the crop engine cuts others."""


def add_engine(
    directory: Path,
    manifest: Manifest,
    recovery: MeshRecovery,
    mixed: MeshRecovery,
    toolkit: Toolkit,
    options: EngineOptions,
    stage: Stage,
    progress: Progress,
) -> Manifest:
    """Put a graph in mixed precision into an unfinished bundle, the engine that is built from it, and one that cuts crops.

    Args:
        directory: The bundle's, with everything but an engine.
        manifest: The bundle's so far.
        recovery: In float32.
        mixed: Its copy in mixed precision (:func:`glnet_export.mixed.mixed_copy`).
        toolkit: What builds.
        options: How.
        stage: Told of each stage.
        progress: Told of the phases of the build.

    Raises:
        GlnetError: A stage failed.
    """
    graph = directory / MIXED_GRAPH_NAME
    with stage("mixed") as found:
        trace(mixed, graph, sampler=sample_by_grid)  # TensorRT has the operator; ONNX Runtime's CPU is better without
        facts = check(graph)
        found.append(f"{graph.stat().st_size / 1e6:.0f} MB, opset {facts.opset}, {facts.nodes} nodes, {facts.precision}")
    with stage("half") as found:
        persons = _persons(recovery, options)
        random = manifest.network.weights == "random"
        report = compare_precisions(recovery, mixed, persons.crops, persons.cameras, emulated=True)
        parity = _judged(report, random, options, found, KEEP_IN_FLOAT32)
        graph_record = GraphRecord(
            record_file(graph),
            ENGINES,
            facts.precision,
            facts.opset,
            facts.nodes,
            parity,
            options.float32_modules,
            half_layers(mixed),
        )
        manifest = replace(manifest, graphs=(*manifest.graphs, graph_record))
    with stage("build") as found:
        found.append(str(toolkit))
        if options.timing_cache is not None and toolkit.product is RTX:
            found.append(f"{options.timing_cache} is not used: {RTX.title} measures nothing when it builds")
        record = build(graph, directory, toolkit, options, half_layers=half_layers(mixed), progress=progress)
        record = replace(record, graph=graph.name)
        found.append(
            f"{record.file.file}, {record.file.bytes / 1e6:.0f} MB, {record.precision} precision "
            f"({record.layers['half']} heavy layers in half, {record.layers['float']} in float32), "
            f"batch {':'.join(map(str, record.profile))}"
        )
    with stage("crop") as found:
        crop = build_crop(directory, toolkit, options, manifest.crop.size, progress=progress)
        record = replace(record, crop=crop)
        width, height = crop.largest_frame
        found.append(f"{crop.file.file}, {crop.file.bytes / 1e6:.1f} MB, frames up to {width} x {height}")
    with stage("run") as found:
        obstacle = obstacle_to(record, directory)
        if obstacle:
            found.append(f"{record.state}: {obstacle}")
            return replace(manifest, engines=(record,))
        replace(manifest, engines=(record,)).write(directory)
        with TensorRtBackend(Bundle.open(directory)) as backend:
            module, sizes = as_module(backend), backend.buckets
            report = compare_precisions(recovery, module, persons.crops, persons.cameras, batches=sizes)
            engine = {"backend": backend.name, **_judged(report, random, options, found, UPDATE)}
            cut = _crops_judged(backend, manifest, crop, found)
            record = replace(record, state=RUN, parity={"engine": engine, "crop": cut})
            return replace(manifest, engines=(record,))


def obstacle_to(record: EngineRecord, directory: Path) -> str:
    """Why a new engine cannot be run here; empty where nothing shows against it."""
    if not runs_here(record.compute_capabilities):
        return "no GPU here that the engine is built for"
    try:
        fitting_module(record, gpus()[0], directory)
    except BackendError as error:
        return f"{error.what} {error.why}"
    return ""


def _persons(recovery: MeshRecovery, options: EngineOptions) -> SyntheticSample:
    """Rendered persons to measure half precision on."""
    config = recovery.network.config
    return SyntheticSource(recovery.decoder.body, config.crop, seed=PRECISION).sample(options.precision_crops)


def _crops_judged(
    backend: TensorRtBackend, manifest: Manifest, engine: CropEngineRecord, found: list[str]
) -> dict[str, Any]:
    """Say how far the crops are from their definition, and refuse others.

    Raises:
        ExportError: They are further apart than rounding explains.
    """
    report = compare_crops(backend.cut, manifest.crop, engine.largest_frame)
    found.append(str(report))
    if report.largest_difference > LARGEST_DIFFERENCE:
        raise ExportError("The crop engine does not cut the crops that training saw.", why=str(report), fix=UPDATE_CROPS)
    return report.to_document()


def _judged(report: PrecisionReport, random: bool, options: EngineOptions, found: list[str], fix: str) -> dict[str, Any]:
    """Say what half precision costs, and refuse too much of it.

    Raises:
        ExportError: A figure misses its bound, or is none.
    """
    bounds = None if random else PrecisionBounds(options.max_half_error_mm, options.min_half_agreement)
    found += [str(report), report.table(bounds)]
    if report.not_finite:
        raise ExportError("Half precision gives no numbers.", why=f"not finite: {', '.join(report.not_finite)}", fix=fix)
    if bounds is None:
        found.append("random weights: not judged")
        return report.to_document()
    misses = report.misses(bounds)
    if misses:
        raise ExportError(
            "Half precision costs too much.",
            why="; ".join(misses),
            fix=fix,
        )
    return {**report.to_document(), "bounds": asdict(bounds)}
