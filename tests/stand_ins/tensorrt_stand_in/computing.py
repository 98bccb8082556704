"""The sizes of the stand-in's engines, and what they compute."""

import numpy as np

from glnet_infer.contract import CROP_REDUCTIONS, graph_outputs

SIDE, VERTICES, KEYPOINTS = 32, 5, 3
OUTPUTS = graph_outputs(VERTICES, KEYPOINTS)
SHAPES = {"crops": (SIDE, SIDE, 3), "cameras": (4,), **{spec.name: spec.shape[1:] for spec in OUTPUTS}}
FRAME = (96, 64)  # width and height of the largest frame that the crop engine takes
SQUARE = (len(CROP_REDUCTIONS), 4)  # the places of one crop


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
    """What the stand-in's crop engine computes: GridSample, bilinear, zeros outside, corners not aligned; the sum over all
    reductions of the frame, of which all but one show nothing."""
    crops = np.zeros((len(squares), SIDE, SIDE, 3))
    for level, reduction in enumerate(CROP_REDUCTIONS):
        image = averaged(frame[..., ::-1], reduction)
        for crop, square in zip(crops, squares[:, level].astype(np.float64), strict=True):
            crop += sampled(image, square)
    return np.rint(crops).astype(np.uint8)


def averaged(frame, reduction):
    """Means of squares of pixels; beyond the frame it is black."""
    height, width = (-(-side // reduction) for side in frame.shape[:2])
    whole = np.zeros((height * reduction, width * reduction, 3))
    whole[: frame.shape[0], : frame.shape[1]] = frame
    return whole.reshape(height, reduction, width, reduction, 3).mean((1, 3))


def sampled(image, square):
    """A crop of an image by its middle and half sides, in the image's half sides from its centre."""
    (height, width), (x, y, half_x, half_y) = image.shape[:2], square
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = image
    unit = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    columns = np.clip((x + unit * half_x + 1) * width / 2 + 0.5, 0, width + 0.999)
    rows = np.clip((y + unit * half_y + 1) * height / 2 + 0.5, 0, height + 0.999)
    left, upper = columns.astype(int), rows.astype(int)
    right_share, lower_share = (columns - left)[None, :, None], (rows - upper)[:, None, None]
    wide = padded[:, left] * (1 - right_share) + padded[:, left + 1] * right_share
    return wide[upper] * (1 - lower_share) + wide[upper + 1] * lower_share
