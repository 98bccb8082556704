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
from glnet.sampling import sample_by_gather
from glnet_infer.errors import ExportError
from glnet_infer.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS

OPSET = 20
"""GridSample's current spelling; from 23 on, attention exports in a form that TensorRT cannot build."""

FORBIDDEN_OPERATORS = frozenset({"Loop", "Scan", "If", "NonZero", "Det", "Unique", "Compress", "NonMaxSuppression"})
"""Control flow and data-dependent shapes: they stop CUDA graphs, or TensorRT altogether."""

TRACE_BATCH = 2
"""Crops to trace with: with one, the tracer would take the batch for a constant."""


def trace(recovery: MeshRecovery, path: Path) -> None:
    """Write the module as an ONNX file, with a dynamic number of crops.

    Raises:
        ExportError: The tracer failed.
    """
    size = recovery.network.config.crop.size
    encoding = recovery.network.local_encoding
    sampler, encoding.sample = encoding.sample, sample_by_gather
    crops = torch.zeros(TRACE_BATCH, size, size, 3, dtype=torch.uint8)
    cameras = torch.ones(TRACE_BATCH, 4)
    batch = torch.export.Dim("N", min=1, max=4096)
    try:
        with _quiet():
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
            program.save(path, external_data=False)
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise ExportError(
            "The network was not traced to ONNX.",
            why=str(error).splitlines()[0],
            fix="constraints.txt lists the torch, onnx and onnxscript versions that are tested together",
        ) from error
    finally:
        encoding.sample = sampler


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
    except onnx.checker.ValidationError as error:
        raise ExportError("The exported graph is not valid ONNX.", why=str(error).splitlines()[0]) from error
    model = onnx.load(path)
    for specs, values in ((GRAPH_INPUTS, model.graph.input), (GRAPH_OUTPUTS, model.graph.output)):
        wanted = [(spec.name, spec.dtype, len(spec.shape)) for spec in specs]
        found = [(value.name, _dtype(value), len(value.type.tensor_type.shape.dim)) for value in values]
        if wanted != found:
            raise ExportError("The exported graph has other inputs or outputs than promised.", why=f"{found}")
    operators = Counter(node.op_type for node in model.graph.node)
    forbidden = sorted(FORBIDDEN_OPERATORS & set(operators))
    if forbidden:
        raise ExportError("The exported graph cannot be deployed.", why=f"it contains {', '.join(forbidden)}")
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    return GraphFacts(opset, operators, _precision(model))


def _dtype(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _precision(model: onnx.ModelProto) -> str:
    """Read from the convolutions' weights: what was asked for is not evidence."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = {types.get(node.input[1]) for node in model.graph.node if node.op_type == "Conv"}
    return "mixed" if onnx.TensorProto.FLOAT16 in weights else "fp32"
