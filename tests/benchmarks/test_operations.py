"""The counter against hand counts and against PyTorch's own."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from glnet_bench.floor import ceilings
from glnet_bench.floor.operations import count
from glnet_bench.measure.floors import measure_floor
from glnet_bench.settings import Frame, Settings
from glnet_infer import BundleError
from glnet_infer.bundle import Bundle

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def graph(nodes, inputs, outputs, weights, kind=FLOAT):
    """The bytes of an ONNX file; inputs and outputs are shapes by name, weights too."""
    types = {FLOAT: np.float32, HALF: np.float16}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
            [
                numpy_helper.from_array(value if isinstance(value, np.ndarray) else np.ones(value, types[kind]), name)
                for name, value in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return model.SerializeToString()


def test_a_convolution_with_bias():
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    content = graph([node], {"x": ["N", 8, 16, 16]}, {"y": ["N", 4, 8, 8]}, {"w": (4, 8, 3, 3), "b": (4,)})
    cost = count(content, 3)
    outputs, weights = 3 * 4 * 8 * 8, 4 * 8 * 9 + 4
    assert cost.operations == outputs * (2 * 8 * 9 + 1)
    assert cost.weights == 4 * weights
    assert cost.interface == 4 * (3 * 8 * 16 * 16 + outputs)
    assert cost.moved == cost.weights + cost.interface
    assert not cost.half_operations and not cost.not_counted


def test_groups_divide_a_convolution():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    content = graph([node], {"x": ["N", 8, 5, 5]}, {"y": ["N", 12, 5, 5]}, {"w": (12, 2, 1, 1)})
    assert count(content).operations == 12 * 25 * 2 * 2


def test_a_transposed_convolution_is_the_adjoint_of_a_convolution():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    content = graph([node], {"x": ["N", 3, 4, 4]}, {"y": ["N", 5, 8, 8]}, {"w": (3, 5, 2, 2)})
    assert count(content).operations == 2 * (3 * 16) * 5 * 4


@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_products(transposed):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "b"], ["y"], transB=transposed),
    ]
    weights = {"w": (7, 5), "v": (6, 5) if transposed else (5, 6), "b": (6,)}
    content = graph(nodes, {"x": ["N", 7]}, {"y": ["N", 6]}, weights)
    cost = count(content, 2)
    assert cost.by_operator == {"Gemm": 2 * 6 * (2 * 5 + 1), "MatMul": 2 * (2 * 5) * 7}


def test_elementwise_operations_count_and_move_nothing():
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b", "axes"], ["y"], keepdims=1),
    ]
    weights = {"w": (10,), "axes": np.array([1])}
    cost = count(graph(nodes, {"x": ["N", 10]}, {"y": ["N", 1]}, weights), 4)
    assert cost.by_operator == {"Mul": 40, "Relu": 40, "ReduceMean": 40}
    assert cost.moved == 0


def test_sampling_and_resizing():
    nodes = [
        helper.make_node("GridSample", ["x", "grid"], ["a"]),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], mode="nearest"),
        helper.make_node("Resize", ["b", "", "scales"], ["y"], mode="linear"),
    ]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    inputs = {"x": ["N", 3, 8, 8], "grid": ["N", 2, 2, 2]}
    cost = count(graph(nodes, inputs, {"y": ["N", 3, 8, 8]}, weights))
    assert cost.by_operator == {"Resize": 7 * 3 * 64, "GridSample": 7 * 3 * 4}


def test_half_precision_is_counted_apart_and_weighs_half():
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    cost = count(graph([node], {"x": ["N", 8]}, {"y": ["N", 8]}, {"w": (8, 8)}, HALF))
    assert (cost.operations, cost.half_operations) == (0, 128)
    assert (cost.weights, cost.interface) == (2 * 64, 2 * 16)


def test_shapes_that_hang_on_the_batch_are_followed():
    # As the tracer writes a batch-sized index: the shape of an input, a range of it, and a gather.
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Squeeze", ["n"], ["scalar"]),
        helper.make_node("Range", ["zero", "scalar", "one"], ["index"]),
        helper.make_node("Gather", ["x", "index"], ["rows"]),
        helper.make_node("Relu", ["rows"], ["y"]),
    ]
    weights = {"zero": np.array(0), "one": np.array(1)}
    cost = count(graph(nodes, {"x": ["N", 6]}, {"y": ["M", 6]}, weights), 5)
    assert cost.by_operator == {"Relu": 30}


def test_an_operator_that_is_not_known_is_named():
    node = helper.make_node("Hardmax", ["x"], ["y"])
    assert count(graph([node], {"x": ["N", 4]}, {"y": ["N", 4]}, {})).not_counted == ("Hardmax",)


def test_a_damaged_file_is_refused():
    with pytest.raises(BundleError, match="were not counted"):
        count(b"no graph")


@pytest.mark.parametrize("location", ["weights.bin", "../../weights.bin"])
def test_weights_in_other_files_are_not_looked_for(tmp_path, monkeypatch, location):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(4 * 8 * 8))
    content = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 8]}, {"y": ["N", 8]}, {"w": (8, 8)})
    model = onnx.load_model_from_string(content)
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    with pytest.raises(BundleError, match="its weights lie in other files"):
        count(model.SerializeToString())


def test_a_graph_that_was_changed_meanwhile_is_not_counted(bundle, monkeypatch):
    opened = Bundle.open(bundle)
    settings = Settings(("onnxruntime-cpu",), (1,), (1,), (Frame("VGA", 640, 480),))
    monkeypatch.setattr(ceilings, "measure_cpu", lambda threads: 1 / 0)  # not looked at here
    counted = measure_floor(opened, settings)
    assert counted.costs and not counted.no_costs
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = measure_floor(opened, settings)
    assert not found.costs and "not the file that the manifest describes" in str(found.no_costs)


def test_the_network_counts_as_pytorch_counts_it(shared_bundle, small_recovery):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    size = small_recovery.network.config.crop.size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small_recovery(torch.zeros(2, size, size, 3, dtype=torch.uint8), torch.ones(2, 4))
    by_kind = counter.get_flop_counts()["Global"]
    convolutions = sum(value for kind, value in by_kind.items() if "convolution" in str(kind))
    cost = count((shared_bundle / "model.onnx").read_bytes(), 2)
    # PyTorch leaves out biases: at most one operation in the 18 of a pointwise convolution of few channels.
    assert convolutions < cost.by_operator["Conv"] < 1.06 * convolutions
    assert not cost.not_counted
    parameters = 4 * sum(parameter.numel() for parameter in small_recovery.network.parameters())
    assert parameters < cost.weights  # and the body


def test_operations_grow_with_the_batch_and_weights_do_not(shared_bundle):
    one, four = (count((shared_bundle / "model.onnx").read_bytes(), crops) for crops in (1, 4))
    assert four.operations == pytest.approx(4 * one.operations, rel=1e-6)
    assert four.weights == pytest.approx(one.weights, rel=1e-3)  # indices of the batch are constants
    assert four.interface == 4 * one.interface
