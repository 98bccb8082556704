"""Images and person boxes, checked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.device_arrays import COPY_TO_HOST, DeviceFrame, is_device_array
from glnet_infer.errors import InputError
from glnet_infer.numbers import as_floats

MINIMUM_SIDE = 2
"""Pixels. Nobody is recovered from less; boxes in units of the image's size look like this."""

LARGEST_IMAGE = 100_000_000
"""Pixels. Three times an 8K picture, and 300 megabytes."""

MAXIMUM_COORDINATE = 1_000_000
"""Pixels. Far outside any image, and far inside what float32 can hold."""

MAXIMUM_SIDE = MAXIMUM_COORDINATE
"""Pixels. An array that repeats one row may claim any height, and OpenCV crashes."""


def check_device_image(frame: DeviceFrame) -> None:
    """Refuse an image on the GPU that is not H x W x 3 uint8, C-contiguous; nothing is converted there.

    Raises:
        InputError: It is anything else.
    """
    shape, strides = frame.shape, frame.strides
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(
            f"The image on the GPU has shape {shape}.",
            why="images are H x W x 3, BGR, one at a time",
            fix="move channels last and copy, in torch: image.permute(1, 2, 0).contiguous()",
        )
    if max(shape) > MAXIMUM_SIDE:
        raise InputError(
            f"The image on the GPU is {shape[1]} x {shape[0]} pixels.",
            why=f"sides of at most {MAXIMUM_SIDE} pixels are taken",
            fix="cut it, or check the view that it is",
        )
    if frame.dtype != np.uint8:
        raise InputError(
            f"The image on the GPU has type {frame.dtype}.",
            why="images hold bytes from 0 to 255; other ranges cannot be told apart",
            fix="scale it to 0..255 and convert it to uint8 there",
        )
    if strides is not None and strides != (shape[1] * 3, 3, 1):
        raise InputError(
            "The image on the GPU is not C-contiguous.",
            why=f"its strides are {strides} for the shape {shape}",
            fix="copy it there: .contiguous() of a torch tensor, cupy.ascontiguousarray",
        )


def check_image(image: Any) -> NDArray[np.uint8]:
    """The image itself, if it is what OpenCV's ``imread`` gives: H x W x 3 uint8, BGR.

    Nothing is converted silently: a guess at channel order or range would show only as a bad mesh.

    Raises:
        InputError: It is anything else. The message names the conversion.
    """
    if is_device_array(image):
        raise InputError(
            f"The image is a {type(image).__name__} on the GPU.", why="this needs an image of the host", fix=COPY_TO_HOST
        )
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"The image is a {type(image).__name__}.",
            why="images are numpy arrays, H x W x 3, uint8, BGR",
            fix="read files with cv2.imread; it returns None for a file that is not an image",
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise InputError(
            f"The image is grey: its shape is {image.shape}.",
            why="the network was trained on colour",
            fix="convert it with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)",
        )
    if image.ndim == 3 and image.shape[2] == 4:
        raise InputError(
            f"The image has four channels: its shape is {image.shape}.",
            why="what to put behind transparent pixels is not ours to choose",
            fix="drop the alpha channel with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)",
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"The image has shape {image.shape}.",
            why="images are H x W x 3, one at a time",
            fix="move channels last with numpy.moveaxis(image, 0, 2), or take one image of a batch",
        )
    if image.dtype != np.uint8:
        raise InputError(
            f"The image has type {image.dtype}.",
            why="images hold bytes from 0 to 255; other ranges cannot be told apart",
            fix="scale it to 0..255 and convert it with .astype(numpy.uint8)",
        )
    if max(image.shape[:2]) > MAXIMUM_SIDE:
        raise InputError(
            f"The image is {image.shape[1]} x {image.shape[0]} pixels.",
            why=f"sides of at most {MAXIMUM_SIDE} pixels are taken",
            fix="cut it, or check the view that it is",
        )
    if image.size == 0:
        raise InputError(
            f"The image is empty: its shape is {image.shape}.", why="it has no pixels", fix="check the slice it comes from"
        )
    return image


def check_boxes(boxes: Any, width: int, height: int) -> NDArray[np.float64]:
    """Boxes as an N x 4 array of x1, y1, x2, y2 in image pixels; the whole image where ``boxes`` is None.

    Args:
        boxes: N rows of numbers of any library, or what holds them as ``xyxy``, such as another library's detections.
        width: The image's width in pixels.
        height: The image's height in pixels.

    Raises:
        InputError: They are no numbers, the shape is wrong, a value is not finite, a box has no area, or lies wholly
            outside the image.
    """
    if boxes is None:
        return np.array([[0.0, 0.0, width, height]])
    boxes = getattr(boxes, "xyxy", boxes)
    fix = "give N rows of x1, y1, x2, y2 in pixels"
    array = as_floats(boxes, "The boxes are not numbers.", fix=fix, up_to=max(width, height))
    if array.shape in ((0,), (0, 4), (1, 0)):
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(
            f"The boxes have shape {array.shape}.",
            why="boxes are N rows of x1, y1, x2, y2",
            fix="for one person give [[x1, y1, x2, y2]]; drop score and class columns",
        )
    if not np.isfinite(array).all():  # before the arithmetic below, which warns of the difference of two infinities
        index = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise InputError(
            f"Box {index} is not finite: {array[index].tolist()}.", fix="leave out detections with NaN or infinite corners"
        )
    x1, y1, x2, y2 = array.T
    problems = (
        (
            (x2 <= x1) | (y2 <= y1),
            "has no area",
            "boxes are corners, left, top, right, bottom: x1 < x2 and y1 < y2; not x, y, width, height",
        ),
        (
            np.maximum(x2 - x1, y2 - y1) < MINIMUM_SIDE,
            f"is smaller than {MINIMUM_SIDE} pixels",
            "boxes are in pixels; multiply normalised ones by the image's width and height",
        ),
        (
            np.abs(array).max(1) > MAXIMUM_COORDINATE,
            "is not a box in an image",
            "boxes are in pixels of the image itself",
        ),
        (
            (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
            f"lies outside the {width} x {height} image",
            "boxes are in pixels of the image itself, not of a resized one",
        ),
    )
    for bad, what, fix in problems:
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            raise InputError(f"Box {index} {what}: {array[index].tolist()}.", fix=fix)
    return array
