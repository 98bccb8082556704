"""What a network should have said about a crop, and how much of it is known."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from glnet.estimate import Estimate


class Targets(NamedTuple):
    """Labels of N crops. A weight of zero says that a label is unknown; its value is then ignored, but must be finite.

    Attributes:
        estimate: The perfect estimate (:meth:`glnet.recovery.Decoder.encode`).
        keypoint_weights: N x K, visible and labelled keypoints.
        depth_weights: N x K.
        rotation_weights: N x 23 for twists, N x 24 for 6D rotations.
        shape_weights: N x 1, for betas.
        scale_weights: N x 1.
        rotations: N x 24 x 3 x 3, SMPL's pose with the root relative to the camera.
        pose_weights: N x 24, for ``rotations``.
        cameras: N x 4, of the crops.
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

    def map(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        """The same change of every tensor."""
        return Targets(Estimate(*map(change, self.estimate)), *map(change, self[1:]))

    @staticmethod
    def concatenate(parts: Sequence["Targets"]) -> "Targets":
        """The crops of several targets, one after the other."""
        estimate = Estimate(*(torch.cat(values) for values in zip(*(part.estimate for part in parts), strict=True)))
        return Targets(estimate, *(torch.cat(values) for values in zip(*(part[1:] for part in parts), strict=True)))


class Batch(NamedTuple):
    """Crops N x S x S x 3 uint8, RGB, and what the network should say about them."""

    crops: Tensor
    targets: Targets

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.crops.to(device), self.targets.map(lambda part: part.to(device)))
