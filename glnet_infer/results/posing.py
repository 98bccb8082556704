"""SMPL's kinematics in NumPy, for results that are no longer on their way through a network.

Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015, section 3. Everything is exact in both directions: joints
follow from rotations and bones, and bones from rotations and joints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS


def chain(rotations: NDArray[Any]) -> NDArray[np.float64]:
    """Rotations from the rest pose, of rotations relative to the parent; both ... x 24 x 3 x 3."""
    local = np.asarray(rotations, np.float64)
    result = np.empty(local.shape)
    result[..., 0, :, :] = local[..., 0, :, :]
    for joint in range(1, BODY_JOINTS):
        result[..., joint, :, :] = result[..., PARENTS[joint], :, :] @ local[..., joint, :, :]
    return result


def posed_joints(rotations: NDArray[Any], rest: NDArray[Any]) -> NDArray[np.float64]:
    """Joints in pose, with joint 0 where it rests.

    Args:
        rotations: ... x 24 x 3 x 3, from :func:`chain`.
        rest: ... x 29 x 3, joints of the rest pose, metres.
    """
    joints = np.empty((*np.broadcast_shapes(rotations.shape[:-3], rest.shape[:-2]), SKELETON_JOINTS, 3))
    joints[..., 0, :] = rest[..., 0, :]
    for joint in range(1, SKELETON_JOINTS):
        parent = PARENTS[joint]
        bone = rest[..., joint, :] - rest[..., parent, :]
        joints[..., joint, :] = joints[..., parent, :] + (rotations[..., parent, :, :] @ bone[..., None])[..., 0]
    return joints


def rest_joints(rotations: NDArray[Any], joints: NDArray[Any], translation: NDArray[Any]) -> NDArray[np.float64]:
    """Joints of the rest pose, found from joints in pose: :func:`posed_joints` undone.

    Args:
        rotations: ... x 24 x 3 x 3, from :func:`chain`.
        joints: ... x 29 x 3, metres.
        translation: ... x 3, metres, what was added to the posed body.

    Returns:
        ... x 29 x 3, metres.
    """
    posed = np.asarray(joints, np.float64)
    rest = np.empty(posed.shape)
    rest[..., 0, :] = posed[..., 0, :] - translation
    for joint in range(1, SKELETON_JOINTS):
        parent = PARENTS[joint]
        bone = posed[..., joint, :] - posed[..., parent, :]
        rest[..., joint, :] = (
            rest[..., parent, :] + (np.swapaxes(rotations[..., parent, :, :], -1, -2) @ bone[..., None])[..., 0]
        )
    return rest
