"""The network's estimate of a person: a skeleton in the image plane with depths, twists, shape and scale, as one vector.

Units follow HybrIK (Li et al., CVPR 2021): keypoints in crop sides from the crop's centre, depths relative to the root in
multiples of ``depth_range`` metres. Residuals of a pixel are added to the vector of the coarse estimate.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from glnet.config import GLNetConfig
from glnet.rotations import normalize, skew
from glnet_infer.contract import DEFAULT_CAMERA
from glnet_infer.skeleton import BODY_JOINTS

TWISTS = BODY_JOINTS - 1
BETAS = 10

MINIMUM_SCALE = 0.05
"""Least scale: a crop shows at most 20 m. So the distance stays finite whatever an untrained network answers."""

MINIMUM_DEPTH = 0.1
"""Least distance of a joint in front of the camera, metres."""


class Estimate(NamedTuple):
    """The parts of an estimate of a person. Leading dimensions are shared.

    Attributes:
        keypoints: ... x K x 2, crop sides from the crop's centre (x right, y down; the crop spans -0.5 to 0.5).
        depths: ... x K, depth behind the root joint along the ray through the crop's centre, in ``depth_range`` metres.
        rotation: ... x 23 x 2 cosine and sine of the twists, or ... x 24 x 6 local rotations.
        betas: ... x 10, standard deviations of the body's shape space.
        scale: ... x 1, crop sides that a metre spans at the root's distance.
    """

    keypoints: Tensor
    depths: Tensor
    rotation: Tensor
    betas: Tensor
    scale: Tensor


class EstimateLayout:
    """Places of the parts of an estimate in its vector."""

    def __init__(self, config: GLNetConfig) -> None:
        self.keypoints = config.keypoints
        self.rotation_shape = (TWISTS, 2) if config.swing_twist else (BODY_JOINTS, 6)
        self.sizes = (
            2 * config.keypoints,
            config.keypoints,
            self.rotation_shape[0] * self.rotation_shape[1],
            BETAS,
            1,
        )
        self.size = sum(self.sizes)

    def split(self, vector: Float[Tensor, "... p"]) -> Estimate:
        """The parts of a vector."""
        keypoints, depths, rotation, betas, scale = vector.split(self.sizes, dim=-1)
        return Estimate(
            keypoints.unflatten(-1, (self.keypoints, 2)),
            depths,
            rotation.unflatten(-1, self.rotation_shape),
            betas,
            scale,
        )

    def join(self, estimate: Estimate) -> Float[Tensor, "... p"]:
        """The vector of an estimate's parts; the inverse of :meth:`split`."""
        return torch.cat(
            [
                estimate.keypoints.flatten(-2),
                estimate.depths,
                estimate.rotation.flatten(-2),
                estimate.betas,
                estimate.scale,
            ],
            dim=-1,
        )

    def joint_entries(self, joint: int) -> list[int]:
        """Entries of the vector that describe one joint: x, y, depth, and its rotation where it has one."""
        keypoints, depths = self.sizes[:2]
        entries = [2 * joint, 2 * joint + 1, keypoints + joint]
        first = BODY_JOINTS - self.rotation_shape[0]  # twists start at joint 1
        if first <= joint < BODY_JOINTS:
            width = self.rotation_shape[1]
            start = keypoints + depths + (joint - first) * width
            entries += range(start, start + width)
        return entries


def default_cameras(crops: int) -> Float[Tensor, "n 4"]:
    """:data:`glnet_infer.contract.DEFAULT_CAMERA` for each crop."""
    return torch.tensor([DEFAULT_CAMERA]).repeat(crops, 1)


def viewing_axes(cameras: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3"]:
    """Unit directions from the camera through the crops' centres.

    A crop shows a person as seen along this ray, wherever in the image it lies. It does not show the image's optical axis.
    So depths are measured along the ray, and 6D root rotations are relative to it.
    """
    focal, center = cameras[:, :2], cameras[:, 2:]
    return normalize(torch.cat([-center / focal, torch.ones_like(focal[:, :1])], dim=-1))


def viewing_rotations(cameras: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """The smallest rotations from the optical axis to :func:`viewing_axes`."""
    axes = viewing_axes(cameras)
    x, y, z = axes.unbind(-1)
    turn = skew(torch.stack([-y, x, torch.zeros_like(x)], dim=-1))  # of the cross product of z and the axis
    identity = torch.eye(3, dtype=axes.dtype, device=axes.device)
    return identity + turn + turn @ turn / (1 + z)[:, None, None]  # Rodrigues; a crop is never behind the camera


def _rays(keypoints: Float[Tensor, "n k 2"], cameras: Float[Tensor, "n 4"]) -> Float[Tensor, "n k 3"]:
    """Points at z = 1 on the rays through image points."""
    rays = (keypoints - cameras[:, None, 2:]) / cameras[:, None, :2]
    return torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1)


def lift(estimate: Estimate, cameras: Float[Tensor, "n 4"], depth_range: float) -> Float[Tensor, "n k 3"]:
    """Keypoints in camera coordinates (metres): the point at each keypoint's depth on the ray through it.

    The scale fixes the root's distance: where a metre spans ``scale`` crop sides, it is ``focal / scale`` metres away. The
    first keypoint is the root. For a crop in the image's centre this is HybrIK's back-projection, with the real focal
    length in place of its 1000/256; for others, depths are measured along :func:`viewing_axes`.
    """
    rays = _rays(estimate.keypoints, cameras)
    axes = viewing_axes(cameras).unsqueeze(1)
    distance = cameras[:, :2].mean(-1, keepdim=True) / estimate.scale.clamp_min(MINIMUM_SCALE)
    along = (rays * axes).sum(-1)
    depth = (along[:, :1] * distance + depth_range * estimate.depths).clamp_min(MINIMUM_DEPTH)
    return rays * (depth / along.clamp_min(MINIMUM_DEPTH)).unsqueeze(-1)


def estimate_from_joints(
    joints: Float[Tensor, "n k 3"],
    rotation: Tensor,
    betas: Float[Tensor, "n 10"],
    cameras: Float[Tensor, "n 4"],
    depth_range: float,
) -> Estimate:
    """The estimate that a perfect network would make of joints in camera coordinates; :func:`lift` undoes it.

    Args:
        joints: Metres, in front of the camera; the first one is the root.
        rotation: Twists or 6D rotations, which become part of the estimate.
        betas: Shape, which becomes part of the estimate.
        cameras: Cameras of the crops.
        depth_range: Metres that a depth of 1 stands for.
    """
    depth = (joints * viewing_axes(cameras).unsqueeze(1)).sum(-1)
    return Estimate(
        keypoints=joints[..., :2] / joints[..., 2:] * cameras[:, None, :2] + cameras[:, None, 2:],
        depths=(depth - depth[:, :1]) / depth_range,
        rotation=rotation,
        betas=betas,
        scale=cameras[:, :2].mean(-1, keepdim=True) / joints[:, 0, 2:],
    )
