"""The stages that make a bundle ready for engines: trace in mixed precision, and measure what that costs. With torch."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glnet.recovery import MeshRecovery
from glnet.sampling import sample_by_grid
from glnet_export.crop_graph import CROP_GRAPH_NAME, write_crop_graph
from glnet_export.engines.options import HalfOptions
from glnet_export.engines.progress import Stage, StageReport
from glnet_export.engines.reference import REFERENCE_NAME, write_reference
from glnet_export.engines.stages import Judge
from glnet_export.graph import check, trace
from glnet_export.mixed import MIXED_GRAPH_NAME, half_layers, mixed_copy
from glnet_export.parity import as_module
from glnet_export.precision import KEEP_IN_FLOAT32, PrecisionBounds, PrecisionReport, compare_precisions
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.bundle import record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import CROPS, ENGINES, GraphRecord
from glnet_infer.contract import CROP_REDUCTIONS
from glnet_infer.errors import ExportError
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.seeds import PRECISION

MIXED_STAGES = ("mixed", "half")
"""In this order: the graph in mixed precision, and what half precision costs."""

UPDATE = f"the module alone is within the bounds; try another version of TensorRT or of the driver, or {KEEP_IN_FLOAT32}"
"""Advice where the engine costs too much."""


class MixedPrecision:
    """A module in mixed precision beside its float32 reference, and persons to compare the two on.

    Args:
        recovery: The module in float32.
        random: Whether its weights are random: then figures are shown and not judged.
        options: Modules that stay in float32, and what half precision may cost.

    Raises:
        ExportError: A name is no module's.
    """

    def __init__(self, recovery: MeshRecovery, random: bool, options: HalfOptions) -> None:
        self._recovery, self._random, self._options = recovery, random, options
        self._mixed = mixed_copy(recovery, options.float32_modules)
        self._persons: SyntheticSample | None = None

    def add_graphs(self, directory: Path, manifest: Manifest, stage: Stage) -> Manifest:
        """Put what engines are built from into an unfinished bundle: the graphs, and persons to compare on.

        Args:
            directory: The bundle's folder.
            manifest: The bundle's manifest so far.
            stage: Told of each stage.

        Returns:
            The manifest with the graphs.

        Raises:
            ExportError: Half precision costs too much.
        """
        graph, crops = directory / MIXED_GRAPH_NAME, directory / CROP_GRAPH_NAME
        with stage("mixed") as report:
            # TensorRT has the operator; ONNX Runtime's CPU is better without.
            trace(self._mixed, graph, sampler=sample_by_grid)
            facts = check(graph)
            size = f"{graph.stat().st_size / 1e6:.0f} MB"
            report.say(f"{size}, opset {facts.opset}, {facts.nodes} nodes, {facts.precision}")
            opset, nodes = write_crop_graph(crops, manifest.crop.size)
        with stage("half") as report:
            persons = self._sample()
            found = compare_precisions(self._recovery, self._mixed, persons.crops, persons.cameras, emulated=True)
            parity = self._judged(found, report, KEEP_IN_FLOAT32)
            write_reference(directory / REFERENCE_NAME, persons.crops.numpy(), persons.cameras.numpy())
        records = (
            GraphRecord(
                record_file(graph),
                ENGINES,
                facts.precision,
                facts.opset,
                facts.nodes,
                parity,
                self._options.float32_modules,
                half_layers(self._mixed),
            ),
            GraphRecord(record_file(crops), CROPS, "fp32", opset, nodes, reductions=CROP_REDUCTIONS),
        )
        reference = record_file(directory / REFERENCE_NAME)
        return replace(manifest, graphs=(*manifest.graphs, *records), reference=reference)

    @property
    def judge(self) -> Judge:
        """Compares an engine with the float32 module, in batches of all the engine's sizes."""

        def judge(backend: TensorRtBackend, report: StageReport) -> dict[str, Any]:
            persons, module = self._sample(), as_module(backend)
            found = compare_precisions(self._recovery, module, persons.crops, persons.cameras, batches=backend.buckets)
            return {"backend": backend.name, "reference": "torch", **self._judged(found, report, UPDATE)}

        return judge

    def _sample(self) -> SyntheticSample:
        """Rendered persons to measure half precision on."""
        if self._persons is None:
            crop, body = self._recovery.network.config.crop, self._recovery.decoder.body
            self._persons = SyntheticSource(body, crop, seed=PRECISION).sample(self._options.crops)
        return self._persons

    def _judged(self, found: PrecisionReport, report: StageReport, fix: str) -> dict[str, Any]:
        """Say what half precision costs, and refuse too much of it.

        Raises:
            ExportError: A figure misses its bound, or is none.
        """
        bounds = None if self._random else PrecisionBounds(self._options.max_error_mm, self._options.min_agreement)
        report.say(str(found))
        report.show(found.table(bounds))
        if found.not_finite:
            why = f"not finite: {', '.join(found.not_finite)}"
            raise ExportError("Half precision gives no numbers.", why=why, fix=fix)
        if bounds is None:
            report.say("random weights: not judged")
            return found.to_document()
        misses = found.misses(bounds)
        if misses:
            raise ExportError("Half precision costs too much.", why="; ".join(misses), fix=fix)
        return {**found.to_document(), "bounds": asdict(bounds)}
