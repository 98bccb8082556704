"""Labels of crops: the right answers, and weights that say which of them are known."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from glnet.estimate import Estimate
from glnet_infer.skeleton import BODY_JOINTS

HIDDEN_WEIGHT = 0.5
"""Weight of keypoints that are hidden or outside the crop: they are guesses, and count less than what is seen."""

BACKGROUND = BODY_JOINTS
"""Value of a segment where no person is seen."""

UNKNOWN = 255
"""Value of a segment without a label."""


class Targets(NamedTuple):
    """Labels of N crops. A weight of zero says that a label is unknown; its value is then ignored, but must be finite.

    Attributes:
        estimate: The perfect estimate (:meth:`glnet.recovery.Decoder.encode`).
        keypoint_weights: N x K, weights of the keypoints.
        depth_weights: N x K, weights of the depths.
        rotation_weights: N x 23 for twists, N x 24 for 6D rotations.
        shape_weights: N x 1, weights of the betas.
        scale_weights: N x 1, weights of the scale.
        rotations: N x 24 x 3 x 3, SMPL's pose with the root relative to the camera.
        pose_weights: N x 24, weights of ``rotations``.
        cameras: N x 4, cameras of the crops.
        segments: N x G x G uint8, for every cell of the pixel grid: the joint that the surface seen at its middle follows
            most, :data:`BACKGROUND` or :data:`UNKNOWN`.
        places: N x G x G x 4, metres: the point of that surface on the mean body in its rest pose, and its depth behind the
            root joint along the ray through the crop's centre.
    """

    estimate: Estimate
    keypoint_weights: Float[Tensor, "n k"]
    depth_weights: Float[Tensor, "n k"]
    rotation_weights: Float[Tensor, "n r"]
    shape_weights: Float[Tensor, "n 1"]
    scale_weights: Float[Tensor, "n 1"]
    rotations: Float[Tensor, "n 24 3 3"]
    pose_weights: Float[Tensor, "n 24"]
    cameras: Float[Tensor, "n 4"]
    segments: UInt8[Tensor, "n g g"]
    places: Float[Tensor, "n g g 4"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        """The targets with the same change of every tensor."""
        return Targets(Estimate(*map(change, self.estimate)), *map(change, self[1:]))

    @staticmethod
    def concatenate(parts: Sequence["Targets"]) -> "Targets":
        """The crops of several targets, one after the other."""
        estimate = Estimate(*(torch.cat(values) for values in zip(*(part.estimate for part in parts), strict=True)))
        return Targets(estimate, *(torch.cat(values) for values in zip(*(part[1:] for part in parts), strict=True)))


def unknown_surface(count: int, grid: int) -> tuple[UInt8[Tensor, "n g g"], Float[Tensor, "n g g 4"]]:
    """Segments and places of crops whose surface has no labels."""
    return torch.full((count, grid, grid), UNKNOWN, dtype=torch.uint8), torch.zeros(count, grid, grid, 4)


class Batch(NamedTuple):
    """Crops, N x S x S x 3 uint8, RGB, and their labels."""

    crops: Tensor
    targets: Targets

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.crops.to(device), self.targets.map(lambda part: part.to(device)))
