"""Tracing the recovery module to one ONNX graph, and reading back what came out."""

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from glnet.recovery import MeshRecovery
from glnet.sampling import Sampler, sample_by_gather
from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS, LARGEST_BATCH
from glnet_infer.errors import ExportError, first_line, tested_versions

OPSET = 20
"""GridSample's current spelling; from 23 on, attention exports in a form that TensorRT cannot build."""

FORBIDDEN_OPERATORS = frozenset({"Loop", "Scan", "If", "NonZero", "Det", "Unique", "Compress", "NonMaxSuppression"})
"""Control flow and data-dependent shapes: they stop CUDA graphs, or TensorRT altogether."""

TRACE_BATCH = 2
"""Crops to trace with: with one, the tracer would take the batch for a constant."""


def trace(recovery: MeshRecovery, path: Path, sampler: Sampler = sample_by_gather) -> None:
    """Write the module as an ONNX file, with a dynamic number of crops.

    Args:
        recovery: The module.
        path: The file.
        sampler: How part features are sampled; the default suits ONNX Runtime's CPU.

    Raises:
        ExportError: The tracer failed.
    """
    size = recovery.crop.size
    crops = torch.zeros(TRACE_BATCH, size, size, 3, dtype=torch.uint8)
    cameras = torch.ones(TRACE_BATCH, 4)
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    try:
        with _quiet(), recovery.sampled_by(sampler):
            program = torch.onnx.export(
                recovery,
                (crops, cameras),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in GRAPH_INPUTS],
                output_names=[spec.name for spec in GRAPH_OUTPUTS],
                dynamic_shapes={"crops": {0: batch}, "cameras": {0: batch}},
                verbose=False,
            )
            assert program is not None  # the dynamo exporter returns one
            model = program.model_proto
    except OSError:
        raise
    except Exception as error:  # the tracer passes on whatever any of its parts raises
        raise ExportError(
            "The network was not traced to ONNX.",
            why=first_line(error),
            fix=tested_versions("export"),
        ) from error
    _cast_first(model)
    _strip(model)
    onnx.save(model, path)


def _cast_first(model: onnx.ModelProto) -> None:
    """Let nothing but a cast use the bytes: TensorRT allows an input of bytes on this condition.

    The tracer may read the number of crops from them; the cast has the same shape.
    """
    graph, crops = model.graph, GRAPH_INPUTS[0].name
    users = [node for node in graph.node if crops in node.input]
    cast = next((node for node in users if node.op_type == "Cast"), None)
    if cast is None or len(users) == 1:
        return
    for node in users:
        if node is not cast:
            node.input[:] = [cast.output[0] if name == crops else name for name in node.input]
    position = next(index for index, node in enumerate(graph.node) if node is cast)
    moved = onnx.NodeProto()
    moved.CopyFrom(cast)
    del graph.node[position]
    graph.node.insert(0, moved)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the tracer's notes, which hold source lines and folders of the machine."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.ClearField("doc_string")
        entry.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself (missing torchvision, its own deprecations) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class GraphFacts:
    """What is in an ONNX file.

    Attributes:
        opset: Its version of the standard operators.
        operators: How often each operator occurs.
        precision: ``fp32``, or ``mixed`` where convolutions have half-precision weights.
    """

    opset: int
    operators: Counter[str]
    precision: str

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.operators.total()


def check(path: Path) -> GraphFacts:
    """Check an exported graph: valid ONNX, the promised inputs and outputs, no operator that deployment forbids.

    Raises:
        ExportError: It is none of that.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "The exported graph is not valid ONNX.", why=first_line(error), fix=tested_versions("export")
        ) from error
    model = onnx.load(path)
    for specs, values in ((GRAPH_INPUTS, model.graph.input), (GRAPH_OUTPUTS, model.graph.output)):
        wanted = [(spec.name, spec.dtype, len(spec.shape)) for spec in specs]
        found = [(value.name, _dtype(value), len(value.type.tensor_type.shape.dim)) for value in values]
        fixed = [value.name for value in values if not value.type.tensor_type.shape.dim[:1][0].dim_param]
        if wanted != found or fixed:
            why = f"{', '.join(fixed)}: the number of crops is fixed" if wanted == found else f"{found}"
            raise ExportError(
                "The exported graph has other inputs or outputs than promised.",
                why=why,
                fix=tested_versions("export"),
            )
    operators = Counter(_operators(model))
    forbidden = sorted(FORBIDDEN_OPERATORS & set(operators))
    if forbidden:
        raise ExportError(
            "The exported graph cannot be deployed.",
            why=f"it contains {', '.join(forbidden)}",
            fix=tested_versions("export"),
        )
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    return GraphFacts(opset, operators, _precision(model))


def _operators(model: onnx.ModelProto) -> Iterator[str]:
    """Operators of all nodes, those inside functions and branches too."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node


def _dtype(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _precision(model: onnx.ModelProto) -> str:
    """Read from the convolutions' weights: what was asked for is not evidence."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = {types.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    return "mixed" if onnx.TensorProto.FLOAT16 in weights else "fp32"
