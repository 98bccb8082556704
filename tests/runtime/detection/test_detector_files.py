"""Files that are no detectors, or hostile ones: refused with what was found and what is known, never with a traceback."""

import os
import sys

import numpy as np
import onnx
import pytest
from detector_graphs import FLOAT, INT64, constant_graph
from onnx import TensorProto, helper

from glnet_infer import BackendError, GlnetError, InputError, forks
from glnet_infer.detection import onnx_file, open_detector
from glnet_infer.detection.nanodet import WEIGHTS
from glnet_infer.onnx_files import MOST_NODES, OnnxContent

IMAGE = np.zeros((48, 64, 3), np.uint8)
SQUARE = (FLOAT, [1, 3, 64, 64])
QUERIES = {"dets": np.full((1, 9, 4), 0.5, np.float32), "labels": np.zeros((1, 9, 91), np.float32)}


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    "inputs, outputs, found",
    [
        ({"data": SQUARE}, {"out": zeros(1, 100, 7)}, "data 1 x 3 x 64 x 64"),
        ({"images": SQUARE}, {"output0": zeros(1, 252, 85)}, "output0 1 x 252 x 85"),  # three anchors a cell: YOLOv5
        ({"images": SQUARE}, {"output": zeros(1, 84, 5)}, "output 1 x 84 x 5"),
        ({"images": SQUARE}, {"output0": zeros(2, 300, 6)}, "output0 2 x 300 x 6"),
        ({"data": SQUARE}, {"output": zeros(1, 84, 112)}, "output 1 x 84 x 112"),  # NanoDet's own export
        ({"pixel_values": SQUARE}, {"logits": zeros(1, 100, 92), "pred_boxes": zeros(1, 100, 4)}, "100 x 92"),  # DETR
        ({"input": SQUARE}, {"dets": zeros(1, 9, 4), "labels": zeros(1, 8, 91)}, "labels 1 x 8 x 91"),
        ({"input": SQUARE}, {"dets": zeros(1, 9, 5), "boxes": zeros(1, 9)}, "dets 1 x 9 x 5"),
        ({"images": (FLOAT, [1, 64, 64, 3])}, {"output0": zeros(1, 300, 6)}, "images 1 x 64 x 64 x 3"),
        ({"images": (FLOAT, [1, 1, 64, 64])}, {"output0": zeros(1, 300, 6)}, "images 1 x 1 x 64 x 64"),
        ({"images": (FLOAT, [8, 3, 64, 64])}, {"output0": zeros(8, 300, 6)}, "images 8 x 3 x 64 x 64"),
        ({"images": (FLOAT, [1, 3, 9999, 64])}, {"output0": zeros(1, 300, 6)}, "9999 x 64 pixels"),
        ({"images": (TensorProto.UINT8, [1, 3, 64, 64])}, {"output0": zeros(1, 300, 6)}, "tensor(uint8)"),
        ({"images": (TensorProto.STRING, [1])}, {"output0": zeros(1, 300, 6)}, "tensor(string)"),
        ({"images": SQUARE, "scale": (FLOAT, [1])}, {"output0": zeros(1, 300, 6)}, "scale 1"),
        ({"images": SQUARE, "orig_target_sizes": (INT64, [1, 2])}, {"output0": zeros(1, 300, 6)}, "orig_target_sizes"),
        ({"images": SQUARE}, {"labels": zeros(1, 9), "boxes": zeros(1, 9, 4), "scores": zeros(1, 9)}, "boxes 1 x 9 x 4"),
        ({}, {"output0": zeros(1, 300, 6)}, "nothing"),
    ],
)
def test_a_layout_of_no_family_is_refused_with_what_was_found_and_what_is_known(fabricate, inputs, outputs, found):
    with pytest.raises(InputError, match="is not a detector of a family that is known") as error:
        open_detector(fabricate(inputs, outputs))
    assert found in error.value.why
    assert all(known in error.value.fix for known in ("rfdetr (RF-DETR)", "rtdetr", "end2end (YOLOv10, YOLO26)"))


def test_a_family_that_does_not_fit_is_not_forced(fabricate):
    path = fabricate({"input": SQUARE}, QUERIES)
    with pytest.raises(InputError, match="of the family yolox") as error:
        open_detector(f"{path}:yolox")
    assert "dets 1 x 9 x 4" in error.value.why and "output 1 x N x C" in error.value.fix
    with pytest.raises(InputError, match="no family of detectors 'yolo'") as error:
        open_detector(f"{path}:yolo")
    assert "yolox" in error.value.fix


def test_files_that_are_not_there(tmp_path):
    for path, why in ((tmp_path / "none.onnx", "No such file"), (tmp_path, "directory")):
        with pytest.raises(InputError) as error:
            open_detector(str(path) if path.suffix else onnx_path(path))
        assert why in error.value.why


def onnx_path(folder):
    (folder / "folder.onnx").mkdir()
    return folder / "folder.onnx"


def test_a_file_beyond_what_onnx_can_be_is_not_read(tmp_path):
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(onnx_file.LARGEST_FILE + 1)  # takes no room
    with pytest.raises(InputError, match="was not read") as error:
        open_detector(tmp_path / "large.onnx")
    assert str(onnx_file.LARGEST_FILE) in error.value.why


def test_a_file_that_breaks_off_anywhere_is_refused(tmp_path):
    content = constant_graph({"input": SQUARE}, {"dets": zeros(1, 2, 4), "labels": zeros(1, 2, 3)}).SerializeToString()
    path = tmp_path / "short.onnx"
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            open_detector(path)


def test_damaged_bytes_are_refused_or_do_no_harm(tmp_path):
    content = constant_graph({"input": SQUARE}, {"dets": zeros(1, 2, 4), "labels": zeros(1, 2, 3)}).SerializeToString()
    rng, path = np.random.default_rng(6), tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            open_detector(path)(IMAGE)
        except GlnetError:
            refused += 1
    assert refused > 100


def outside(**fields):
    tensor = TensorProto(name="outside", data_type=FLOAT, dims=[1], **fields)
    if "data_location" not in fields:
        tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def model(nodes=(), initializers=(), functions=(), sparse=()):
    graph = helper.make_graph(nodes, "g", [], [], initializers, sparse_initializer=sparse)
    return helper.make_model(graph, functions=functions)


def constant(tensor):
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branches(depth):
    inner = [constant(outside())]
    for _ in range(depth):
        graph = helper.make_graph(inner, "branch", [], [])
        inner = [helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)]
    return inner


SPARSE = helper.make_sparse_tensor(outside(), helper.make_tensor("i", INT64, [1], [0]), [4])
FUNCTION = helper.make_function("local", "f", [], ["c"], [constant(outside())], [helper.make_opsetid("", 17)])
TENSORS = helper.make_node(
    "Thing", [], ["c"], domain="local", tensors=[helper.make_tensor("t", FLOAT, [1], [0.0]), outside()]
)
GRAPHS = helper.make_node("Thing", [], ["c"], graphs=[helper.make_graph([constant(outside())], "g", [], [])])


@pytest.mark.parametrize(
    "hostile",
    [
        model(initializers=[outside()]),
        model(initializers=[outside(data_location=TensorProto.EXTERNAL)]),
        model([constant(outside())]),
        model([TENSORS]),
        model([GRAPHS]),
        model(branches(1)),
        model(branches(8)),
        model(functions=[FUNCTION]),
        model(sparse=[SPARSE]),
        model([helper.make_node("Constant", [], ["c"], sparse_value=SPARSE)]),
    ],
    ids=[
        "initializer",
        "location",
        "constant",
        "tensors",
        "graphs",
        "branch",
        "branches",
        "function",
        "sparse",
        "sparse-constant",
    ],
)
def test_weights_in_other_files_are_refused_before_they_are_loaded(tmp_path, monkeypatch, hostile):
    assert OnnxContent.of(hostile.SerializeToString()).names_other_files
    (tmp_path / "hostile.onnx").write_bytes(hostile.SerializeToString())
    monkeypatch.setattr(onnx_file, "open_session", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(InputError) as error:
        open_detector(tmp_path / "hostile.onnx")
    assert "other files" in error.value.why and "one ONNX file" in error.value.fix


def test_an_honest_file_names_no_others():
    assert not OnnxContent.of(WEIGHTS.read_bytes()).problem()
    everything = onnx.load(WEIGHTS)
    everything.graph.initializer[-1].external_data.add(key="location", value="x")
    assert OnnxContent.of(everything.SerializeToString()).names_other_files


def looping(operator):
    """A detector with an operator that holds a graph; its answer does not depend on it."""
    found = constant_graph({"input": SQUARE}, QUERIES)
    body = helper.make_graph([helper.make_node("Identity", ["dets_value"], ["inner"])], "body", [], [])
    holder = helper.make_node(operator, ["dets_value"], ["unused"], body=body)
    found.graph.node.append(holder)
    return found


@pytest.mark.parametrize("operator", ["Loop", "Scan", "SequenceMap"])
@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_loops_are_refused_before_they_can_run(tmp_path, monkeypatch, operator, place):
    found = looping(operator)
    loop = found.graph.node.pop()
    if place == "graph":
        found.graph.node.append(loop)
    elif place == "branch":
        inside = helper.make_graph([loop], "inside", [], [])
        found.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inside, else_branch=inside))
    else:
        found.functions.append(helper.make_function("own", "f", [], [], [loop], [helper.make_opsetid("", 17)]))
    (tmp_path / "endless.onnx").write_bytes(found.SerializeToString())
    monkeypatch.setattr(onnx_file, "open_session", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match="is not an ONNX file that is taken") as error:
        open_detector(tmp_path / "endless.onnx")
    assert operator in error.value.why and "without loops" in error.value.fix


def test_a_detector_with_branches_is_taken(tmp_path):
    # Exporters write one where a dimension may be 1.
    found = constant_graph({"input": SQUARE}, QUERIES)
    found.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["dets_value"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    del found.graph.node[0]
    found.graph.node.append(helper.make_node("If", ["yes"], ["dets"], then_branch=branch, else_branch=branch))
    onnx.save(found, tmp_path / "branches.onnx")
    assert len(open_detector(tmp_path / "branches.onnx", threshold=0.1)(IMAGE)) > 0


def nested_functions(depth, closed=False):
    """Functions that each call the next one twice; the last one the first, where it is closed."""
    functions = []
    for place in range(depth):
        called = f"f{place + 1}" if place + 1 < depth else "f0" if closed else "Neg"
        domain = "own" if called.startswith("f") else ""
        calls = [helper.make_node(called, ["x"], [name], domain=domain) for name in ("y", "z")]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{place}", ["x"], ["y"], calls, opsets))
    start = helper.make_node("f0", ["x"], ["y"], domain="own")
    return helper.make_model(helper.make_graph([start], "g", [], []), functions=functions)


def test_functions_are_counted_where_they_are_called(tmp_path):
    assert OnnxContent.of(nested_functions(5).SerializeToString()).nodes == 2**5
    for endless in (nested_functions(40), nested_functions(3, closed=True)):
        assert OnnxContent.of(endless.SerializeToString()).nodes == MOST_NODES + 1
        (tmp_path / "unfolding.onnx").write_bytes(endless.SerializeToString())
        with pytest.raises(InputError) as error:
            open_detector(tmp_path / "unfolding.onnx")
        assert "unfolds" in error.value.why


def test_a_number_of_a_field_that_parsers_cut_off_is_refused():
    # 1 << 32 more is the same field to a parser of 32 bits, and another one to who keeps all bits.
    tensor = outside().SerializeToString()
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    key = (7 << 3 | 2) | 1 << 32
    hidden = bytes([key & 127 | 128, key >> 7 & 127 | 128, key >> 14 & 127 | 128, key >> 21 & 127 | 128, key >> 28])
    with pytest.raises(ValueError, match="too large"):
        OnnxContent.of(hidden + bytes([len(graph)]) + graph)


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="was not read"):
        open_detector(tmp_path / "pipe.onnx")


def test_a_graph_that_fails_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["output0"])],
        "g",
        [helper.make_tensor_value_info("images", FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("output0", FLOAT, None)],
        [helper.make_tensor("shape", INT64, [2], [7, 7])],
    )
    path = tmp_path / "failing.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InputError, match="ONNX Runtime does not run") as error:
        open_detector(path)
    assert error.value.why


def test_a_detector_that_changes_its_mind_or_fails_says_so(fabricate, monkeypatch):
    detector = open_detector(fabricate({"input": SQUARE}, QUERIES))
    monkeypatch.setattr(detector, "_run", lambda tensor, size: {"dets": zeros(1, 9, 5), "labels": QUERIES["labels"]})
    with pytest.raises(BackendError, match="other shapes than before") as error:
        detector(IMAGE)
    assert "dets 1 x 9 x 5" in error.value.why

    def broken(tensor, size):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(detector, "_run", broken)
    with pytest.raises(BackendError, match="failed"):
        detector(IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_boxes_and_scores_that_are_no_numbers_are_nobody(fabricate, value):
    boxes, logits = QUERIES["dets"].copy(), np.full((1, 9, 91), -9, np.float32)
    boxes[0, 0], logits[0, :2, 1] = value, 9
    boxes[0, 1] = [0.5, 0.5, 3, 3]
    logits[0, 2] = value if value != 1e30 else np.nan
    found = open_detector(fabricate({"input": SQUARE}, {"dets": boxes, "labels": logits}))(IMAGE)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all() and (sides >= 2).all()
    assert [0, 0, 64, 48] in found.boxes.tolist()  # cut off at the image's edge


def test_without_onnx_runtime_it_says_what_to_install(fabricate, monkeypatch):
    path = fabricate({"input": SQUARE}, QUERIES)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="ONNX Runtime is not installed"):
        open_detector(path)


def test_a_forked_child_is_refused(fabricate, monkeypatch):
    detector = open_detector(fabricate({"input": SQUARE}, QUERIES))
    detector(IMAGE)
    monkeypatch.setattr(forks.os, "getpid", lambda: -1)
    with pytest.raises(BackendError, match="opened in another process") as error:
        detector(IMAGE)
    assert "after the fork" in error.value.fix


def test_threads_are_passed_on(fabricate):
    detector = open_detector(fabricate({"input": SQUARE}, QUERIES), threads=1)
    assert detector._session.get_session_options().intra_op_num_threads == 1
