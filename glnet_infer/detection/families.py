"""The table of detector families: what each takes and gives, and how its persons are read.

The families are told apart by the names of their inputs and outputs and by the shapes that they give. Sources of the facts
are in docs/detectors.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glnet_infer.detection.framing import Framed, letterboxed, stretched

Arrays = Mapping[str, NDArray[np.float64]]
Found = tuple[NDArray[np.float64], NDArray[np.float64]]
Shape = tuple[int, ...]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET_255_BGR = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
STRIDES = (8, 16, 32)
"""Pixels between the middles of a grid's cells, for the grids of YOLO."""

_MOST_OUTPUTS = 6
"""Files with more are matched by names alone: their orders are too many to try."""

COCO_IDS = 91
"""Classes of networks that count as COCO's file does, from 1 to 90: a person is 1. Elsewhere a person is 0."""


@dataclass(frozen=True)
class Family:
    """Detectors with one kind of inputs and outputs.

    Attributes:
        name: The name that users force it by, ``FILE.onnx:name``.
        networks: Who exports such files, for messages.
        image: Name of the input that takes the image, N x 3 x H x W.
        outputs: Shapes of its outputs by name, without the batch. A letter is any size.
        read: Boxes N x 4 in image pixels and scores N, from the outputs of one image, without the batch.
        frame: Brings an image to the width and height of the input.
        sizes: Name of a second input, for the image's width and height; empty where there is none.
        rgb: Whether colours are red, green, blue; else blue, green, red.
        unit: Whether values are 0 to 1; else 0 to 255.
        normalised: Mean and standard deviation of the colours, in the input's order and unit.
        duplicates: Whether one person has several boxes.
        fits: Whether shapes fit that agree with ``outputs``, given the height and width of the input.
        forced: Whether it is used only where its name is given: nothing in the file tells it from another.
    """

    name: str
    networks: str
    image: str
    outputs: Mapping[str, tuple[int | str, ...]]
    read: Callable[[Arrays, Framed], Found]
    frame: Callable[[NDArray[np.uint8], int, int], Framed]
    sizes: str = ""
    rgb: bool = True
    unit: bool = True
    normalised: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    duplicates: bool = False
    fits: Callable[[Mapping[str, Shape], int, int], bool] = lambda shapes, height, width: True
    forced: bool = False

    def accepts(self, shapes: Mapping[str, Shape], height: int, width: int) -> bool:
        """Whether outputs of these shapes, without the batch, are a network's of this family.

        Args:
            shapes: Shapes by the names that this family has for them.
            height: Height of the network's input.
            width: Width of the network's input.
        """
        return all(_agrees(shapes[name], self.outputs[name]) for name in self.outputs) and self.fits(shapes, height, width)

    def names(self, shapes: Mapping[str, Shape], height: int, width: int, *, forced: bool) -> dict[str, str] | None:
        """A file's names of the outputs, by this family's names for them; None where the file does not fit.

        Args:
            shapes: Shapes of the file's outputs by its names, without the batch.
            height: Height of the file's input.
            width: Width of the file's input.
            forced: Whether the shapes are enough; else the names must be the same.
        """
        choices = [tuple(self.outputs)] if set(self.outputs) <= set(shapes) else []
        if forced and len(shapes) <= _MOST_OUTPUTS:
            choices += itertools.permutations(shapes, len(self.outputs))
        for choice in choices:
            names = dict(zip(self.outputs, choice, strict=True))
            if self.accepts({name: shapes[theirs] for name, theirs in names.items()}, height, width):
                return names
        return None

    def tensor(self, framed: Framed) -> NDArray[np.float32]:
        """The input for a framed image, 1 x 3 x H x W."""
        values = (framed.canvas[..., ::-1] if self.rgb else framed.canvas).astype(np.float32)
        if self.unit:
            values = values / np.float32(255)
        if self.normalised is not None:
            mean, deviation = (np.array(each, np.float32) for each in self.normalised)
            values = np.asarray((values - mean) / deviation, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])

    def __str__(self) -> str:
        inputs = " and ".join(filter(None, (self.image, self.sizes)))
        shapes = (f"{name} {' x '.join(map(str, ('1', *shape)))}" for name, shape in self.outputs.items())
        return f"{self.name} for {self.networks} ({inputs} to {', '.join(shapes)})"


def _agrees(found: Shape, wanted: tuple[int | str, ...]) -> bool:
    return len(found) == len(wanted) and all(isinstance(b, str) or a == b for a, b in zip(found, wanted, strict=True))


def cells(height: int, width: int) -> int:
    """Number of cells in the grids of an input."""
    return sum((height // stride) * (width // stride) for stride in STRIDES)


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """N x 4 corners, of centres and sides."""
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _of_persons(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of class 0; those of others are 0."""
    return np.where(labels == 0, scores, 0.0)


def _queries(boxes: str, logits: str) -> Callable[[Arrays, Framed], Found]:
    def read(outputs: Arrays, framed: Framed) -> Found:
        person = 1 if outputs[logits].shape[-1] == COCO_IDS else 0
        return _corners(outputs[boxes]) * (framed.size * 2), _sigmoid(outputs[logits][:, person])

    return read


def _read_pixels(outputs: Arrays, framed: Framed) -> Found:
    return outputs["boxes"], _of_persons(outputs["labels"], outputs["scores"])


def _read_yolox(outputs: Arrays, framed: Framed) -> Found:
    height, width = framed.canvas.shape[:2]
    grids = []
    for stride in STRIDES:
        columns, rows = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        grids.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=-1).reshape(-1, 3))
    grid = np.concatenate(grids)
    raw, strides = outputs["output"], grid[:, 2:]
    boxes = np.concatenate([(raw[:, :2] + grid[:, :2]) * strides, np.exp(raw[:, 2:4]) * strides], axis=1)
    return framed.to_image(_corners(boxes)), raw[:, 4] * raw[:, 5]


def _read_mmdeploy(outputs: Arrays, framed: Framed) -> Found:
    rows = outputs["dets"]
    return framed.to_image(rows[:, :4]), _of_persons(outputs["labels"], rows[:, 4])


def _read_ultralytics(outputs: Arrays, framed: Framed) -> Found:
    columns = outputs["output0"].T
    return framed.to_image(_corners(columns[:, :4])), columns[:, 4]


def _read_end_to_end(outputs: Arrays, framed: Framed) -> Found:
    rows = outputs["output0"]
    return framed.to_image(rows[:, :4]), _of_persons(rows[:, 5], rows[:, 4])


def _at_corner(image: NDArray[np.uint8], width: int, height: int) -> Framed:
    return letterboxed(image, width, height, pad=114, rounded=int)


def _in_middle(image: NDArray[np.uint8], width: int, height: int) -> Framed:
    return letterboxed(image, width, height, pad=114, centred=True)


_RTDETR = Family(
    "rtdetr",
    "RT-DETR, D-FINE, DEIM, DEIMv2 with HGNetv2",
    "images",
    {"labels": ("N",), "boxes": ("N", 4), "scores": ("N",)},
    _read_pixels,
    stretched,
    sizes="orig_target_sizes",
)
_MMDEPLOY = Family(
    "mmdeploy",
    "YOLOX of MMDetection, rtmlib",
    "input",
    {"dets": ("N", 5), "labels": ("N",)},
    _read_mmdeploy,
    _at_corner,
    rgb=False,
    unit=False,
)

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "rfdetr",
            "RF-DETR",
            "input",
            {"dets": ("N", 4), "labels": ("N", "C")},
            _queries("dets", "labels"),
            stretched,
            normalised=IMAGENET,
            fits=lambda shapes, height, width: shapes["dets"][0] == shapes["labels"][0],
        ),
        _RTDETR,
        replace(_RTDETR, name="deimv2", networks="DEIMv2 with DINOv3", normalised=IMAGENET, forced=True),
        Family(
            "detr",
            "RT-DETR and D-FINE of transformers",
            "pixel_values",
            {"logits": ("N", "C"), "pred_boxes": ("N", 4)},
            _queries("pred_boxes", "logits"),
            stretched,
            # With 91 or 92 classes they are other networks of transformers (DETR, YOLOS), which want other inputs.
            fits=lambda shapes, height, width: (
                shapes["logits"][0] == shapes["pred_boxes"][0] and shapes["logits"][1] not in (COCO_IDS, COCO_IDS + 1)
            ),
        ),
        Family(
            "yolox",
            "YOLOX",
            "images",
            {"output": ("N", "C")},
            _read_yolox,
            _at_corner,
            rgb=False,
            unit=False,
            duplicates=True,
            fits=lambda shapes, height, width: shapes["output"][0] == cells(height, width) and shapes["output"][1] > 5,
        ),
        _MMDEPLOY,
        replace(
            _MMDEPLOY, name="rtmdet", networks="RTMDet of MMDetection, rtmlib", normalised=IMAGENET_255_BGR, forced=True
        ),
        Family(
            "ultralytics",
            "YOLOv8, YOLO11",
            "images",
            {"output0": ("C", "N")},
            _read_ultralytics,
            _in_middle,
            duplicates=True,
            fits=lambda shapes, height, width: shapes["output0"][1] == cells(height, width) and shapes["output0"][0] > 4,
        ),
        Family("end2end", "YOLOv10, YOLO26", "images", {"output0": ("N", 6)}, _read_end_to_end, _in_middle),
    )
}
"""By name. The same file fits at most one that is not forced."""
