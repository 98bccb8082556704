"""The stage that adds bfloat16 to an unfinished bundle: the runtime's graph, cut in two, and what that costs."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import onnx

from glnet.recovery import MeshRecovery
from glnet_export.bf16.cut import cut_of
from glnet_export.bf16.options import Bf16Options
from glnet_export.engines.progress import Stage
from glnet_export.mixed import half_layer_names, mixed_copy
from glnet_export.narrow_cost import answers, cost
from glnet_infer.backends import Backend, Outputs, open_backend
from glnet_infer.backends.openvino import OpenVinoBackend, check_precision
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import BF16, GraphRecord
from glnet_infer.devices import has_bf16_products
from glnet_infer.errors import ExportError
from glnet_render import SyntheticSample, SyntheticSource
from glnet_render.seeds import NARROW_VERDICT

BF16_STAGES = ("bf16",)


class Bf16Graph:
    """A module's graph whose first part computes in bfloat16.

    Args:
        recovery: The module in float32.
        random: Whether its weights are random: then figures are shown and not judged.
        options: What bfloat16 may cost.

    Raises:
        BackendError: OpenVINO is not installed, or does not compute in bfloat16 on this processor.
    """

    def __init__(self, recovery: MeshRecovery, random: bool, options: Bf16Options) -> None:
        check_precision("BF16")
        self._recovery, self._random, self._options = recovery, random, options

    def add_graph(self, directory: Path, manifest: Manifest, stage: Stage) -> Manifest:
        """Record in an unfinished bundle where its graph is cut. The layers are those that mixed precision halves.

        Args:
            directory: The bundle's folder, with its float32 graph.
            manifest: The bundle's manifest so far.
            stage: Told of the stage.

        Returns:
            The manifest with the graph.

        Raises:
            ExportError: Bfloat16 costs too much.
        """
        bound = None if self._random else self._options.max_growth
        with stage(*BF16_STAGES) as report:
            layers = half_layer_names(mixed_copy(self._recovery))
            graph = manifest.graph
            cut = cut_of(onnx.load(directory / graph.file.file), layers)
            record = GraphRecord(graph.file, BF16, "bf16", graph.opset, graph.nodes, cut=tuple(cut))
            report.say(f"{len(layers)} layers in bfloat16, cut at {len(cut)} tensors")
            source = SyntheticSource(self._recovery.body, self._recovery.crop, seed=NARROW_VERDICT)
            persons = source.sample(self._options.crops)
            replace(manifest, graphs=(*manifest.graphs, record)).write(directory)
            bundle = Bundle.open(directory)
            # What is compiled here is not kept: it would be published with the bundle.
            narrow = _answers(OpenVinoBackend(bundle, purpose=BF16, keep=False), persons)
            found = cost(narrow, _answers(open_backend("onnxruntime-cpu", bundle), persons), persons, self._recovery.body)
            report.say(str(found))
            document = {**found.to_document(), "bf16_products": has_bf16_products()}
            if bound is None:
                report.say("random weights: not judged")
            elif misses := found.misses(bound):
                raise ExportError(
                    "Bfloat16 costs too much.",
                    why="; ".join(misses),
                    fix="allow more by --max-bf16-growth, or leave --bf16 out",
                )
            else:
                document["bounds"] = {"growth": bound}
        return replace(manifest, graphs=(*manifest.graphs, replace(record, parity=document)))


def _answers(backend: Backend, persons: SyntheticSample) -> Outputs:
    with closing(backend):
        return answers(backend, persons.crops.numpy(), persons.cameras.numpy())
