"""Crops with labels in the network's units, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glnet.config import GLNetConfig
from glnet.estimate import MINIMUM_DEPTH, estimate_from_joints
from glnet.rotations import rotation_to_6d
from glnet_infer.contract import DEFAULT_CAMERA, CropSpec
from glnet_infer.crops import CropSquares, cut_crops
from glnet_infer.image_files import read_image
from glnet_infer.images import check_boxes
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS
from glnet_render.targets import Targets, unknown_surface
from glnet_train.data.annotation import Annotation


class Sample(NamedTuple):
    """One crop and its labels, all float32 but the crop. Unknown labels have weight 0 and a harmless value.

    Attributes:
        crop: size x size x 3 uint8, RGB.
        camera: 4, the camera as the crop sees it, in crop sides; HybrIK's default where it is unknown.
        keypoints: 29 x 2, crop sides from the crop's centre; may lie outside the crop (-0.5 to 0.5).
        keypoint_weights: 29.
        joints: 29 x 3, camera coordinates, metres.
        joint_weights: 29.
        rotations: 24 x 3 x 3, the root's relative to the camera.
        pose_weight: 1.
        betas: 10.
        shape_weight: 1.
        translation: 3, metres; known where ``pose_weight`` and ``translation_weight`` are 1.
        translation_weight: 1.
        twists: 23 x 2, cosine and sine.
        twist_weights: 23.
        camera_weight: 1; 0 where the camera is HybrIK's default, and metres in the image are unknown.
        side: 1, image pixels that the crop is wide.
    """

    crop: NDArray[np.uint8]
    camera: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    keypoint_weights: NDArray[np.float32]
    joints: NDArray[np.float32]
    joint_weights: NDArray[np.float32]
    rotations: NDArray[np.float32]
    pose_weight: NDArray[np.float32]
    betas: NDArray[np.float32]
    shape_weight: NDArray[np.float32]
    translation: NDArray[np.float32]
    translation_weight: NDArray[np.float32]
    twists: NDArray[np.float32]
    twist_weights: NDArray[np.float32]
    camera_weight: NDArray[np.float32]
    side: NDArray[np.float32]


def _or(value: NDArray[np.float32] | None, default: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(default if value is None else value, dtype=np.float32)


def _known(value: object) -> NDArray[np.float32]:
    return np.array([value is not None], dtype=np.float32)


def load_sample(annotation: Annotation, spec: CropSpec, box: NDArray[np.float64] | None = None) -> Sample:
    """Read the photograph and cut the person out, as inference does it.

    The box is cut off at the image's edge first, because the boxes of detectors are.

    Args:
        annotation: The person.
        spec: Size and padding of crops.
        box: x1, y1, x2, y2 in image pixels instead of the annotated box (augmentation).

    Raises:
        InputError: The image is missing or not an image, or the box lies outside it.
    """
    # Annotations are of the pixels as they are stored, whatever an EXIF tag says about holding the camera.
    image = read_image(annotation.image, oriented=False)
    height, width = image.shape[:2]
    boxes = check_boxes([annotation.box if box is None else box], width, height)
    squares = CropSquares.around(np.clip(boxes, 0, [width, height, width, height]), spec)
    keypoints = annotation.keypoints_2d
    if keypoints is not None:
        # Differences first: image coordinates run to thousands, and float32 has seven digits.
        keypoints = ((keypoints.astype(np.float64) - squares.centers) / squares.sides[:, None]).astype(np.float32)
    intrinsics = annotation.intrinsics
    return Sample(
        crop=cut_crops(image, squares)[0],
        camera=_or(None if intrinsics is None else squares.cameras(intrinsics)[0], np.array(DEFAULT_CAMERA)),
        keypoints=_or(keypoints, np.zeros((SKELETON_JOINTS, 2))),
        keypoint_weights=_or(annotation.keypoints_2d_weights, np.zeros(SKELETON_JOINTS)),
        joints=_or(annotation.joints_3d, np.zeros((SKELETON_JOINTS, 3))),
        joint_weights=_or(annotation.joints_3d_weights, np.zeros(SKELETON_JOINTS)),
        rotations=_or(annotation.rotations, np.broadcast_to(np.eye(3), (BODY_JOINTS, 3, 3))),
        pose_weight=_known(annotation.rotations),
        betas=_or(annotation.betas, np.zeros(10)),
        shape_weight=_known(annotation.betas),
        translation=_or(annotation.translation, np.zeros(3)),
        translation_weight=_known(annotation.translation),
        twists=_or(annotation.twists, np.broadcast_to([1.0, 0.0], (BODY_JOINTS - 1, 2))),
        twist_weights=_or(annotation.twist_weights, np.zeros(BODY_JOINTS - 1)),
        camera_weight=_known(intrinsics),
        side=squares.sides.astype(np.float32),
    )


def stacked(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """The fields of N samples by name, as tensors with N in front."""
    fields = zip(Sample._fields, zip(*samples, strict=True), strict=True)
    return {name: torch.from_numpy(np.stack(values)) for name, values in fields}


def collate(samples: Sequence[Sample], config: GLNetConfig) -> tuple[Tensor, Targets]:
    """A batch as the losses take it.

    Depths count where the joint and the root are known; the scale, where root and camera are. Keypoints that the network
    has beyond the skeleton's 29 get no label.

    Args:
        samples: N crops of one size.
        config: The network, for its number of keypoints, depth range and kind of rotation.

    Returns:
        N x size x size x 3 uint8 crops, and their targets.
    """
    batch = stacked(samples)
    extra = config.keypoints - SKELETON_JOINTS
    pad = torch.nn.functional.pad
    swing_twist = config.swing_twist
    # Joints without a label go to a harmless place in front of the camera.
    joints = torch.where(batch["joint_weights"].unsqueeze(-1) > 0, batch["joints"], torch.tensor([0.0, 0.0, 1.0]))
    root_weight = batch["joint_weights"][:, :1]
    depth_weights = batch["joint_weights"] * root_weight
    scale_weights = root_weight * batch["camera_weight"] * (joints[:, 0, 2:] > MINIMUM_DEPTH)
    rotation = batch["twists"] if swing_twist else rotation_to_6d(batch["rotations"])
    projected = estimate_from_joints(joints, rotation, batch["betas"], batch["camera"], config.depth_range)
    estimate = projected._replace(
        keypoints=pad(batch["keypoints"], (0, 0, 0, extra)),
        depths=pad(torch.where(depth_weights > 0, projected.depths, 0), (0, extra)),
        scale=torch.where(scale_weights > 0, projected.scale, 1),
    )
    pose_weights = batch["pose_weight"].expand(-1, BODY_JOINTS)
    segments, places = unknown_surface(len(batch["crop"]), config.grid)
    return batch["crop"], Targets(
        estimate=estimate,
        keypoint_weights=pad(batch["keypoint_weights"], (0, extra)),
        depth_weights=pad(depth_weights, (0, extra)),
        rotation_weights=batch["twist_weights"] if swing_twist else pose_weights,
        shape_weights=batch["shape_weight"],
        scale_weights=scale_weights,
        rotations=batch["rotations"],
        pose_weights=pose_weights,
        cameras=batch["camera"],
        segments=segments,
        places=places,
    )
