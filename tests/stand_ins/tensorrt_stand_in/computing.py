"""The sizes of the stand-in's engines, and what they compute."""

import numpy as np

from glnet_infer.contract import graph_outputs

SIDE, VERTICES, KEYPOINTS = 32, 5, 3
OUTPUTS = graph_outputs(VERTICES, KEYPOINTS)
SHAPES = {"crops": (SIDE, SIDE, 3), "cameras": (4,), **{spec.name: spec.shape[1:] for spec in OUTPUTS}}
FRAME = (96, 64)  # width and height of the largest frame that the crop engine takes


def results(crops, cameras):
    """What the stand-in's engine computes: every value of a row depends on the whole row and on its own place."""
    base = crops.reshape(len(crops), -1).mean(1, dtype=np.float64) + cameras.astype(np.float64) @ [1, 2, 3, 4]
    outputs = {}
    for number, spec in enumerate(OUTPUTS):
        size = int(np.prod(spec.shape[1:]))
        values = base[:, None] * (number + 1) + np.arange(size)
        outputs[spec.name] = values.reshape(len(crops), *spec.shape[1:]).astype(spec.dtype)
    return outputs


def cut(frame, squares):
    """What the stand-in's crop engine computes: GridSample, bilinear, zeros outside, corners not aligned."""
    height, width = frame.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = frame[..., ::-1]
    unit = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    crops = np.empty((len(squares), SIDE, SIDE, 3), np.uint8)
    for crop, (x, y, half_x, half_y) in zip(crops, squares.astype(np.float64), strict=True):
        columns = np.clip((x + unit * half_x + 1) * width / 2 + 0.5, 0, width + 0.999)
        rows = np.clip((y + unit * half_y + 1) * height / 2 + 0.5, 0, height + 0.999)
        left, upper = columns.astype(int), rows.astype(int)
        right_share, lower_share = (columns - left)[None, :, None], (rows - upper)[:, None, None]
        wide = padded[:, left] * (1 - right_share) + padded[:, left + 1] * right_share
        crop[:] = np.rint(wide[upper] * (1 - lower_share) + wide[upper + 1] * lower_share)
    return crops
