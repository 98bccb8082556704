"""The stages that add int8 graphs to an unfinished bundle: which layers compute in it is found by measurement."""

from collections import defaultdict
from collections.abc import Callable, Collection
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
from glnet_export.engines.progress import Stage, StageReport
from glnet_export.int8.options import Int8Options
from glnet_export.int8.persons import MOST, photographed
from glnet_export.int8.quantizer import FOR_CPUS, FOR_ENGINES, Form, Quantizer, int8_layers
from glnet_export.mixed import mixed_copy
from glnet_export.narrow_cost import NarrowCost, answers, cost, vertex_shift
from glnet_infer.backends import Outputs
from glnet_infer.backends.onnxruntime import OnnxRuntimeBackend
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import RUNTIME, GraphRecord
from glnet_infer.devices import has_int8_dot_products
from glnet_infer.errors import ExportError
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.seeds import CALIBRATION, INT8_CHOICE, NARROW_VERDICT

PERSONS_STAGE = "persons"
"""Comes before the trace: what the user's photographs lack is said at once."""

INT8_STAGES = ("ranges", "int8")
"""In this order: ranges of values, and the graphs with what they cost."""

TRIED = 32
"""Crops on which each group of layers is tried alone."""

COMPARED = 256
"""Crops on which a choice of layers is held against the bound. The verdict is about others."""

CAUTION = 0.75
"""Share of the bound that a choice must hold, since on other crops errors grow more or less by chance. On 256 crops, the
growth of the demo network's MPJPE has a standard error of half a percent."""

LEAST = 0.5
"""Share of the work that must be in int8: with less, it costs accuracy and saves nothing."""

INSTEAD = "allow more by --max-int8-growth, or leave --int8 out"
"""What to do where int8 costs too much."""


class Int8Graph:
    """A module's graphs in int8, and persons that ranges are taken from.

    Args:
        recovery: The module in float32.
        random: Whether its weights are random: then figures are shown and not judged.
        options: Where ranges come from, and what int8 may cost.
        report: Told whom the ranges come from.

    Raises:
        InputError: The folder of photographs cannot be used.
        ExportError: There are too few persons on them.
    """

    def __init__(self, recovery: MeshRecovery, random: bool, options: Int8Options, report: StageReport) -> None:
        self._recovery, self._random, self._options = recovery, random, options
        self._persons, skipped = _calibration(recovery, options)
        folder = options.calibration
        origin = "rendered persons" if folder is None else f"persons in {folder}"
        report.say(f"{len(self._persons[0])} {origin}, for ranges of int8")
        for each in skipped:
            report.say(f"WARNING: left out: {each}")

    def add_graphs(self, directory: Path, manifest: Manifest, stage: Stage, engines: bool = False) -> Manifest:
        """Put the graph for CPUs into an unfinished bundle, and the one that engines are built from.

        The layers are those that mixed precision halves: backbone and local encoding. Where errors grow by more than
        three quarters of the bound with all of them, each group is tried alone. Those that do most harm for their work
        stay in float32, one more at a time, until they grow by less. Then other persons are judged by the whole bound.

        Args:
            directory: The bundle's folder, with its float32 graph and manifest.
            manifest: The bundle's manifest so far.
            stage: Told of each stage.
            engines: Whether engines may be built for the bundle.

        Returns:
            The manifest with the graphs.

        Raises:
            ExportError: Int8 costs too much.
        """
        bound = None if self._random else self._options.max_growth
        with stage("ranges") as report:
            quantizer = Quantizer(directory / manifest.graph.file.file, layers_of(self._recovery), *self._persons)
            report.say(f"{len(quantizer.work)} convolutions")
        with stage("int8") as report:
            trial = Trial(directory, manifest, quantizer, report.show)
            choice, verdict = (
                SyntheticSource(self._recovery.body, self._recovery.crop, seed=seed).sample(crops)
                for seed, crops in ((INT8_CHOICE, COMPARED), (NARROW_VERDICT, self._options.crops))
            )
            records = []
            for form in (FOR_CPUS, FOR_ENGINES) if engines else (FOR_CPUS,):
                trial.form = form
                kept = trial.choose(choice, self._recovery, bound)
                found = trial.cost(kept, verdict, self._recovery)
                size = (directory / form.file).stat().st_size / 1e6
                report.say(f"{form.file}, {size:.0f} MB, {len(kept)} of {len(trial.share)} groups of layers in float32")
                report.say(str(found))
                document = found.to_document()
                if form is FOR_CPUS:
                    document["dot_products"] = has_int8_dot_products()
                if bound is None:
                    report.say("random weights: not judged")
                elif misses := found.misses(bound):
                    raise ExportError("Int8 costs too much.", why=f"{form.file}: {'; '.join(misses)}", fix=INSTEAD)
                else:
                    document["bounds"] = {"growth": bound}
                records.append(trial.record(kept, document))
        return replace(manifest, graphs=(*manifest.graphs, *records))


def _calibration(
    recovery: MeshRecovery, options: Int8Options
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.float32]], list[str]]:
    """Crops and cameras, and what was left out."""
    if options.calibration is not None:
        return photographed(options.calibration, recovery.crop)
    sample = SyntheticSource(recovery.body, recovery.crop, seed=CALIBRATION).sample(MOST // 2)
    return (sample.crops.numpy(), sample.cameras.numpy()), []


def layers_of(recovery: MeshRecovery) -> list[str]:
    """Names of the convolutions that mixed precision halves."""
    return [
        name
        for name, module in mixed_copy(recovery).named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.dtype == torch.float16
    ]


class Trial:
    """Graphs with some groups of layers in int8, run on rendered persons.

    Args:
        directory: The folder of an unfinished bundle; its int8 graph and manifest are written again and again.
        manifest: The manifest without int8 graphs.
        quantizer: Writes the graphs.
        show: Told of the groups, as a table, where a choice has to try them.

    Attributes:
        form: Whom the graphs are written for.
        share: Share of the work of each group, by its name.
    """

    def __init__(self, directory: Path, manifest: Manifest, quantizer: Quantizer, show: Callable[[str], None]) -> None:
        self._directory, self._manifest, self._quantizer, self._show = directory, manifest, quantizer, show
        self._references: dict[int, tuple[SyntheticSample, Outputs]] = {}
        self.form: Form = FOR_CPUS
        self._groups: dict[str, list[str]] = defaultdict(list)
        for layer in quantizer.work:
            self._groups[".".join(layer.removeprefix("network.").split(".")[:4])].append(layer)
        total = sum(quantizer.work.values())
        self.share = {
            group: sum(quantizer.work[layer] for layer in layers) / total for group, layers in self._groups.items()
        }

    def choose(self, persons: SyntheticSample, recovery: MeshRecovery, max_growth: float | None) -> list[str]:
        """Groups that stay in float32: none, where errors grow by no more than :data:`CAUTION` of the bound without.

        Args:
            persons: Rendered persons.
            recovery: The module in float32.
            max_growth: Largest growth of an error, as a share; None: nothing is judged.

        Raises:
            ExportError: No choice does that leaves half of the work in int8.
        """
        kept: list[str] = []
        if max_growth is None:
            return kept
        rest: list[str] = []
        while misses := self.cost(kept, persons, recovery).misses(CAUTION * max_growth):
            rest = rest or self._by_harm(persons)
            if sum(self.share[group] for group in rest[1:]) < LEAST:
                why = f"with half of the work in float32, {'; '.join(misses)}, {CAUTION:.0%} of what is allowed"
                raise ExportError("Int8 costs too much.", why=why, fix=INSTEAD)
            kept.append(rest.pop(0))
        return kept

    def cost(self, kept: Collection[str], persons: SyntheticSample, recovery: MeshRecovery) -> NarrowCost:
        """What the graph costs that has all groups but these in int8; it is written so."""
        return cost(self._answers(kept, persons), self._float32(persons), persons, recovery.body)

    def record(self, kept: Collection[str], found: dict[str, Any]) -> GraphRecord:
        """The manifest's entry of the graph as it was written last."""
        path = self._directory / self.form.file
        model = onnx.load(path)
        return GraphRecord(
            record_file(path),
            self.form.purpose,
            "int8",
            next(each.version for each in model.opset_import if not each.domain),
            len(model.graph.node),
            found,
            kept_in_float32=tuple(sorted(kept)),
            int8_layers=int8_layers(model),
        )

    def _by_harm(self, persons: SyntheticSample) -> list[str]:
        """The groups, those first that move vertices farthest for their work where they alone are in int8."""
        few = SyntheticSample(*(each[:TRIED] for each in persons))
        reference = self._run(RUNTIME, few)
        harm = {group: vertex_shift(self._answers(self.share.keys() - {group}, few), reference) for group in self.share}
        order = sorted(harm, key=lambda group: harm[group] / self.share[group], reverse=True)
        rows = [f"{'in int8 alone':<40}{'moves vertices':>16}{'of the work':>14}"]
        rows += [f"{group:<40}{harm[group]:>13.2f} mm{self.share[group]:>14.1%}" for group in order]
        self._show("\n".join([f"{self.form.file}, each group of layers on {len(few.crops)} crops:", *rows]))
        return order

    def _float32(self, persons: SyntheticSample) -> Outputs:
        """What float32 gives, computed once."""
        if id(persons) not in self._references:
            self._references[id(persons)] = persons, self._run(RUNTIME, persons)
        return self._references[id(persons)][1]

    def _answers(self, kept: Collection[str], persons: SyntheticSample) -> Outputs:
        """What the graph with all other groups in int8 gives."""
        layers = [layer for group, layers in self._groups.items() if group not in kept for layer in layers]
        self._quantizer.write(self._directory / self.form.file, layers, self.form)
        replace(self._manifest, graphs=(*self._manifest.graphs, self.record([], {}))).write(self._directory)
        return self._run(self.form.purpose, persons)

    def _run(self, purpose: str, persons: SyntheticSample) -> Outputs:
        with closing(OnnxRuntimeBackend(Bundle.open(self._directory), "cpu", purpose=purpose)) as opened:
            return answers(opened, persons.crops.numpy(), persons.cameras.numpy())
