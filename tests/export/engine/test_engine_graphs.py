"""Graphs that TensorRT is given: what it refuses, what is noticed, and how bytes are cast."""

import contextlib
import hashlib
import types
from collections import Counter

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from glnet_export.engines.build import _check, _Wanted, build
from glnet_export.engines.readback import NetworkFacts
from glnet_export.graph import _cast_first, trace
from glnet_infer import ExportError
from glnet_infer.backends.tensorrt.products import RTX
from glnet_infer.contract import GRAPH_OUTPUTS

# Graphs that are not what they should be


def test_a_float32_graph_is_not_taken_for_a_mixed_one(toolkit, full, tmp_path, ada):
    with pytest.raises(ExportError, match="half precision where it should") as error:
        build(full, tmp_path, toolkit, ada, half_layers=80)
    assert "80" in error.value.why and "0 do" in error.value.why and list(tmp_path.iterdir()) == []


def test_half_of_a_graph_in_float32_is_noticed(toolkit, mixed, tmp_path, ada):
    with pytest.raises(ExportError, match="half precision where it should"):
        build(mixed, tmp_path, toolkit, ada, half_layers=120)


def test_enlargements_in_half_precision_stand_for_no_convolution():
    """Each step of HRNet's fusion is one: they would hide convolutions that came out in float32."""
    promised = {spec.name: spec.dtype for spec in GRAPH_OUTPUTS}
    kinds = {
        "convolution": Counter(float16=1, float32=2),
        "resize": Counter(float16=2),
        "matrix_multiply": Counter(float16=1),
    }
    facts = NetworkFacts(promised, kinds)
    _check(facts, _Wanted(GRAPH_OUTPUTS, 2), RTX)
    with pytest.raises(ExportError, match="half precision where it should") as error:
        _check(facts, _Wanted(GRAPH_OUTPUTS, 3), RTX)
    assert error.value.why.startswith("3 ") and "; 2 do" in error.value.why and "[rtx]" in error.value.fix


def test_a_float32_graph_that_is_meant_so_is_named_so(toolkit, full, tmp_path, ada):
    record = build(full, tmp_path, toolkit, ada, half_layers=0)
    assert record.precision == "fp32" and record.file.file == "model.rtx-sm89.fp32.engine"
    assert record.layers["half"] == 0


@pytest.mark.parametrize("data", [b"not a graph", b""])
def test_a_file_that_is_no_graph(toolkit, tmp_path, data, ada):
    (tmp_path / "bad.onnx").write_bytes(data)
    with pytest.raises(ExportError) as error:
        build(tmp_path / "bad.onnx", tmp_path, toolkit, ada, half_layers=0)
    assert error.value.why and [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_the_parsers_words_and_the_node_are_in_the_error(toolkit, mixed, tmp_path, ada):
    # Bytes transposed before they are cast, which TensorRT does not take.
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 8, 8, 3])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
    nodes = [
        helper.make_node("Transpose", ["crops"], ["turned"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["image"], to=TensorProto.FLOAT),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [crops], [image]), opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "bytes.onnx")
    with pytest.raises(ExportError, match=r"does not read bytes\.onnx") as error:
        build(tmp_path / "bytes.onnx", tmp_path, toolkit, ada, half_layers=0)
    assert "UINT8" in error.value.why.upper() and "turn" in error.value.why


def test_a_graph_is_built_from_as_it_was_recorded_and_from_one_file(toolkit, mixed, tmp_path, ada):
    content = mixed.read_bytes()
    (tmp_path / "graph.onnx").write_bytes(content)
    recorded = hashlib.sha256(content).hexdigest()
    model = onnx.load(mixed)
    model.graph.node[0].name += "_other"
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match=r"No engine is built from graph\.onnx") as error:
        build(tmp_path / "graph.onnx", tmp_path, toolkit, ada, half_layers=0, sha256=recorded)
    assert "changed meanwhile" in error.value.why
    model.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(ExportError, match="No engine is built") as error:
        build(tmp_path / "graph.onnx", tmp_path, toolkit, ada, half_layers=0)
    assert "other files" in error.value.why


def test_other_outputs_than_promised_are_refused(toolkit, mixed, tmp_path, ada):
    model = onnx.load(mixed)
    del model.graph.output[-1]
    onnx.save(model, tmp_path / "less.onnx")
    with pytest.raises(ExportError, match="other inputs or outputs") as error:
        build(tmp_path / "less.onnx", tmp_path, toolkit, ada, half_layers=80)
    assert "reference_pixel int32" in error.value.why


# Bytes


def test_bytes_are_used_by_a_cast_alone():
    nodes = [
        helper.make_node("Shape", ["crops"], ["shape"]),
        helper.make_node("Identity", ["shape"], ["shape too"]),
        helper.make_node("Cast", ["crops"], ["image"], to=TensorProto.FLOAT),
    ]
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 8, 8, 3])
    outputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 8, 3]),
        helper.make_tensor_value_info("shape too", TensorProto.INT64, [4]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [crops], outputs))
    _cast_first(model)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [
        ("Cast", ["crops"]), ("Shape", ["image"]), ("Identity", ["shape"])
    ]  # fmt: skip


class CountsCrops(torch.nn.Module):
    """Reads the number of crops from their bytes, as networks may."""

    def __init__(self):
        super().__init__()
        self.crop, self.sampled_by = types.SimpleNamespace(size=8), contextlib.nullcontext

    def forward(self, crops, cameras):
        return crops.float().mean((1, 2, 3)) + torch.arange(crops.shape[0]), cameras


def test_traced_graphs_use_bytes_by_a_cast_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("glnet_export.graph.GRAPH_OUTPUTS", GRAPH_OUTPUTS[:2])
    trace(CountsCrops(), tmp_path / "g.onnx")
    model = onnx.load(tmp_path / "g.onnx")
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert "Shape" in operators and [node.op_type for node in model.graph.node if "crops" in node.input] == ["Cast"]


def test_real_graphs_use_bytes_by_a_cast_alone(mixed, full):
    for path in (mixed, full):
        assert [node.op_type for node in onnx.load(path).graph.node if "crops" in node.input] == ["Cast"], path
