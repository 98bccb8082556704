"""Is an array of numbers an SMPL body? Other models are named; what looks odd about one is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES

SMPL_VERTICES = 6890

HEIGHTS = (1.0, 2.3)
"""Metres from sole to crown, of any grown body."""

_MODELS_BY_JOINTS = {55: "SMPL-X", 52: "SMPL-H", 16: "MANO", 5: "FLAME"}
_MODELS_BY_VERTICES = {10475: "SMPL-X", 778: "MANO", 5023: "FLAME"}


def other_model(vertices: int, regressor: tuple[int, ...]) -> str:
    """The model that has these numbers of joints and vertices, where it is not SMPL; else an empty text.

    Args:
        vertices: Vertices of the template.
        regressor: Shape of the joint regressor; empty where there is none.
    """
    if not regressor:
        return _MODELS_BY_VERTICES.get(vertices, "")
    if len(regressor) == 2 and regressor[1] == vertices and regressor[0] != BODY_JOINTS:
        return _MODELS_BY_JOINTS.get(regressor[0], "") or _MODELS_BY_VERTICES.get(vertices, "")
    return ""


def gender_in_name(path: Path) -> str:
    """``male`` or ``female`` where SMPL's file, or the folder that it lies in, is called so; else an empty text."""
    words = re.split(r"[^a-z]+", path.name.lower())
    if "neutral" in words or "n" in words:
        return ""
    for gender, letter in (("female", "f"), ("male", "m")):
        if gender in words or letter in words or path.parent.name.lower() == gender:
            return gender
    return ""


def oddities(template: NDArray[np.float64], faces: NDArray[Any], regressor: NDArray[np.float64]) -> list[str]:
    """Sentences on what looks odd: a body is as high as a person, in metres, y up, facing +z, faces outwards.

    Args:
        template: V x 3.
        faces: F x 3.
        regressor: 24 x V.
    """
    found = []
    joints = regressor @ template
    up = joints[JOINT_NAMES.index("head")] - joints[0]
    axis = int(np.abs(up).argmax())
    across = joints[JOINT_NAMES.index("left_hip")] - joints[JOINT_NAMES.index("right_hip")]
    height = float(np.ptp(template[:, axis]))
    if axis != 1 or up[1] < 0:
        found.append(f"its head is towards {'-' if up[axis] < 0 else '+'}{'xyz'[axis]} of its pelvis, not towards +y")
    elif across[0] < 0 and abs(across[0]) >= abs(across[2]):
        found.append("its left hip is on its right: it does not face +z, or is mirrored")
    elif abs(across[0]) < abs(across[2]):
        found.append("its hips lie along z: it faces to a side, not towards +z")
    if not HEIGHTS[0] <= height <= HEIGHTS[1]:
        found.append(f"it is {height:.3g} m high: lengths are taken to be metres{_guess(height)}")
    a, b, c = (template[faces[:, corner]] for corner in range(3))
    if (a * np.cross(b, c)).sum() < 0:
        found.append("its faces look inwards, or it is mirrored")
    return found


def _guess(height: float) -> str:
    """The unit that a height is in, where one makes a person of it."""
    for unit, size in (("centimetres", 100), ("millimetres", 1000)):
        if HEIGHTS[0] <= height / size <= HEIGHTS[1]:
            return f", and these look like {unit}"
    return ""
