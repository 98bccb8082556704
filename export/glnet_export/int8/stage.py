"""The stage that adds an int8 graph to an unfinished bundle: which layers compute in it is found by measurement."""

from collections import defaultdict
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from glnet.recovery import MeshRecovery
from glnet_export.engines.progress import Stage
from glnet_export.int8.cost import Int8Cost, answers, cost, vertex_shift
from glnet_export.int8.options import Int8Options
from glnet_export.int8.persons import MOST, photographed
from glnet_export.int8.quantizer import Quantizer
from glnet_export.mixed import mixed_copy
from glnet_infer.backends import Outputs, open_backend
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import INT8, GraphRecord
from glnet_infer.errors import ExportError
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.seeds import CALIBRATION, PRECISION

INT8_STAGES = ("ranges", "int8")
"""In this order: ranges of values, and the graph with what it costs."""

INT8_GRAPH_NAME = "model.int8.onnx"

_TRIED = 32
"""Crops on which each group of layers is tried alone."""

_SPARED = 0.1
"""Share of the work that stays in float32 from the start: of the layers that do most harm for their work."""


def add_int8(
    directory: Path, manifest: Manifest, recovery: MeshRecovery, random: bool, options: Int8Options, stage: Stage
) -> Manifest:
    """Put an int8 graph into an unfinished bundle.

    The layers are those that mixed precision halves: backbone and local encoding. Each group of them is tried alone. Those
    that do most harm for their work stay in float32: a tenth of the work, and more of them where the bounds do not hold.

    Args:
        directory: The bundle's folder, with its float32 graph.
        manifest: The bundle's manifest so far.
        recovery: The module in float32.
        random: Whether its weights are random: then figures are shown and not judged.
        options: Where ranges come from, and what int8 may cost.
        stage: Told of each stage.

    Returns:
        The manifest with the graph.

    Raises:
        ExportError: Int8 costs too much, or there are too few persons on the photographs.
    """
    graph = directory / manifest.graph.file.file
    with stage("ranges") as report:
        crops, cameras = _calibration(recovery, options)
        quantizer = Quantizer(graph, _layers(recovery), crops, cameras)
        origin = "rendered persons" if options.calibration is None else f"persons in {options.calibration}"
        report.say(f"{len(quantizer.work)} convolutions, {len(crops)} {origin}")
    persons = SyntheticSource(recovery.body, recovery.crop, seed=PRECISION).sample(options.crops)
    with stage("int8") as report:
        trial = _Trial(directory, manifest, quantizer, persons)
        harm = trial.harm()
        report.show(trial.table(harm))
        kept, found = trial.choose(harm, recovery, None if random else options.max_growth)
        size = (directory / INT8_GRAPH_NAME).stat().st_size / 1e6
        report.say(f"{size:.0f} MB, {', '.join(kept) or 'nothing'} in float32")
        report.say(str(found))
        if random:
            report.say("random weights: not judged")
    document = found.to_document() if random else {**found.to_document(), "bounds": {"growth": options.max_growth}}
    record = trial.record(kept, document)
    return replace(manifest, graphs=(*manifest.graphs, record))


def _calibration(recovery: MeshRecovery, options: Int8Options) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    if options.calibration is not None:
        return photographed(options.calibration, recovery.crop)
    sample = SyntheticSource(recovery.body, recovery.crop, seed=CALIBRATION).sample(MOST // 2)
    return sample.crops.numpy(), sample.cameras.numpy()


def _layers(recovery: MeshRecovery) -> list[str]:
    """Names of the convolutions that mixed precision halves."""
    mixed = mixed_copy(recovery)
    return [
        name
        for name, module in mixed.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.dtype == torch.float16
    ]


class _Trial:
    """Graphs with some layers in int8, run on rendered persons."""

    def __init__(self, directory: Path, manifest: Manifest, quantizer: Quantizer, persons: SyntheticSample) -> None:
        self._directory, self._manifest = directory, manifest
        self._quantizer, self._persons = quantizer, persons
        self._crops, self._cameras = persons.crops.numpy(), persons.cameras.numpy()
        self._path = directory / INT8_GRAPH_NAME
        with closing(open_backend("onnxruntime-cpu", Bundle.open(directory))) as backend:
            self._reference = answers(backend, self._crops, self._cameras)
        self._groups: dict[str, list[str]] = defaultdict(list)
        for layer in quantizer.work:
            self._groups[".".join(layer.split(".")[:3])].append(layer)
        total = sum(quantizer.work.values())
        self.share = {
            group: sum(quantizer.work[layer] for layer in layers) / total for group, layers in self._groups.items()
        }

    def harm(self) -> dict[str, float]:
        """How far vertices move where one group alone is in int8, millimetres, by the group's name."""
        reference = {name: array[:_TRIED] for name, array in self._reference.items()}
        found = {}
        for group in self._groups:
            others = [each for each in self._groups if each != group]
            found[group] = vertex_shift(self._answers(others, _TRIED), reference)
        return found

    def by_harm(self, harm: dict[str, float]) -> list[str]:
        """The groups, those last that do most harm for their work."""
        return sorted(harm, key=lambda group: harm[group] / self.share[group])

    def table(self, harm: dict[str, float]) -> str:
        """The groups, those first that do most harm for their work."""
        rows = [f"{'in int8 alone':<40}{'moves vertices':>16}{'of the work':>14}"]
        for group in reversed(self.by_harm(harm)):
            rows.append(f"{group:<40}{harm[group]:>13.2f} mm{self.share[group]:>14.1%}")
        return "\n".join(rows)

    def choose(
        self, harm: dict[str, float], recovery: MeshRecovery, max_growth: float | None
    ) -> tuple[list[str], Int8Cost]:
        """Groups that stay in float32, and what the others cost; the graph is written so.

        Args:
            harm: What :meth:`harm` gave.
            recovery: The module in float32.
            max_growth: Largest growth of an error, as a share; None: nothing is judged.

        Raises:
            ExportError: No choice of groups holds the bound.
        """
        kept: list[str] = []
        rest = self.by_harm(harm)
        for group in reversed(rest[:]):
            if sum(self.share[each] for each in (*kept, group)) <= _SPARED:
                kept.append(group)
                rest.remove(group)
        while rest:
            found = cost(self._answers(kept), self._reference, self._persons, recovery.body)
            misses = [] if max_growth is None else found.misses(max_growth)
            if not misses:
                return kept, found
            kept.append(rest.pop())
        raise ExportError(
            "Int8 costs too much.",
            why="; ".join(misses),
            fix="calibrate on photographs like those of production (--calibration), or leave --int8 out",
        )

    def record(self, kept: list[str], found: dict[str, Any]) -> GraphRecord:
        """The manifest's entry of the graph."""
        model = onnx.load(self._path)
        opset = next(each.version for each in model.opset_import if not each.domain)
        return GraphRecord(
            record_file(self._path), INT8, "int8", opset, len(model.graph.node), found, kept_in_float32=tuple(sorted(kept))
        )

    def _answers(self, kept: Collection[str], crops: int | None = None) -> Outputs:
        """What the graph with all other groups in int8 gives, opened as a user opens it."""
        layers = [layer for group, layers in self._groups.items() if group not in kept for layer in layers]
        self._quantizer.write(self._path, layers)
        replace(self._manifest, graphs=(*self._manifest.graphs, self.record([], {}))).write(self._directory)
        with closing(open_backend("onnxruntime-int8", Bundle.open(self._directory))) as backend:
            return answers(backend, self._crops[:crops], self._cameras[:crops])
