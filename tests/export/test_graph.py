"""The exported graph, read with onnx and run with ONNX Runtime directly; and the checks that refuse other graphs."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from glnet.sampling import sample_by_grid
from glnet_export.graph import OPSET, check, trace
from glnet_export.textures import textured_crops
from glnet_infer import ExportError

F, U8, I32 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32


@pytest.fixture(scope="module")
def graph_file(shared_bundle):
    return shared_bundle / "model.onnx"


@pytest.fixture(scope="module")
def graph(graph_file):
    """Parsed; tests must not change it."""
    return onnx.load(graph_file).graph


@pytest.fixture
def model(graph_file):
    """Parsed anew, for tests that change it."""
    return onnx.load(graph_file)


@pytest.fixture(scope="module")
def session(graph_file):
    return onnxruntime.InferenceSession(str(graph_file), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def crops():
    return textured_crops(5, 256, seed=11)


@pytest.fixture(scope="module")
def cameras():
    return np.random.default_rng(2).uniform((2, 2, -1, -1), (5, 5, 1, 1), (5, 4)).astype(np.float32)


def run(session, crops, cameras):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"crops": crops, "cameras": cameras}), strict=True))


def downstream(graph, operator):
    """The nodes that use what an operator's one node computes, and that node."""
    start = [node for node in graph.node if node.op_type == operator]
    assert len(start) == 1
    reached, found = set(start[0].output), list(start)
    grown = True
    while grown:
        grown = False
        for node in graph.node:
            if node not in found and reached.intersection(node.input):
                reached.update(node.output)
                found.append(node)
                grown = True
    return found


def test_inputs_and_outputs_are_the_promised_ones(graph):
    def described(values):
        return [
            (
                value.name,
                value.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            )
            for value in values
        ]

    assert described(graph.input) == [("crops", U8, ["N", 256, 256, 3]), ("cameras", F, ["N", 4])]
    assert described(graph.output) == [
        ("vertices", F, ["N", 12_408, 3]),
        ("joints", F, ["N", 29, 3]),
        ("keypoints_2d", F, ["N", 31, 2]),
        ("rotations", F, ["N", 24, 3, 3]),
        ("betas", F, ["N", 10]),
        ("translation", F, ["N", 3]),
        ("confidence", F, ["N"]),
        ("reference_pixel", I32, ["N", 2]),
    ]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_crops_runs_and_each_is_on_its_own(session, crops, cameras, count):
    together = run(session, crops[:count], cameras[:count])
    for i in range(count):
        alone = run(session, crops[i : i + 1], cameras[i : i + 1])
        for name, values in together.items():
            assert len(values) == count
            # 1e-4 m and 1e-3 px: other batch sizes sum in another order. Another crop's result is centimetres away.
            assert np.abs(values[i] - alone[name][0]).max() < (1e-3 if name == "keypoints_2d" else 1e-4), name


def test_the_graph_computes_what_the_module_does(session, small_recovery, crops, cameras):
    found = run(session, crops, cameras)
    with torch.inference_mode():
        expected = small_recovery(torch.from_numpy(crops), torch.from_numpy(cameras))._asdict()
    assert list(found) == list(expected)
    for name, values in found.items():
        assert np.abs(values - expected[name].numpy()).max() < 5e-5, name  # 0.05 mm, as the export's own bound


def test_crops_and_cameras_both_matter(session, crops, cameras):
    base, other = run(session, crops, cameras), run(session, 255 - crops, cameras)
    assert np.abs(base["keypoints_2d"] - other["keypoints_2d"]).max() > 1e-2
    moved = run(session, crops, cameras + np.float32([0, 0, 0.5, 0]))
    assert np.abs(base["vertices"] - moved["vertices"]).max() > 0.1
    assert np.array_equal(base["keypoints_2d"], moved["keypoints_2d"])


def test_selection_kinematics_and_decoding_stay_small(graph):
    nodes = downstream(graph, "ArgMax")
    operators = {node.op_type for node in nodes}
    assert "Conv" in operators and "MatMul" in operators  # the heads at the chosen pixel, the skinning
    assert len(nodes) <= 350
    outputs = {name for node in nodes for name in node.output}
    assert {"vertices", "joints", "rotations", "reference_pixel"} <= outputs


def test_backbone_is_not_evaluated_after_the_selection(graph):
    convolutions = [node for node in downstream(graph, "ArgMax") if node.op_type == "Conv"]
    assert len(convolutions) == 2  # pointwise heads: of the pixel and of the parts
    assert len([node for node in graph.node if node.op_type == "Conv"]) > 50


@pytest.mark.parametrize(
    "word", ["Loop", "Scan", "If", "NonZero", "SVD", "Det", "Inverse", "Cholesky", "Unique", "Sequence"]
)
def test_no_operator_that_deployment_chokes_on(model, word):
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert not [node.name for node in nodes if word.lower() in node.op_type.lower()]
    assert all(attribute.type != onnx.AttributeProto.GRAPH for node in nodes for attribute in node.attribute)


def test_only_standard_operators_are_used(model):
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)] and OPSET == 20
    assert all(node.domain == "" for node in model.graph.node)


def test_crops_are_cast_before_anything_else_reads_their_bytes(graph):
    # TensorRT's parser refuses to transpose uint8. Shape reads the number of crops, not their bytes.
    readers = [node.op_type for node in graph.node if "crops" in node.input and node.op_type != "Shape"]
    assert readers == ["Cast"]


def test_weights_are_inside_the_file(model):
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in model.graph.initializer)


def test_facts_are_read_back_from_the_file(graph_file, graph, shared_bundle):
    facts = check(graph_file)
    assert facts.opset == 20 and facts.precision == "fp32" and facts.nodes == len(graph.node)
    assert facts.operators["Conv"] == sum(node.op_type == "Conv" for node in graph.node)
    recorded = json.loads((shared_bundle / "manifest.json").read_text())["graphs"][0]
    assert (recorded["opset"], recorded["precision"], recorded["nodes"]) == (20, "fp32", facts.nodes)


def test_half_precision_convolutions_are_read_back_as_mixed(model, tmp_path):
    graph = model.graph
    node = next(node for node in graph.node if node.op_type == "Conv")
    at = list(graph.node).index(node)
    for tensor in graph.initializer:
        if tensor.name in node.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    before = helper.make_node("Cast", [node.input[0]], ["half_in"], to=TensorProto.FLOAT16)
    after = helper.make_node("Cast", ["half_out"], [node.output[0]], to=F)
    node.input[0], node.output[0] = "half_in", "half_out"
    graph.node.insert(at + 1, after)
    graph.node.insert(at, before)
    del graph.value_info[:]
    onnx.save(model, tmp_path / "half.onnx")
    assert check(tmp_path / "half.onnx").precision == "mixed"


def refused(model, tmp_path, *words):
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    with pytest.raises(ExportError) as error:
        check(path)
    for word in words:
        assert word in str(error.value), str(error.value)


def branch(name, value):
    tensor = helper.make_tensor("value", F, [], [value])
    node = helper.make_node("Constant", [], [name], value=tensor)
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, F, [])])


def forbidden_node(operator):
    if operator == "If":
        return helper.make_node("If", ["yes"], ["unused"], then_branch=branch("then", 1.0), else_branch=branch("else", 2.0))
    if operator == "Loop":
        scalar = helper.make_tensor_value_info
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["turn"], ["kept"])],
            "body",
            [scalar("turn", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, [])],
            [scalar("on", TensorProto.BOOL, []), scalar("kept", TensorProto.INT64, [])],
        )
        return helper.make_node("Loop", ["three", "yes"], ["unused"], body=body)
    if operator == "Compress":
        return helper.make_node("Compress", ["cameras", "some"], ["unused"], axis=0)
    return helper.make_node(operator, ["rotations" if operator == "Det" else "cameras"], ["unused"])


def with_node(model, node):
    model.graph.initializer.extend(
        [
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("three", TensorProto.INT64, [], [3]),
            helper.make_tensor("some", TensorProto.BOOL, [1], [True]),
        ]
    )
    model.graph.node.append(node)
    return model


@pytest.mark.parametrize("operator", ["If", "Loop", "NonZero", "Det", "Unique", "Compress"])
def test_operators_that_deployment_forbids_are_refused_by_name(model, tmp_path, operator):
    refused(with_node(model, forbidden_node(operator)), tmp_path, "cannot be deployed", operator)


def test_a_harmless_node_more_is_not_refused(model, tmp_path):
    onnx.save(with_node(model, helper.make_node("Identity", ["cameras"], ["unused"])), tmp_path / "more.onnx")
    assert check(tmp_path / "more.onnx").operators["Identity"] == 1


def test_forbidden_operators_inside_functions_are_refused_too(model, tmp_path):
    function = helper.make_function(
        "local", "Hidden", ["x"], ["y"], [helper.make_node("NonZero", ["x"], ["y"])], model.opset_import
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    refused(with_node(model, helper.make_node("Hidden", ["cameras"], ["unused"], domain="local")), tmp_path, "NonZero")


def rename(model, old, new):
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in (*model.graph.output, *model.graph.input):
        if value.name == old:
            value.name = new


def drop_last_output(model):
    del model.graph.output[-1]


def exchange_outputs(model):
    first, second = (onnx.ValueInfoProto() for _ in range(2))
    first.CopyFrom(model.graph.output[0])
    second.CopyFrom(model.graph.output[1])
    model.graph.output[0].CopyFrom(second)
    model.graph.output[1].CopyFrom(first)


def double_betas(model):
    rename(model, "betas", "single_betas")
    model.graph.node.append(helper.make_node("Cast", ["single_betas"], ["betas"], to=TensorProto.DOUBLE))
    model.graph.output[4].CopyFrom(helper.make_tensor_value_info("betas", TensorProto.DOUBLE, ["N", 10]))


def confidence_as_column(model):
    rename(model, "confidence", "flat")
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    model.graph.node.append(helper.make_node("Unsqueeze", ["flat", "one"], ["confidence"]))
    model.graph.output[6].CopyFrom(helper.make_tensor_value_info("confidence", F, ["N", 1]))


@pytest.mark.parametrize(
    "change, word",
    [
        pytest.param(lambda model: rename(model, "joints", "points"), "points", id="output renamed"),
        pytest.param(lambda model: rename(model, "crops", "images"), "images", id="input renamed"),
        pytest.param(drop_last_output, "vertices", id="output missing"),
        pytest.param(exchange_outputs, "vertices", id="outputs exchanged"),
        pytest.param(double_betas, "float64", id="output of another type"),
        pytest.param(confidence_as_column, "confidence", id="output of another rank"),
    ],
)
def test_other_inputs_or_outputs_are_refused(model, tmp_path, change, word):
    change(model)
    refused(model, tmp_path, "other inputs or outputs", word)


def test_invalid_onnx_is_refused(model, tmp_path):
    model.graph.node.append(helper.make_node("Relu", ["nobody_computes_this"], ["unused"]))
    refused(model, tmp_path, "not valid ONNX", "nobody_computes_this")


def test_shapes_that_do_not_fit_are_refused(model, tmp_path):
    model.graph.initializer.extend(
        [helper.make_tensor("two", F, [2], [1, 2]), helper.make_tensor("trio", F, [3], [1, 2, 3])]
    )
    model.graph.node.append(helper.make_node("Add", ["two", "trio"], ["unused"]))
    refused(model, tmp_path, "not valid ONNX")


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    (tmp_path / "none.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="not valid ONNX"):
        check(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "failure, why",
    [
        (RuntimeError("first line\nsecond line"), "first line"),
        (ValueError("the words"), "the words"),
        (torch.onnx.OnnxExporterError("exporter's words"), "exporter's words"),
        (RuntimeError(), ""),
    ],
)
def test_failure_of_the_tracer_is_an_export_error_and_leaves_the_module_alone(
    small_recovery, tmp_path, monkeypatch, failure, why
):
    def fail(*_, **__):
        assert small_recovery.network.local_encoding.sample is not sample_by_grid
        raise failure

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match="not traced") as error:
        trace(small_recovery, tmp_path / "model.onnx")
    assert error.value.why.startswith(why) and "constraints.txt" in error.value.fix
    assert small_recovery.network.local_encoding.sample is sample_by_grid
    assert not list(tmp_path.iterdir())
