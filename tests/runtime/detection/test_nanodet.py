"""The detector that is shipped: the persons that it finds, its decoding, threads, forks and files."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from rendered_crowds import crowds, overlaps

from glnet_infer import BackendError, InputError
from glnet_infer.detection import Detections, open_detector
from glnet_infer.detection.nanodet import WEIGHTS, NanoDet


@pytest.fixture(scope="module")
def detector():
    return open_detector("nanodet")


@pytest.fixture(scope="module")
def found(detector, photograph):
    return detector(photograph)


def test_both_players_are_found(found, person_boxes):
    assert len(found) == 2 and (overlaps(person_boxes, found.boxes).max(1) >= 0.9).all()
    assert found.boxes.dtype == np.float64 and found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all() and (found.scores >= 0.4).all()


def test_rendered_crowds_are_found(detector, demo_body):
    hits = persons = others = 0
    for picture, boxes in crowds(demo_body):
        same = overlaps(boxes, detector(picture).boxes) >= 0.5
        hits += same.any(1).sum()
        others += (~same.any(0)).sum()
        persons += len(boxes)
    assert persons == 80
    assert hits >= 0.9 * persons and others <= 0.1 * persons


def test_players_of_a_tenth_of_the_image_are_found_and_smaller_ones_lost(detector, photograph, person_boxes):
    for share, count in ((0.2, 2), (0.1, 0)):
        small = cv2.resize(photograph, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        image = np.full_like(photograph, 114)
        image[200 : 200 + small.shape[0], 300 : 300 + small.shape[1]] = small
        found = detector(image)
        assert len(found) == count
        if count:
            same = overlaps(np.array(person_boxes) * share + [300, 200, 300, 200], found.boxes) >= 0.7
            assert same.any(1).all()


def test_it_decodes_as_the_definition_says(found, photograph):
    """The same file by ONNX Runtime, cell by cell from NanoDet's definition, duplicates left out one by one."""
    height, width = photograph.shape[:2]
    scale = 416 / width
    canvas = np.zeros((288, 416, 3), np.float32)  # 277 rows are used, and the coarsest grid has cells of 32
    canvas[: round(height * scale)] = cv2.resize(photograph, (416, round(height * scale)), interpolation=cv2.INTER_AREA)
    canvas = (canvas - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    model = onnx.load(WEIGHTS)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 288
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {"input_1:0": canvas.transpose(2, 0, 1)[None].astype(np.float32)}
    outputs = dict(zip(names, session.run(names, feeds), strict=True))
    candidates = []
    for stride, classes, bins in ((8, "", "_3"), (16, "_1", "_4"), (32, "_2", "_5")):
        side = 416 // stride
        for cell, scores in enumerate(outputs[f"Identity{classes}:0"][0]):
            if scores[0] < 0.4:
                continue
            x, y = (cell % side + 0.5) * stride, (cell // side + 0.5) * stride
            reach = []
            for logits in np.split(outputs[f"Identity{bins}:0"][0, cell].astype(float), 4):
                shares = np.exp(logits) / np.exp(logits).sum()
                reach.append(sum(share * number for number, share in enumerate(shares)) * stride)
            scales = np.array([scale, round(height * scale) / height] * 2)
            box = np.array([x - reach[0], y - reach[1], x + reach[2], y + reach[3]]) / scales
            candidates.append((scores[0], box))
    kept = []
    for score, box in sorted(candidates, key=lambda each: -each[0]):
        sides = [np.clip(np.minimum(box, other)[2:] - np.maximum(box, other)[:2], 0, None) for _, other in kept]
        areas = [np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) for _, other in kept]
        if all(np.prod(side) / (area - np.prod(side)) <= 0.6 for side, area in zip(sides, areas, strict=True)):
            kept.append((score, box))
    assert len(candidates) > len(kept) == len(found)
    # Two libraries' sums: scores differ by 4e-5 at most, boxes by about that share of their sides.
    np.testing.assert_allclose(found.scores, [score for score, _ in kept], atol=2e-4)
    np.testing.assert_allclose(found.boxes, [box for _, box in kept], atol=0.2)


@pytest.mark.parametrize(("width", "height"), [(1600, 400), (1280, 720), (900, 900), (450, 800), (300, 900)])
def test_persons_are_found_whatever_the_shape_of_the_picture(detector, photograph, person_boxes, width, height):
    """The photograph in a corner of pictures of other shapes."""
    scale = min(width / photograph.shape[1], height / photograph.shape[0])
    small = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = np.full((height, width, 3), 114, np.uint8)
    picture[-small.shape[0] :, -small.shape[1] :] = small
    corner = [width - small.shape[1], height - small.shape[0]] * 2
    found = detector(picture)
    assert len(found) == 2
    assert (overlaps(np.array(person_boxes) * scale + corner, found.boxes).max(1) >= 0.8).all()


def test_a_person_at_the_edge_has_a_box_inside(detector, photograph):
    cut = photograph[100:500, 750:]
    found = detector(cut)
    assert len(found) and (found.boxes >= 0).all() and (found.boxes <= [450, 400, 450, 400]).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (30, 900), (3000, 2), (720, 1280)])
def test_nobody_is_in_a_grey_image(detector, shape):
    found = detector(np.full((*shape, 3), 114, np.uint8))
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.scores.shape == (0,)
    assert found.boxes.dtype == np.float64 and found.scores.dtype == np.float32


def test_the_threshold_decides_who_counts(found, photograph):
    assert len(open_detector("nanodet", threshold=float(found.scores.mean()))(photograph)) == 1
    assert len(open_detector("nanodet", threshold=0.05)(photograph)) > 2
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="threshold"):
            open_detector("nanodet", threshold=threshold)


def test_the_best_are_the_surest():
    detections = Detections(np.arange(12.0).reshape(3, 4), np.array([0.5, 0.9, 0.7], np.float32))
    assert detections.best(2).scores.tolist() == pytest.approx([0.9, 0.7])
    assert detections.best(2).boxes.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(detections.best(None)) == 3


def test_the_image_is_checked_and_not_changed(detector, photograph):
    image = photograph.copy()
    image.setflags(write=False)
    detector(image)
    assert np.array_equal(image, photograph)
    with pytest.raises(InputError, match="grey"):
        detector(photograph[..., 0])


def test_threads_find_what_one_finds(detector, photograph):
    images = [photograph, photograph[:, ::-1].copy(), photograph[:600], photograph[:, :700]]
    expected = [detector(image) for image in images]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(expected * 2, pool.map(detector, images * 2), strict=True):
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.scores, other.scores)


CHILD = """
import os, sys, cv2
from glnet_infer.detection import open_detector
detector, image = open_detector("nanodet"), cv2.imread(sys.argv[1])
before = detector(image)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
after = detector(image)
assert (after.boxes == before.boxes).all() and len(after) == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_finds_the_same(photograph, tmp_path):
    cv2.imwrite(str(tmp_path / "photograph.png"), photograph)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "photograph.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)  # s
    assert done.returncode == 0, done.stderr


def test_a_changed_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "nanodet-g.onnx"
    with pytest.raises(BackendError, match="was not read"):
        NanoDet(weights=path)
    shutil.copy(WEIGHTS, path)
    NanoDet(weights=path)
    content = bytearray(path.read_bytes())
    content[5_000_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackendError, match="is not the file that came with this version") as error:
        NanoDet(weights=path)
    assert "install" in error.value.fix


def test_it_says_so_when_opencv_fails(detector, photograph, monkeypatch):
    class Broken:
        def setInput(self, tensor):  # noqa: N802 - OpenCV's name
            raise cv2.error("out of memory")

    broken = NanoDet()
    monkeypatch.setattr(broken._of_thread, "network", Broken())
    with pytest.raises(BackendError, match="nanodet failed"):
        broken(photograph)
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", Broken().setInput)
    with pytest.raises(BackendError, match="does not read the detector"):
        NanoDet()
