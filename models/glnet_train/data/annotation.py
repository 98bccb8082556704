"""The labels of one person in one photograph, alike for all datasets, and which of them are used for training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.errors import InputError
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS

HUMAN36M_JOINTS = 17
"""Joints of Human3.6M's skeleton, in the order of its joint regressor for SMPL; the first is the pelvis."""

_SHAPES = {
    "box": (4,),
    "rotations": (BODY_JOINTS, 3, 3),
    "betas": (10,),
    "translation": (3,),
    "joints_3d": (SKELETON_JOINTS, 3),
    "joints_3d_weights": (SKELETON_JOINTS,),
    "keypoints_2d": (SKELETON_JOINTS, 2),
    "keypoints_2d_weights": (SKELETON_JOINTS,),
    "twists": (BODY_JOINTS - 1, 2),
    "twist_weights": (BODY_JOINTS - 1,),
    "h36m_joints": (HUMAN36M_JOINTS, 3),
}

_GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female", "n": None, "neutral": None}


@dataclass(frozen=True, eq=False)
class Annotation:
    """One person. A label is None where the set has none; a joint without a label has weight 0 and a finite value.

    Image coordinates are those of :mod:`glnet_infer.camera`: continuous pixels, pixel centres at halves. Camera coordinates
    are OpenCV's (x right, y down, z forward), metres. Joints are in the order of :mod:`glnet_infer.skeleton`.

    Attributes:
        image: The photograph.
        box: x1, y1, x2, y2 of the person, image pixels; may reach beyond the image.
        intrinsics: The camera, where it is known.
        rotations: 24 x 3 x 3, SMPL's pose: relative to the parent, the root's to the camera.
        betas: 10, SMPL's shape.
        translation: 3, metres: vertices in the camera are SMPL(rotations, betas) + translation, SMPL turning about its
            own pelvis joint.
        joints_3d: 29 x 3, camera coordinates, metres.
        joints_3d_weights: 29, 1 or 0. The root's must be 1 for depths to be used.
        keypoints_2d: 29 x 2, image pixels.
        keypoints_2d_weights: 29, 1 or 0.
        twists: 23 x 2, cosine and sine of the turn about the rest bone, of joints 1 to 23.
        twist_weights: 23, 1 or 0.
        h36m_joints: 17 x 3, camera coordinates, metres: the joints that the literature scores against; from motion capture
            where the set has it. They are not trained on.
        gender: ``male`` or ``female`` where the pose was fitted with that body.
        area: Square pixels that the person covers, for COCO's keypoint similarity.
    """

    image: Path
    box: NDArray[np.float64]
    intrinsics: Intrinsics | None = None
    rotations: NDArray[np.float32] | None = None
    betas: NDArray[np.float32] | None = None
    translation: NDArray[np.float32] | None = None
    joints_3d: NDArray[np.float32] | None = None
    joints_3d_weights: NDArray[np.float32] | None = None
    keypoints_2d: NDArray[np.float32] | None = None
    keypoints_2d_weights: NDArray[np.float32] | None = None
    twists: NDArray[np.float32] | None = None
    twist_weights: NDArray[np.float32] | None = None
    h36m_joints: NDArray[np.float32] | None = None
    gender: str | None = None
    area: float | None = None

    def __post_init__(self) -> None:
        for name, shape in _SHAPES.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(f"{name} is {value.shape}, not {shape}")
        for values, weights in (
            ("joints_3d", "joints_3d_weights"),
            ("keypoints_2d", "keypoints_2d_weights"),
            ("twists", "twist_weights"),
        ):
            if (getattr(self, values) is None) != (getattr(self, weights) is None):
                raise ValueError(f"{values} and {weights} come together")


def gender_of(value: Any) -> str | None:
    """The body that a pose was fitted with: ``male``, ``female``, or None for the neutral one.

    Args:
        value: The dataset's word for it, such as ``m``.

    Raises:
        InputError: The word is unknown.
    """
    word = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).lower()
    if word in _GENDERS:
        return _GENDERS[word]
    raise InputError(
        f"The gender {value!r} is unknown.",
        why=f"known are {', '.join(_GENDERS)}",
        fix="use the annotation file as its authors ship it",
    )


@dataclass(frozen=True)
class LabelMask:
    """Labels of a set that are trusted for training; the others are dropped even where the set has them.

    Attributes:
        keypoints: Image positions of joints.
        depths: Joints in camera coordinates, and with them the person's distance.
        rotations: Pose, with the translation that belongs to it.
        betas: Shape.
        twists: Turns about the bones.
        leaves: Whether joints 24 to 28 count.
    """

    keypoints: bool = True
    depths: bool = True
    rotations: bool = True
    betas: bool = True
    twists: bool = True
    leaves: bool = True

    def apply(self, annotation: Annotation) -> Annotation:
        """The annotation with only the trusted labels."""
        drop = {
            "keypoints": ("keypoints_2d", "keypoints_2d_weights"),
            "depths": ("joints_3d", "joints_3d_weights"),
            "rotations": ("rotations", "translation"),
            "betas": ("betas",),
            "twists": ("twists", "twist_weights"),
        }
        changes: dict[str, Any] = {
            name: None for label, names in drop.items() if not getattr(self, label) for name in names
        }
        if not self.leaves:
            for name in ("joints_3d_weights", "keypoints_2d_weights"):
                weights = getattr(annotation, name)
                if weights is not None and name not in changes:
                    changes[name] = np.where(np.arange(SKELETON_JOINTS) < BODY_JOINTS, weights, 0).astype(np.float32)
        return dataclasses.replace(annotation, **changes) if changes else annotation


LABEL_MASKS: dict[str, LabelMask] = {
    "h36m": LabelMask(),
    "coco": LabelMask(depths=False, rotations=False, betas=False, twists=False, leaves=False),
    "3dhp": LabelMask(rotations=False, betas=False, twists=False, leaves=False),
    "3dpw": LabelMask(twists=False, leaves=False),
}
"""Labels that HybrIK's training uses of each set. The weights of single joints and twists add to this."""
