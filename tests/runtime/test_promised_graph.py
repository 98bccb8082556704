"""The graph that is opened is the one that the manifest promises, and what it gives is what was promised."""

import dataclasses
import json
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from glnet_infer import BackendError, BundleError, GlnetError, MeshRecoverer
from glnet_infer.backends import find_kind, open_backend
from glnet_infer.backends.promise import Promise
from glnet_infer.bundle import Bundle, record_file

CPU = "CPUExecutionProvider"


def _openvino():
    """Whether it is installed; imported as the library does it."""
    return find_kind("openvino").state() == "available"


BACKENDS = [
    "onnxruntime-cpu",
    pytest.param("openvino", marks=pytest.mark.skipif(not _openvino(), reason="OpenVINO is not installed")),
]


@pytest.fixture
def opened(shared_bundle):
    return Bundle.open(shared_bundle)


def with_graph(bundle, content):
    """The bundle with another graph, recorded as its own."""
    (bundle / "model.onnx").write_bytes(content)
    document = json.loads((bundle / "manifest.json").read_text())
    document["graphs"][0]["file"] = dataclasses.asdict(record_file(bundle / "model.onnx"))
    (bundle / "manifest.json").write_text(json.dumps(document))
    return Bundle.open(bundle)


def test_a_graph_that_is_none_is_refused_with_the_real_onnx_runtimes_words(bundle):
    unknown = onnx.helper.make_node("NoSuchOperator", ["crops"], ["vertices"])
    opened = with_graph(bundle, changed(bundle, lambda graph: graph.node.append(unknown)))
    with pytest.raises(BackendError, match=r"model\.onnx") as error:
        open_backend("onnxruntime-cpu", opened)
    with pytest.raises(Exception, match="ONNXRuntimeError") as words:
        onnxruntime.InferenceSession(opened.graph.read_bytes(), providers=[CPU])
    assert str(words.value).splitlines()[0] in error.value.why


def test_a_failure_of_the_real_onnx_runtime_prints_nothing(bundle, capfd):
    """By itself it prints lines on stdout, where results go, and tries the same again."""
    unreadable = onnx.helper.make_node("Relu", ["Y" * 20], ["y"])
    content = changed(bundle, lambda graph: graph.node.append(unreadable)).replace(b"Y" * 20, b"Y" * 19 + b"\xbe")
    with pytest.raises(BackendError, match="does not load"):
        open_backend("onnxruntime-cpu", with_graph(bundle, content))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_with_an_unknown_operator_is_refused_and_nothing_is_printed(bundle, capfd, backend):
    def add_unknown(graph):
        graph.node.append(onnx.helper.make_node("NoSuchOperator", ["cameras"], ["more"]))
        graph.output.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["N", 4]))

    with pytest.raises(BackendError, match=r"does not load .*model\.onnx") as error:
        open_backend(backend, with_graph(bundle, changed(bundle, add_unknown)))
    assert "NoSuchOperator" in error.value.why
    assert capfd.readouterr() == ("", "")


def test_a_side_whose_name_is_no_text_is_refused(bundle):
    def name_a_side(graph):
        value_of(graph, "cameras").type.tensor_type.shape.dim[0].dim_param = "Y" * 20

    content = changed(bundle, name_a_side)
    assert content.count(b"Y" * 20) >= 1
    with pytest.raises(BackendError, match="does not load"):
        open_backend("onnxruntime-cpu", with_graph(bundle, content.replace(b"Y" * 20, b"Y" * 19 + b"\xce")))


def changed(bundle, change):
    model = onnx.load(bundle / "model.onnx")
    change(model.graph)
    return model.SerializeToString()


def value_of(graph, name):
    return next(value for value in (*graph.input, *graph.output) if value.name == name)


def retyped(name, dtype):
    def change(graph):
        value_of(graph, name).type.tensor_type.elem_type = dtype
        inner = f"{name}_inner"
        for node in graph.node:
            node.output[:] = [inner if each == name else each for each in node.output]
            node.input[:] = [inner if each == name else each for each in node.input]
        graph.node.append(onnx.helper.make_node("Cast", [inner], [name], to=dtype))

    return change


def renamed(name, other):
    def change(graph):
        value_of(graph, name).name = other
        for node in graph.node:
            node.output[:] = [other if each == name else each for each in node.output]
            node.input[:] = [other if each == name else each for each in node.input]

    return change


def fixed(name, side, length):
    def change(graph):
        dimension = value_of(graph, name).type.tensor_type.shape.dim[side]
        dimension.dim_value = length

    return change


def with_input(graph):
    graph.input.append(onnx.helper.make_tensor_value_info("focus", onnx.TensorProto.FLOAT, ["N"]))
    graph.node.append(onnx.helper.make_node("Neg", ["focus"], ["unfocused"]))  # OpenVINO drops what nobody uses
    graph.output.append(onnx.helper.make_tensor_value_info("unfocused", onnx.TensorProto.FLOAT, ["N"]))


@pytest.mark.parametrize(
    "change, why",
    [
        (retyped("betas", onnx.TensorProto.DOUBLE), r"betas is (tensor\(double\)|f64), not float32"),
        (retyped("reference_pixel", onnx.TensorProto.INT64), r"reference_pixel is (tensor\(int64\)|i64), not int32"),
        (renamed("cameras", "camera"), "it has no input cameras"),
        (renamed("joints", "joint"), "it has no output joints"),
        (fixed("crops", 0, 4), "crops is 4 x"),
        (with_input, "it takes 'focus'"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_that_is_not_the_promised_one_is_refused_when_it_is_opened(bundle, change, why, backend):
    opened = with_graph(bundle, changed(bundle, change))
    with pytest.raises(BundleError, match="is not the graph that the manifest describes") as error:
        open_backend(backend, opened)
    assert re.search(why, error.value.why)


def test_a_side_that_the_graph_leaves_open_is_compared_when_it_runs(bundle):
    def one_joint_less(graph):
        for node in graph.node:
            node.output[:] = ["all_joints" if each == "joints" else each for each in node.output]
            node.input[:] = ["all_joints" if each == "joints" else each for each in node.input]
        for name, value in (("start", 0), ("stop", 28), ("axis", 1)):
            graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]))
        graph.node.append(onnx.helper.make_node("Slice", ["all_joints", "start", "stop", "axis"], ["joints"]))
        value_of(graph, "joints").type.tensor_type.shape.dim[1].ClearField("dim_value")
        graph.ClearField("value_info")

    opened = with_graph(bundle, changed(bundle, one_joint_less))
    size = opened.manifest.crop.size
    with pytest.raises(GlnetError, match=r"is not the graph|gave joints as") as error:
        # ONNX Runtime may find out the side by itself, before it runs.
        recoverer = MeshRecoverer(opened, "onnxruntime-cpu", threads=1)
        recoverer(np.zeros((size, size, 3), np.uint8), [[0, 0, size, size]] * 2)
    assert "joints" in str(error.value) and "28" in str(error.value)


def external(graph):
    graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    graph.initializer[0].external_data.add(key="location", value="weights.bin")


def branching(graph):
    inside = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["crops"], ["inner"])], "inside", [], [])
    graph.node.append(onnx.helper.make_node("If", ["crops"], ["unused"], then_branch=inside, else_branch=inside))


@pytest.mark.parametrize("change, why", [(external, "other files"), (branching, "control flow: If")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_that_is_more_than_one_is_refused_before_it_is_loaded(bundle, monkeypatch, change, why, backend):
    if backend == "openvino":
        monkeypatch.setattr(sys.modules["openvino"].Core, "read_model", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr("glnet_infer.backends.onnxruntime.open_session", lambda *_: pytest.fail("it was loaded"))
    opened = with_graph(bundle, changed(bundle, change))
    with pytest.raises(BundleError, match="is not a graph that is run") as error:
        open_backend(backend, opened)
    assert why in error.value.why


@pytest.mark.parametrize("content", [b"not a graph", b"ORTM would be another format", b"\xff" * 40])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_is_no_onnx_is_refused(bundle, content, backend):
    with pytest.raises(BundleError, match="is not a graph that is run"):
        open_backend(backend, with_graph(bundle, content))


@pytest.mark.parametrize("dtype, lost", [("float64", 0), ("float32", 1)])
def test_what_a_graph_gives_is_compared_with_its_promise(opened, dtype, lost):
    promise = Promise(opened)
    sizes = {"N": 3}
    outputs = {
        spec.name: np.zeros([sizes.get(side, side) for side in spec.shape], dtype=spec.dtype)
        for spec in opened.manifest.outputs
    }
    promise.check_outputs(outputs, 3, "a backend")
    outputs["vertices"] = outputs["vertices"][:, lost:].astype(dtype)
    with pytest.raises(BackendError, match=f"^a backend gave vertices as {dtype}") as error:
        promise.check_outputs(outputs, 3, "a backend")
    assert "promises float32 (3, 12408, 3)" in error.value.why
