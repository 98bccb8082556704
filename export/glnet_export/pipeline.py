"""The export: load, trace, check, compare, build an engine where one is asked for, publish."""

import datetime
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from glnet.body.files import GENDERED_NAMES
from glnet.recovery import MeshRecovery
from glnet_export.bf16.options import Bf16Options
from glnet_export.bf16.stage import BF16_STAGES, Bf16Graph
from glnet_export.engine_stages import MIXED_STAGES, MixedPrecision
from glnet_export.engines.options import EngineOptions, HalfOptions
from glnet_export.engines.progress import Progress, Stage, StageReport, quietly, silent
from glnet_export.engines.stages import ENGINE_STAGES, EngineJob, add_engine
from glnet_export.graph import GraphFacts, check, trace
from glnet_export.int8.options import Int8Options
from glnet_export.int8.stage import INT8_STAGES, PERSONS_STAGE, Int8Graph
from glnet_export.parity import ParityBounds, compare
from glnet_export.publish import bundle_under_construction
from glnet_export.skin import skin_of
from glnet_export.sources import Source
from glnet_export.textures import textured_crops
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import RUNTIME, BodyRecord, FileRecord, GraphRecord, NetworkRecord
from glnet_infer.contract import graph_outputs
from glnet_infer.errors import ExportError, OutputError, tested_versions
from glnet_infer.onnxruntime_sessions import import_onnxruntime
from glnet_infer.results.formats import write_npz
from glnet_infer.results.skin import SKIN_NAME
from glnet_infer.version import __version__

GRAPH_NAME = "model.onnx"
TOPOLOGY_NAME = "topology.npz"

STAGES = ("load", "trace", "check", "parity", "publish")
"""In this order."""


def stages_of(*, int8: bool = False, bf16: bool = False, mixed: bool = False, engine: bool = False) -> tuple[str, ...]:
    """Names of an export's stages, in their order."""
    return (
        STAGES[0],
        *((PERSONS_STAGE,) if int8 else ()),
        *STAGES[1:-1],
        *(INT8_STAGES if int8 else ()),
        *(BF16_STAGES if bf16 else ()),
        *(MIXED_STAGES if mixed or engine else ()),
        *(ENGINE_STAGES if engine else ()),
        STAGES[-1],
    )


def export(
    source: Source,
    output: Path,
    *,
    parity_crops: int = 16,
    max_vertex_error: float | None = None,
    min_pixel_agreement: float = 1.0,
    skin: bool = True,
    int8: Int8Options | None = None,
    bf16: Bf16Options | None = None,
    half: HalfOptions | None = None,
    engine: EngineOptions | None = None,
    stage: Stage = quietly,
    progress: Progress = silent,
) -> Manifest:
    """Make a bundle.

    Args:
        source: The checkpoint, or what stands for one.
        output: The bundle's directory; an earlier bundle there is replaced when the new one is complete.
        parity_crops: Crops to compare ONNX Runtime with PyTorch on.
        max_vertex_error: Largest distance in that comparison, millimetres; None: the network's default.
        min_pixel_agreement: Least share of these crops that choose the same pixel.
        skin: Whether the bundle gets the body's skin, which is under the body's licence.
        int8: The int8 graph for CPUs and, beside ``half`` or ``engine``, the one for engines. None: there is none.
        bf16: Bfloat16 for CPUs. None: there is none.
        half: Mixed precision of the graphs that engines are built from. None: such graphs are made for ``engine`` alone.
        engine: Options of a TensorRT engine. None: no engine is built.
        stage: Told of each stage.
        progress: Told of the phases of the engine's build, from another thread.

    Returns:
        The manifest.

    Raises:
        GlnetError: A stage failed; nothing is left at the output but what was there before.
    """
    job = None if engine is None else EngineJob.prepare(engine)  # before minutes of tracing
    try:
        with bundle_under_construction(output) as (directory, publish):
            with stage("load") as report:
                recovery, network, body_file = _load(source, report)
                random = network.weights == "random"
                narrow = None if bf16 is None else Bf16Graph(recovery, random, bf16)
                mixed = None
                if half is not None or job is not None:
                    mixed = MixedPrecision(recovery, random, half or HalfOptions())
            quantized = None
            if int8 is not None:
                with stage(PERSONS_STAGE) as report:
                    quantized = Int8Graph(recovery, random, int8, report)
            bounds = ParityBounds.of(recovery, max_vertex_error, min_pixel_agreement)
            manifest = _add_graph(directory, recovery, network, body_file, parity_crops, bounds, stage)
            if skin:
                manifest = _add_skin(directory, manifest, recovery)
            if quantized is not None:
                manifest = quantized.add_graphs(directory, manifest, stage, engines=mixed is not None)
            if narrow is not None:
                manifest = narrow.add_graph(directory, manifest, stage)
            if mixed is not None:
                manifest = mixed.add_graphs(directory, manifest, stage)
                if job is not None:
                    manifest = add_engine(directory, manifest, job, mixed.judge, stage, progress)
            with stage("publish") as report:
                manifest.write(directory)
                publish()
                report.say(str(output))
        return manifest
    except OSError as error:  # a full disk, above all
        raise OutputError(
            f"Cannot write the bundle {output}.",
            why=str(error.strerror or error),
            fix="make room, or choose another -o",
        ) from error


def _load(source: Source, report: StageReport) -> tuple[MeshRecovery, NetworkRecord, FileRecord]:
    """What the source loads, and what is to be said of it."""
    recovery, network, body_file, notes = source.load()
    parameters = sum(parameter.numel() for parameter in recovery.parameters())
    body = recovery.body.data
    report.say(f"{network.name}, {parameters / 1e6:.1f} M parameters ({network.weights}), body {body.name}")
    for note in notes:
        report.say(note)
    trained_with = recovery.trained_with
    if network.weights == "checkpoint" and body.name != trained_with:
        if source.config is None:
            report.say(f"WARNING: trained with the body {trained_with!r}; on another, meshes are distorted")
        elif body.name in GENDERED_NAMES:
            report.say(f"WARNING: the body is {body.name!r}; weights are nearly always trained with the neutral one")
    for note in body.notes:
        report.say(f"WARNING: the body is odd: {note}")
    return recovery, network, body_file


def _add_graph(
    directory: Path,
    recovery: MeshRecovery,
    network: NetworkRecord,
    body_file: FileRecord,
    parity_crops: int,
    bounds: ParityBounds,
    stage: Stage,
) -> Manifest:
    """The float32 graph, compared with PyTorch: a whole bundle but for its publication."""
    graph = directory / GRAPH_NAME
    with stage("trace") as report:
        trace(recovery, graph)
        report.say(f"{graph.stat().st_size / 1e6:.0f} MB")
    with stage("check") as report:
        facts = check(graph)
        report.say(f"opset {facts.opset}, {facts.nodes} nodes, {facts.precision}")
    np.savez_compressed(directory / TOPOLOGY_NAME, faces=recovery.body.data.faces)
    manifest = _manifest(directory, network, recovery, body_file, facts)
    manifest.write(directory)
    with stage("parity") as report:
        parity = _parity(directory, recovery, parity_crops, bounds, report)
        return replace(manifest, graphs=(replace(manifest.graph, parity=parity),))


def _add_skin(directory: Path, manifest: Manifest, recovery: MeshRecovery) -> Manifest:
    """The skin of the body, for files of motion."""
    path = directory / SKIN_NAME
    write_npz(path, skin_of(recovery.body.data).arrays(), compress=True)
    return replace(manifest, body=replace(manifest.body, skin=record_file(path)))


def _manifest(
    directory: Path, network: NetworkRecord, recovery: MeshRecovery, body_file: FileRecord, facts: GraphFacts
) -> Manifest:
    body = recovery.body.data
    vertices = len(body.v_template)
    return Manifest(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions={
            "glnet-infer": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": import_onnxruntime().__version__,
        },
        network=network,
        body=BodyRecord(body.name, vertices, body_file, record_file(directory / TOPOLOGY_NAME)),
        crop=recovery.crop,
        graphs=(GraphRecord(record_file(directory / GRAPH_NAME), RUNTIME, facts.precision, facts.opset, facts.nodes),),
        outputs=graph_outputs(vertices, recovery.keypoints),
    )


def _parity(
    directory: Path, recovery: MeshRecovery, crops: int, bounds: ParityBounds, report: StageReport
) -> dict[str, Any]:
    """Compare the bundle, opened as a user opens it, with PyTorch."""
    backend = open_backend("onnxruntime-cpu", Bundle.open(directory))
    pictures = textured_crops(crops, recovery.crop.size, seed=1)
    found = compare(recovery, backend, pictures, jumps=recovery.jumps)
    backend.close()
    report.say(str(found))
    misses = found.misses(bounds)
    if misses:
        raise ExportError(
            "The exported graph is too far from PyTorch.",
            why="; ".join(misses),
            fix=f"{tested_versions('export')}; a trained network whose confidences nearly tie may choose another pixel: "
            "look at pixel_agreement. Bounds are options: glnet-export --help",
        )
    return {"backend": "onnxruntime-cpu", **found.to_document(), "bounds": asdict(bounds)}
