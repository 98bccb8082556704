"""What TensorRT made of a graph: types as they are, not as they were asked for."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from glnet_infer.backends.tensorrt.products import TensorRtLog
from glnet_infer.errors import one_line

HEAVY = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "GRID_SAMPLE", "RESIZE")
"""Kinds of layers that take the time."""

LEARNED = ("convolution", "deconvolution", "matrix_multiply", "einsum")
"""The heavy ones that a module's layers with weights become."""

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names of types, as the manifest writes them."""


@dataclass(frozen=True)
class NetworkFacts:
    """What is in a network that TensorRT has read.

    Attributes:
        tensors: Types of its inputs and outputs, by name.
        kinds: For each kind of heavy layer, how many have outputs of which type.
    """

    tensors: dict[str, str]
    kinds: dict[str, Counter[str]]

    def count(self, dtype: str, *kinds: str) -> int:
        """How many heavy layers (of some kinds) compute in a type."""
        return sum(self.kinds[kind][dtype] for kind in kinds or self.kinds if kind in self.kinds)

    @property
    def precision(self) -> str:
        """``int8`` or ``mixed`` where convolutions are in int8 or half precision, else ``fp32``."""
        if self.count("int8", "convolution"):
            return "int8"
        return "mixed" if self.count("float16", "convolution") else "fp32"

    def to_document(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "half": self.count("float16"),
            "float": self.count("float32"),
            "int8": self.count("int8"),
            "source": "network",
            "kinds": {kind: dict(sorted(types.items())) for kind, types in sorted(self.kinds.items())},
        }


def read_network(network: Any) -> NetworkFacts:
    """Read the types of a parsed network. It is strongly typed, so the engine computes in these."""
    kinds: dict[str, Counter[str]] = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    restored = {
        layer.get_output(0).name
        for layer in layers
        if layer.type.name == "DEQUANTIZE" and dtype_name(layer.get_input(0).dtype) == "int8"
    }
    for layer in layers:
        if layer.type.name in HEAVY:
            kinds.setdefault(layer.type.name.lower(), Counter())[_precision_of(layer, restored)] += 1
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return NetworkFacts({tensor.name: dtype_name(tensor.dtype) for tensor in inputs + outputs}, kinds)


def _precision_of(layer: Any, restored: Collection[str]) -> str:
    """The type that a heavy layer computes in: int8 where values and weights were restored from it, else its output's."""
    factors = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
    if len(factors) == 2 and all(each is not None and each.name in restored for each in factors):
        return "int8"
    return dtype_name(layer.get_output(0).dtype)


def dtype_name(dtype: Any) -> str:
    """A type of TensorRT as the manifest writes it."""
    return DTYPES.get(dtype.name, str(dtype.name).lower())


def read_engine(trt: Any, log: TensorRtLog, plan: Any) -> dict[str, Any]:
    """Types of the outputs of an engine's own layers, after fusion; ``unread`` says why there are none.

    Needs a GPU that the engine runs on, and an engine that was built with detailed profiling. Whatever fails here, the
    engine is built; running it will show what it is worth.
    """
    mark = log.mark()
    try:
        engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan)
        if engine is None:
            return {"unread": log.since(mark)}
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    except Exception as error:  # TensorRT's bindings raise what they like
        return {"unread": one_line(error)}
    return count_engine_types(text) or {"unread": "the engine's inspector names no types"}


def count_engine_types(text: str) -> dict[str, int]:
    """Count ``half``, ``float`` and ``int8`` outputs in the engine inspector's JSON."""
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        for output in layer.get("Outputs", []) if isinstance(layer, dict) else []:  # names alone, without details
            words = str(output.get("Format/Datatype", "")).lower()
            if "fp16" in words or "half" in words:
                counts["half"] += 1
            elif "fp32" in words or "float" in words:
                counts["float"] += 1
            elif "int8" in words:
                counts["int8"] += 1
    return dict(counts)
