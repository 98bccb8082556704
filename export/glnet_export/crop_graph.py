"""The graph that cuts crops out of a frame: ``glnet_infer.crops`` for engines."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from glnet_infer.contract import CROP_INPUTS, CROP_OUTPUTS, CROP_REDUCTIONS, TensorSpec

CROP_GRAPH_NAME = "crop.onnx"

OPSET = 20
"""The first in which GridSample calls its bilinear mode ``linear``."""


def write_crop_graph(path: Path, size: int) -> tuple[int, int]:
    """Write the ONNX graph that cuts N crops out of one frame.

    The frame is averaged to all reductions. Each crop is sampled from one of them; its squares lie outside the others,
    where samples are zero, so the sum of all is the crop. That takes no shape that depends on values, and no branch.

    All crops are one GridSample a reduction: the frame is a batch of one, and the N grids stand one below the other.
    TensorRT would otherwise hold a copy of the frame for each crop.

    Args:
        path: File to write.
        size: Side of the crops.

    Returns:
        The version of the operators, and the number of nodes.
    """
    graph = helper.make_graph(
        _nodes(),
        "crop",
        [_value(spec, size) for spec in CROP_INPUTS],
        [_value(spec, size) for spec in CROP_OUTPUTS],
        [numpy_helper.from_array(array, name) for name, array in _constants(size).items()],
    )
    # The version of the file format that goes with the operators' version: newer ones are refused by older readers.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return OPSET, len(graph.node)


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    squares = [f"squares_{reduction}" for reduction in CROP_REDUCTIONS]
    nodes = [
        # In float32 all through: half precision has no quarter pixels beyond 1024. Bytes are cast before they are
        # transposed, and transposed before they are bytes again: TensorRT transposes none.
        node("Cast", ["frame"], ["frame_float"], to=TensorProto.FLOAT),
        node("Transpose", ["frame_float"], ["planes"], perm=[2, 0, 1]),
        node("Unsqueeze", ["planes", "first"], ["image_1"]),
        node("Split", ["squares"], squares, axis=1, num_outputs=len(squares)),
    ]
    for reduction in CROP_REDUCTIONS:
        nodes += _sampling(reduction)
    return [
        *nodes,
        node("Gather", [f"sum_{CROP_REDUCTIONS[-1]}", "rgb"], ["channels"], axis=1),
        node("Reshape", ["channels", "apart"], ["crop_planes"]),
        node("Transpose", ["crop_planes"], ["crops_float"], perm=[1, 2, 3, 0]),
        node("Round", ["crops_float"], ["crops_whole"]),
        node("Cast", ["crops_whole"], ["crops"], to=TensorProto.UINT8),
    ]


def _sampling(reduction: int) -> list[onnx.NodeProto]:
    """All crops sampled from one reduction of the frame, added to the sum over the finer ones."""
    node, finer = helper.make_node, reduction // 2
    samples = f"samples_{reduction}" if finer else "sum_1"
    nodes = [
        node(
            "Split", [f"squares_{reduction}"], [f"{part}_{reduction}" for part in ("middle", "half")], axis=2, num_outputs=2
        ),
        node("Reshape", [f"middle_{reduction}", "per_crop"], [f"middles_{reduction}"]),
        node("Reshape", [f"half_{reduction}", "per_crop"], [f"halves_{reduction}"]),
        node("Mul", ["unit_grid", f"halves_{reduction}"], [f"offsets_{reduction}"]),
        node("Add", [f"offsets_{reduction}", f"middles_{reduction}"], [f"grids_{reduction}"]),
        node("Reshape", [f"grids_{reduction}", "stacked"], [f"grid_{reduction}"]),
        node(
            "GridSample",
            [f"image_{reduction}", f"grid_{reduction}"],
            [samples],
            mode="linear",
            padding_mode="zeros",
            align_corners=0,
        ),
    ]
    if not finer:
        return nodes
    # One row and column of black, where they are odd. Averages of averages are exact in float32.
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}
    return [
        node("AveragePool", [f"image_{finer}"], [f"image_{reduction}"], **pool),
        *nodes,
        node("Add", [f"sum_{finer}", samples], [f"sum_{reduction}"]),
    ]


def _constants(size: int) -> dict[str, np.ndarray]:
    # Pixel centres of a crop that reaches from -1 to 1.
    centers = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(centers, centers)
    return {
        "unit_grid": np.stack([x, y], axis=-1)[None],
        "first": np.array([0], np.int64),
        "per_crop": np.array([-1, 1, 1, 2], np.int64),
        "stacked": np.array([1, -1, size, 2], np.int64),
        "rgb": np.array([2, 1, 0], np.int64),
        "apart": np.array([3, -1, size, size], np.int64),
    }


def _value(spec: TensorSpec, size: int) -> onnx.ValueInfoProto:
    dtype = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[spec.dtype]
    return helper.make_tensor_value_info(spec.name, dtype, [size if side == "C" else side for side in spec.shape])
