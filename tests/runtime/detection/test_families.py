"""Detectors of every known family: fabricated graphs, whose boxes are known, and what they are fed."""

from pathlib import Path

import numpy as np
import pytest
from detector_graphs import FLOAT, HALF, INT32, INT64, constant_graph
from onnx import helper

from glnet_infer.detection import open_detector
from glnet_infer.detection.families import FAMILIES
from glnet_infer.detection.framing import Framed

WIDTH, HEIGHT = 1203, 797
PERSONS = np.array([[639.25, 30, 955, 736.5], [12, 400.75, 130, 790]])
SCORES = np.array([0.9, 0.55])
DOG, DOUBTFUL = [600, 300, 700, 420], [40, 40, 90, 160]
PIXELS = 1e-3
"""Float32 holds coordinates of a thousand pixels to 6e-5; logarithms of YOLOX's sides, up to 4, make 3e-4 of them."""

BOXES = np.array([DOG, PERSONS[1], DOUBTFUL, PERSONS[0]], float)
BOX_SCORES = np.array([0.95, SCORES[1], 0.2, SCORES[0]])
CLASSES = np.array([16, 0, 0, 0])


def centres(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def logit(probability):
    return np.log(probability / (1 - probability))


def on_canvas(width, height, centred=False, rounded=int):
    """The boxes in pixels of an input, where the image keeps its proportions."""
    ratio = min(width / WIDTH, height / HEIGHT)
    inner = np.array([rounded(WIDTH * ratio), rounded(HEIGHT * ratio)])
    corner = (np.array([width, height]) - inner) // 2 if centred else np.zeros(2)
    return BOXES * np.tile(inner / [WIDTH, HEIGHT], 2) + np.tile(corner, 2)


def queries(classes, person=0, count=300):
    """Relative boxes 1 x N x 4 and logits 1 x N x C, the boxes at some of the places."""
    places, boxes = [7, 100, 200, count - 1], np.full((1, count, 4), 0.1, np.float32)
    logits = np.full((1, count, classes), -9, np.float32)
    boxes[0, places] = centres(BOXES) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    logits[0, places, np.where(CLASSES == 0, person, 16)] = logit(BOX_SCORES)
    return boxes, logits


def rfdetr(side=384, classes=91):
    boxes, logits = queries(classes, person=1 if classes == 91 else 0)
    return {"input": (FLOAT, [1, 3, side, side])}, {"dets": boxes, "labels": logits}


def rtdetr(size_type=INT64, first="images"):
    labels, boxes, scores = np.full((1, 300), 5), np.zeros((1, 300, 4), np.float32), np.zeros((1, 300), np.float32)
    labels[0, 3:7], boxes[0, 3:7], scores[0, 3:7] = CLASSES, BOXES, BOX_SCORES
    inputs = {first: (FLOAT, ["N", 3, 640, 640]), "orig_target_sizes": (size_type, ["N", 2])}
    return inputs, {"labels": labels, "boxes": boxes, "scores": scores}


def detr():
    boxes, logits = queries(80)
    inputs = {"pixel_values": (FLOAT, ["batch", 3, "height", "width"])}
    return inputs, {"logits": logits, "pred_boxes": boxes, "last_hidden_state": np.zeros((1, 300, 256), np.float32)}


def yolox(width=640, height=640, classes=80):
    boxes, rows = centres(on_canvas(width, height)), []
    counts = [(height // stride) * (width // stride) for stride in (8, 16, 32)]
    raw = np.zeros((1, sum(counts), 5 + classes), np.float32)
    for number, (x, y, wide, tall) in enumerate(boxes):
        level = number % 3  # each grid has its turn
        stride = (8, 16, 32)[level]
        column, row = int(x // stride), int(y // stride)
        cell = sum(counts[:level]) + row * (width // stride) + column
        raw[0, cell, :4] = x / stride - column, y / stride - row, np.log(wide / stride), np.log(tall / stride)
        raw[0, cell, 4] = np.sqrt(BOX_SCORES[number])
        raw[0, cell, 5 + CLASSES[number] % classes] = np.sqrt(BOX_SCORES[number]) * (classes > 1 or CLASSES[number] == 0)
        rows.append(cell)
    assert len(set(rows)) == len(boxes)
    return {"images": (FLOAT, [1, 3, height, width])}, {"output": raw}


def mmdeploy():
    rows = np.concatenate([on_canvas(640, 640), BOX_SCORES[:, None]], axis=1)
    outputs = {"dets": rows[None].astype(np.float32), "labels": CLASSES[None].astype(np.int64)}
    return {"input": (FLOAT, ["batch", 3, 640, 640])}, outputs


def ultralytics(type_=FLOAT):
    columns = np.zeros((1, 84, 8400), np.float32)
    places = [5, 5000, 8000, 8399]
    columns[0, :4, places] = centres(on_canvas(640, 640, centred=True, rounded=round))
    columns[0, 4 + CLASSES, places] = BOX_SCORES
    return {"images": (type_, [1, 3, 640, 640])}, {"output0": columns}


def end2end():
    rows = np.zeros((1, 300, 6), np.float32)
    boxes = on_canvas(640, 640, centred=True, rounded=round)
    rows[0, :4] = np.concatenate([boxes, BOX_SCORES[:, None], CLASSES[:, None]], axis=1)
    return {"images": (FLOAT, [1, 3, 640, 640])}, {"output0": rows}


MADE = {
    "rfdetr": rfdetr(),
    "rtdetr": rtdetr(),
    "detr": detr(),
    "yolox": yolox(),
    "mmdeploy": mmdeploy(),
    "ultralytics": ultralytics(),
    "end2end": end2end(),
}


@pytest.fixture
def image():
    return np.random.default_rng(4).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def finds_the_persons(detector, image, scores=SCORES):
    found = detector(image)
    assert found.boxes.dtype == np.float64 and found.scores.dtype == np.float32
    np.testing.assert_allclose(found.boxes, PERSONS, atol=PIXELS, rtol=0)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)


@pytest.mark.parametrize("family", MADE)
def test_the_persons_of_every_family_are_read(fabricate, image, family):
    detector = open_detector(fabricate(*MADE[family]))
    assert detector.family.name == family and family in repr(detector)
    finds_the_persons(detector, image)


@pytest.mark.parametrize("family", MADE)
def test_the_threshold_decides_who_counts(fabricate, image, family):
    path = fabricate(*MADE[family])
    assert [len(open_detector(path, threshold=threshold)(image)) for threshold in (0.1, 0.5, 0.6)] == [3, 2, 1]


@pytest.mark.parametrize(
    "family, made",
    [
        ("rfdetr", rfdetr(side=560)),
        ("rfdetr", rfdetr(classes=20)),  # fine-tuned: counted from 0
        ("rtdetr", rtdetr(size_type=INT32)),
        ("yolox", yolox(width=416, height=416)),
        ("yolox", yolox(width=640, height=384)),
        ("yolox", yolox(classes=1)),
        ("ultralytics", ultralytics(type_=HALF)),
    ],
)
def test_files_of_a_family_differ(fabricate, image, family, made):
    detector = open_detector(fabricate(*made))
    assert detector.family.name == family
    finds_the_persons(detector, image)


def test_a_family_is_forced_where_names_differ(fabricate, image):
    inputs, outputs = ultralytics()
    path = fabricate({"x": inputs["images"]}, {"y": outputs["output0"]})
    finds_the_persons(open_detector(f"{path}:ultralytics"), image)
    inputs, outputs = rtdetr(first="picture")
    outputs = {"a": outputs["scores"], "b": outputs["boxes"], "labels": outputs["labels"]}
    renamed = fabricate(inputs, {"labels": outputs["labels"], "scores": outputs["a"], "found": outputs["b"]})
    finds_the_persons(open_detector(f"{renamed}:rtdetr"), image)


@pytest.mark.parametrize("forced, like", [("deimv2", "rtdetr"), ("rtmdet", "mmdeploy")])
def test_files_that_look_like_others_are_named(fabricate, image, forced, like):
    path = fabricate(*MADE[like])
    assert open_detector(path).family.name == like
    detector = open_detector(f"{path}:{forced}")
    assert detector.family.name == forced
    finds_the_persons(detector, image)


def test_rtdetr_is_told_the_width_before_its_height(tmp_path, image):
    """RT-DETR scales relative boxes itself: here by a graph that does so too."""
    inputs, outputs = rtdetr()
    outputs["boxes"] = (outputs["boxes"] / [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
    model = constant_graph(inputs, outputs)
    for node in model.graph.node:
        if node.output[0] == "boxes":
            node.output[0] = "relative"
    scale = [
        helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=FLOAT),
        helper.make_node("Concat", ["size", "size"], ["sides"], axis=1),
        helper.make_node("Mul", ["relative", "sides"], ["boxes"]),
    ]
    model.graph.node.extend(scale)
    (tmp_path / "scaling.onnx").write_bytes(model.SerializeToString())
    finds_the_persons(open_detector(tmp_path / "scaling.onnx"), image)


@pytest.mark.parametrize("family", ["yolox", "ultralytics"])
def test_one_person_has_one_box(fabricate, image, family):
    inputs, outputs = {"yolox": yolox, "ultralytics": ultralytics}[family]()
    if family == "ultralytics":
        columns = outputs["output0"][0]
        columns[:, 6000], columns[:, 7000] = columns[:, 5000], columns[:, 5000]
        columns[:4, 6000] += 2
        columns[4, 6000] -= 0.1
    else:
        rows = outputs["output"][0]
        sure = int(np.flatnonzero(rows[:, 4] * rows[:, 5] > 0.8)[0])
        rows[sure + 1] = rows[sure] * [1, 1, 1, 1, 0.8, *[1] * 80]  # the neighbour's, a cell to the right
        rows[sure + 1, 0] -= 1
    finds_the_persons(open_detector(fabricate(inputs, outputs)), image)


# A picture of one colour: blue 10, green 100, red 200. Its channels as the network gets them, and what is beside it.
IMAGENET = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (10 / 255 - 0.406) / 0.225]
RGB, BGR, GREY = [200 / 255, 100 / 255, 10 / 255], [10, 100, 200], [114 / 255] * 3
FED = {
    "rfdetr": (IMAGENET, None),
    "rtdetr": (RGB, None),
    "deimv2": (IMAGENET, None),
    "detr": (RGB, None),
    "yolox": (BGR, [114] * 3),
    "mmdeploy": (BGR, [114] * 3),
    "rtmdet": (
        [(10 - 103.53) / 57.375, (100 - 116.28) / 57.12, (200 - 123.675) / 58.395],
        [(114 - 103.53) / 57.375, (114 - 116.28) / 57.12, (114 - 123.675) / 58.395],
    ),
    "ultralytics": (RGB, GREY),
    "end2end": (RGB, GREY),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_colours_are_fed_as_the_family_was_trained(name):
    inside, beside = FED[name]
    family = FAMILIES[name]
    framed = family.frame(np.full((100, 200, 3), [10, 100, 200], np.uint8), 320, 320)
    tensor = family.tensor(framed)
    assert tensor.shape == (1, 3, 320, 320) and tensor.dtype == np.float32 and tensor.flags.c_contiguous
    centred = name in ("ultralytics", "end2end")
    picture = tensor[0, :, 85:235] if centred else tensor[0] if beside is None else tensor[0, :, :155]
    np.testing.assert_allclose(picture, np.broadcast_to(np.array(inside)[:, None, None], picture.shape), atol=2e-5)
    if beside is not None:
        for edge in (tensor[0, :, :70] if centred else tensor[0, :, 165:], tensor[0, :, 250:]):
            np.testing.assert_allclose(edge, np.broadcast_to(np.array(beside)[:, None, None], edge.shape), atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("width, height", [(1203, 797), (333, 999), (31, 640)])
def test_what_is_seen_on_the_canvas_lies_there_in_the_image(name, width, height):
    image = np.zeros((height, width, 3), np.uint8)
    box = [width // 4, height // 5, 3 * width // 4, 4 * height // 5]
    image[box[1] : box[3], box[0] : box[2]] = 255
    framed = FAMILIES[name].frame(image, 640, 512)
    assert isinstance(framed, Framed) and framed.canvas.shape == (512, 640, 3)
    rows, columns = (np.flatnonzero((framed.canvas[..., 0] > 127).any(axis)) for axis in (1, 0))
    seen = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
    tolerance = 0.5 / np.tile(framed.scale, 2) + 0.5  # half a pixel of the canvas and of the image: edges are whole pixels
    assert (np.abs(framed.to_image(seen) - box) <= tolerance).all()


def test_the_manual_names_every_family():
    manual = (Path(__file__).parents[3] / "docs" / "detectors.md").read_text(encoding="utf-8")
    for family in FAMILIES.values():
        (row,) = (line for line in manual.splitlines() if line.startswith(f"| `{family.name}` |"))
        assert ("only by its name" in row) == family.forced
