"""Contact sheets: many crops on one picture."""

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet.body.smpl import Body
from glnet_infer.skeleton import JOINT_NAMES, PARENTS
from glnet_render.placement import project
from glnet_render.source import SyntheticSample

_GAP = 2

# RGB: left, right, middle of the body.
_LEFT, _RIGHT, _MIDDLE = (60, 140, 255), (255, 80, 60), (90, 230, 90)


def contact_sheet(crops: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """A picture of crops, N x S x S x 3, in rows of ``columns``; the rest of the last row is white."""
    count, size = crops.shape[:2]
    rows = -(-count // columns)
    step = size + _GAP
    sheet = np.full((rows * step - _GAP, columns * step - _GAP, 3), 255, dtype=np.uint8)
    for index, crop in enumerate(crops):
        top, left = index // columns * step, index % columns * step
        sheet[top : top + size, left : left + size] = crop
    return sheet


def draw_keypoints(sample: SyntheticSample, body: Body) -> NDArray[np.uint8]:
    """Crops with their skeletons: left blue, right red; hollow where a joint is not visible."""
    joints = body.pose(sample.rotations, sample.betas).joints + sample.translation.unsqueeze(1)
    size = sample.crops.shape[1]
    # OpenCV draws with the first pixel's centre at 0; four fractional bits.
    points = ((project(joints, sample.cameras) + 0.5) * size - 0.5).cpu().numpy()
    points = np.clip(points * 16, -(2**20), 2**20).round().astype(int)
    crops: NDArray[np.uint8] = sample.crops.cpu().numpy().copy()
    radius = max(1, size // 96)
    for crop, skeleton, visible in zip(crops, points, sample.visibility.cpu().numpy(), strict=True):
        for joint, parent in enumerate(PARENTS):
            if parent >= 0:
                cv2.line(crop, skeleton[joint].tolist(), skeleton[parent].tolist(), _color(joint), 1, cv2.LINE_AA, 4)
        for joint, point in enumerate(skeleton):
            filled = cv2.FILLED if visible[joint] else 1
            cv2.circle(crop, point.tolist(), radius * 16, _color(joint), filled, cv2.LINE_AA, 4)
    return crops


def _color(joint: int) -> tuple[int, int, int]:
    name = JOINT_NAMES[joint]
    return _LEFT if name.startswith("left") else _RIGHT if name.startswith("right") else _MIDDLE
