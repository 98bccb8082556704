"""NanoDet-g, the person detector that comes with this library, run by OpenCV.

The network and its decoding: NanoDet (https://github.com/RangiLyu/nanodet); its distances to a box's sides are expectations
over bins, as in Generalized Focal Loss (https://arxiv.org/abs/2006.04388). Where the file comes from: docs/detectors.md.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.detection.base import DEFAULT_THRESHOLD, Detections
from glnet_infer.detection.framing import detections, letterboxed
from glnet_infer.errors import BackendError, one_line
from glnet_infer.files import read_file
from glnet_infer.forks import OfThisProcess
from glnet_infer.images import check_image

WEIGHTS = Path(__file__).with_name("nanodet-g.onnx")
SHA256 = "e9fb509df5d645b0ee3cccd9b29926e5d872845df91f74ab43e60f64287669bd"

_LARGEST_FILE = 64 << 20

_SIDE = 416
_SHORTEST = 128
_MULTIPLE = 32
"""Sides of the input in pixels: the longer one, the least of the other, and what both are multiples of. The network is
convolutional; of an input that is a single cell high it makes persons out of nothing."""
_BINS = 11
_MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # BGR, as the deviations
_DEVIATION = np.array([57.375, 57.12, 58.395], np.float32)
_LEVELS = ((8, "Identity:0", "Identity_3:0"), (16, "Identity_1:0", "Identity_4:0"), (32, "Identity_2:0", "Identity_5:0"))
"""Stride of each level's grid, and its outputs: scores of 80 classes, and bins of the four distances."""
_OUTPUTS = [name for _, *names in _LEVELS for name in names]
_PERSON = 0


class NanoDet(OfThisProcess):
    """Finds persons with NanoDet-g. Each thread has a network of its own: OpenCV's serve one at a time.

    Args:
        threshold: Least score of what counts as a person.
        weights: Another place of the same file.

    Raises:
        BackendError: The file is missing or damaged, or OpenCV does not read it.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD, weights: Path = WEIGHTS) -> None:
        content = read_file(
            weights,
            BackendError,
            what=f"The detector {weights} was not read.",
            fix="install glnet-infer again",
            largest=_LARGEST_FILE,
        )
        digest = hashlib.sha256(content).hexdigest()
        if digest != SHA256:
            raise BackendError(
                f"The detector {weights} is not the file that came with this version.",
                why=f"its SHA-256 is {digest[:12]}..., and was {SHA256[:12]}...",
                fix="install glnet-infer again",
            )
        self._threshold = threshold
        self._content = np.frombuffer(content, np.uint8)
        self._of_thread = threading.local()
        self._network()  # what OpenCV refuses shows now

    def __repr__(self) -> str:
        return f"NanoDet(threshold={self._threshold})"

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """See :class:`glnet_infer.detection.Detector`."""
        width, height = _canvas(*check_image(image).shape[1::-1])
        framed = letterboxed(image, width, height, pad=0, smooth=True)
        values = (framed.canvas.astype(np.float32) - _MEAN) / _DEVIATION
        network = self._network()
        try:
            network.setInput(np.ascontiguousarray(values.transpose(2, 0, 1))[None])
            outputs = dict(zip(_OUTPUTS, network.forward(_OUTPUTS), strict=True))
        except cv2.error as error:
            raise BackendError(
                "The detector nanodet failed.", why=one_line(error), fix="free memory, or use boxes"
            ) from error
        boxes, scores = [], []
        for stride, classes, distances in _LEVELS:
            sure = outputs[classes].reshape(-1, 80)[:, _PERSON]
            cells = np.flatnonzero(sure >= self._threshold)
            bins = outputs[distances].reshape(-1, 4, _BINS)[cells].astype(np.float64)
            likely = np.exp(bins - bins.max(-1, keepdims=True))
            reach = likely @ np.arange(_BINS) / likely.sum(-1) * stride
            centre = _centres(width // stride, height // stride, stride)[cells]
            boxes.append(np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1))
            scores.append(sure[cells])
        in_image = framed.to_image(np.concatenate(boxes))
        return detections(in_image, np.concatenate(scores), framed.size, self._threshold, duplicates=True)

    def _network(self) -> Any:
        """This thread's."""
        network = getattr(self._of_thread, "network", None)
        if network is None:
            try:
                network = self._of_thread.network = cv2.dnn.readNetFromONNX(self._content)
            except cv2.error as error:
                raise BackendError(
                    f"OpenCV {cv2.__version__} does not read the detector nanodet.",
                    why=one_line(error),
                    fix="pip install -U opencv-python-headless",
                ) from error
        return network


def _canvas(width: int, height: int) -> tuple[int, int]:
    """Width and height of the smallest canvas for an image: an empty half would take as long as a full one."""
    scale = _SIDE / max(width, height)
    columns, rows = (max(math.ceil(round(side * scale) / _MULTIPLE) * _MULTIPLE, _SHORTEST) for side in (width, height))
    return columns, rows


@functools.lru_cache(maxsize=16)
def _centres(columns: int, rows: int, stride: int) -> NDArray[np.float64]:
    """Middles of a grid's cells in input pixels, row by row: N x 2."""
    middles = [(np.arange(count) + 0.5) * stride for count in (columns, rows)]
    return np.stack(np.meshgrid(*middles), axis=-1).reshape(-1, 2)
