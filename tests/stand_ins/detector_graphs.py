"""Detectors made for tests: ONNX graphs that give constants."""

from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, INT32, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.INT64


def constant_graph(inputs, outputs):
    """A model that gives the arrays ``outputs`` by name, whatever its ``inputs`` (type and shape by name) hold."""
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "fabricated",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in outputs.items()
        ],
        [numpy_helper.from_array(array, f"{name}_value") for name, array in outputs.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
