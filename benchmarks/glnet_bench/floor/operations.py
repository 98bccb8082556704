"""What a graph must do: operations and bytes, counted from an ONNX file with the shapes that ONNX infers.

A multiplication and an addition are two operations, as in the ratings of processors. Nothing is run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from glnet_bench.record.results import Cost
from glnet_infer.errors import BundleError, first_line
from glnet_infer.onnx_files import OnnxContent

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "GridSample"})
"""Operators that read their inputs from memory and write their outputs there; a good engine fuses all others into them."""

_VIEWS = frozenset({"Constant", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Shape"})
_MOVES = frozenset(
    {"Cast", "Concat", "ConstantOfShape", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Range", "ScatterND"}
    | {"ScatterElements", "Slice", "Split", "Tile", "Transpose", "Where"}
)
_PER_OUTPUT = frozenset(
    {"Abs", "Add", "And", "Ceil", "Clip", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual"}
    | {"LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal"}
    | {"Relu", "Round", "Sigmoid", "Sign", "Sin", "Sqrt", "Sub", "Tanh"}
)
_PER_INPUT = frozenset(
    {"ArgMax", "ArgMin", "CumSum", "GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin"}
    | {"ReduceProd", "ReduceSum", "ReduceSumSquare", "TopK"}
)
_BILINEAR = 7
"""Operations of an output that mixes four inputs: four products, three sums."""

_FOLDED_ELEMENTS = 1 << 16
"""Larger constants are not computed ahead: it is shapes and indices that are wanted."""


@dataclass(frozen=True)
class NodeCost:
    """A node's share.

    Attributes:
        operator: Its ONNX type.
        operations: Operations in a call.
        moved: Bytes of inputs, weights and outputs; 0 for nodes that an engine fuses or that only rename.
        half: Whether it computes in half precision.
    """

    operator: str
    operations: int
    moved: int
    half: bool


@dataclass(frozen=True)
class GraphCost(Cost):
    """What a call takes at least, node by node.

    Attributes:
        nodes: All nodes of the graph.
    """

    nodes: tuple[NodeCost, ...] = field(repr=False)

    def total(self) -> Cost:
        """The same without the nodes."""
        return Cost(**{each.name: getattr(self, each.name) for each in fields(Cost)})


def count(content: bytes, crops: int = 1) -> GraphCost:
    """Count a graph's operations and bytes.

    Args:
        content: The bytes of an ONNX file whose inputs have a free first side.
        crops: Size of that side.

    Raises:
        BundleError: It is no graph, or its shapes depend on what is computed.
    """
    try:
        if problem := OnnxContent.of(content).problem():
            raise ValueError(problem)
        model = onnx.load_model_from_string(content)
        for tensor in model.graph.initializer:
            if math.prod(tensor.dims) > _FOLDED_ELEMENTS:  # shapes are enough: ONNX would copy the values several times
                tensor.ClearField("raw_data")
        for tensor in model.graph.input:
            tensor.type.tensor_type.shape.dim[0].Clear()
            tensor.type.tensor_type.shape.dim[0].dim_value = crops
        shapes = _Shapes(model)
    except Exception as error:  # protobuf, ONNX and the evaluator each have kinds of their own
        raise BundleError(
            "The operations of a graph were not counted.", why=first_line(error), fix="export the checkpoint again"
        ) from error
    return _total(shapes, crops)


class _Shapes:
    """A graph with the shape and the type of every tensor. Constants are computed first: shapes hang on them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        for tensor in model.graph.output:  # from the inputs, not from what the file says of any number of crops
            tensor.type.tensor_type.shape.Clear()
            tensor.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        _fold(model)
        self.graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        self.weights = {tensor.name for tensor in self.graph.initializer}
        self._known: dict[str, tuple[tuple[int, ...], int]] = {
            tensor.name: (tuple(tensor.dims), tensor.data_type) for tensor in self.graph.initializer
        }
        for value in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            kind = value.type.tensor_type
            if all(side.HasField("dim_value") for side in kind.shape.dim):
                self._known[value.name] = tuple(side.dim_value for side in kind.shape.dim), kind.elem_type
        unknown = [
            output
            for node in self.graph.node
            for output in node.output
            if output and output not in self._known and node.op_type not in _VIEWS
        ]
        if unknown:
            raise ValueError(f"{len(unknown)} tensors have no fixed shape, such as {unknown[0]}")

    def shape(self, name: str) -> tuple[int, ...]:
        return self._known[name][0]

    def size(self, name: str) -> int:
        return math.prod(self.shape(name))

    def bytes(self, name: str) -> int:
        return self.size(name) * int(helper.tensor_dtype_to_np_dtype(self._known[name][1]).itemsize)

    def is_half(self, name: str) -> bool:
        return self._known[name][1] == onnx.TensorProto.FLOAT16


def _fold(model: onnx.ModelProto) -> None:
    """Replace what hangs on constants and on the inputs' shapes alone by its value."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sides = {
        value.name: [side.dim_value if side.HasField("dim_value") else -1 for side in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info)
    }
    constants: dict[str, NDArray[Any]] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if math.prod(tensor.dims) <= _FOLDED_ELEMENTS
    }
    kept = []
    for node in model.graph.node:
        values = _value(node, constants, sides)
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            constants[name] = value
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _value(
    node: onnx.NodeProto, constants: dict[str, NDArray[Any]], sides: dict[str, list[int]]
) -> list[NDArray[Any]] | None:
    """What a node gives whatever the inputs are, or None."""
    if node.op_type == "Shape" and min(sides.get(node.input[0], [-1]), default=0) >= 0:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = np.array(sides[node.input[0]], dtype=np.int64)
        return [shape[attributes.get("start", 0) : attributes.get("end", len(shape))]]
    inputs = [name for name in node.input if name]
    if not all(name in constants for name in inputs):
        return None
    values = ReferenceEvaluator(node).run(None, {name: constants[name] for name in inputs})
    return [np.asarray(value) for value in values]


def _total(shapes: _Shapes, crops: int) -> GraphCost:
    graph = shapes.graph
    nodes, not_counted = [], set()
    by_operator: dict[str, int] = defaultdict(int)
    for node in graph.node:
        operations = _operations(node, shapes)
        if operations is None:
            not_counted.add(node.op_type)
            operations = 0
        by_operator[node.op_type] += operations
        moved = 0
        if node.op_type in HEAVY:
            moved = sum(shapes.bytes(name) for name in (*node.input, *node.output) if name)
        half = node.op_type not in _VIEWS and bool(node.input) and shapes.is_half(node.input[0])
        nodes.append(NodeCost(node.op_type, operations, moved, half))
    used = {name for node in graph.node for name in node.input} & shapes.weights
    interface = [value.name for value in (*graph.input, *graph.output)]
    return GraphCost(
        crops=crops,
        operations=sum(node.operations for node in nodes if not node.half),
        half_operations=sum(node.operations for node in nodes if node.half),
        weights=sum(shapes.bytes(name) for name in used),
        interface=sum(shapes.bytes(name) for name in interface),
        moved=sum(node.moved for node in nodes),
        by_operator={name: total for name, total in sorted(by_operator.items(), key=lambda item: -item[1]) if total},
        not_counted=tuple(sorted(not_counted)),
        nodes=tuple(nodes),
    )


def _operations(node: onnx.NodeProto, shapes: _Shapes) -> int | None:
    """Operations of one node, or None if its type is unknown."""
    kind = node.op_type
    if kind in _VIEWS or kind in _MOVES:
        return 0
    outputs = shapes.size(node.output[0])
    if kind in _PER_OUTPUT:
        return outputs * max(1, len(node.input) - 1 if kind in ("Max", "Min") else 1)
    if kind in _PER_INPUT:
        return shapes.size(node.input[0])
    if kind == "Conv":
        weight = shapes.shape(node.input[1])  # outputs, inputs / groups, kernel
        return outputs * (2 * math.prod(weight[1:]) + _has_bias(node))
    if kind == "ConvTranspose":
        weight = shapes.shape(node.input[1])  # inputs, outputs / groups, kernel
        return 2 * shapes.size(node.input[0]) * math.prod(weight[1:]) + outputs * _has_bias(node)
    if kind == "MatMul":
        return 2 * outputs * shapes.shape(node.input[0])[-1]
    if kind == "Gemm":
        first = shapes.shape(node.input[0])
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return outputs * (2 * first[0 if transposed else 1] + _has_bias(node))
    if kind == "GridSample":
        return _BILINEAR * outputs
    if kind == "Resize":
        mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
        return 0 if mode == b"nearest" else _BILINEAR * outputs
    if kind in ("MaxPool", "AveragePool"):
        kernel = next(attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape")
        return outputs * int(math.prod(kernel))
    if kind in ("BatchNormalization", "Softmax"):
        return outputs * (2 if kind == "BatchNormalization" else 5)
    return None


def _has_bias(node: onnx.NodeProto) -> int:
    return int(len(node.input) > 2 and bool(node.input[2]))
