"""Guidance by 2D keypoints, for training only: it shapes the features and is not part of the network that is exported.

The poster names 2D keypoints as the annotation that guides the Local Encoding Module (Table 3). Here they guide twice:
every part point predicts its part's keypoints, which pulls the points onto the parts (AdaptivePose, arXiv 2112.13635);
and every pixel says how close it is to each keypoint, a heat map, which reaches all pixels from the first step on.

Beside them, positive pixels say where the person faces, as a choice among directions: front and back look alike until the
details are understood, regression then answers with their mean, and a classifier's gradient does not vanish there.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glnet.config import GLNetConfig
from glnet.estimate import viewing_rotations
from glnet.network import Prediction, gather_pixels
from glnet.parts import PARTS
from glnet.training.losses import weighted_mean
from glnet.training.targets import Targets
from glnet_infer.skeleton import SKELETON_JOINTS

HEAT_RADIUS = 1.5
"""Standard deviation of a keypoint's heat, in cells of the pixel grid."""

DIRECTIONS = 48
"""Facing directions to choose from, about 30 degrees apart."""

CONCENTRATION = 12.0
"""How sharply the label favours the nearest directions (von Mises-Fisher's kappa)."""


def _sphere(count: int) -> Float[Tensor, "count 3"]:
    """Unit vectors spread evenly over the sphere, on a spiral of golden angles."""
    number = torch.arange(count) + 0.5
    y = 1 - 2 * number / count
    turn = math.pi * (1 + 5**0.5) * number
    radius = (1 - y.square()).sqrt()
    return torch.stack([radius * turn.cos(), y, radius * turn.sin()], dim=-1)


class Guidance(nn.Module):
    """Training-only heads on the pixel and part features, and their losses."""

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.heat = nn.Conv2d(config.pixel_channels, config.keypoints, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # a keypoint is nearly nowhere
        self.facing = nn.Linear(config.pixel_channels, DIRECTIONS)
        self.register_buffer("directions", _sphere(DIRECTIONS), persistent=False)
        self.offsets = None
        if config.local_encoding:
            width = max(len(joints) for joints in PARTS.values())
            self.offsets = nn.Conv1d(len(PARTS) * config.part_channels, len(PARTS) * width * 2, 1, groups=len(PARTS))
            nn.init.normal_(self.offsets.weight, std=1e-3)
            nn.init.zeros_(self.offsets.bias)
            slots = torch.zeros(SKELETON_JOINTS, dtype=torch.long)
            parts = torch.zeros(SKELETON_JOINTS, dtype=torch.long)
            for part, joints in enumerate(PARTS.values()):
                slots[list(joints)] = torch.arange(len(joints)) + part * width
                parts[list(joints)] = part
            self.register_buffer("slots", slots, persistent=False)
            self.register_buffer("parts", parts, persistent=False)

    def forward(self, prediction: Prediction, targets: Targets, index: Int[Tensor, "n p"]) -> dict[str, Float[Tensor, ""]]:
        """The guidance losses by name.

        Args:
            prediction: With its features.
            targets: The labels.
            index: The positive pixels.
        """
        terms = {
            "heat": self._heat_loss(prediction.pixel_features, targets),
            "facing": self._facing_loss(prediction.pixel_features, targets, index),
        }
        if self.offsets is not None:
            terms["part points"] = self._point_loss(prediction, targets, index)
        return terms

    def _heat_loss(self, features: Tensor, targets: Targets) -> Tensor:
        """Cross entropy of the heat maps against Gaussians about the keypoints, per labelled keypoint."""
        logits = self.heat(features.float())
        centers = (targets.estimate.keypoints + 0.5) * self.grid - 0.5
        cells = torch.arange(self.grid, device=logits.device)
        near = (-(cells - centers.unsqueeze(-1)).square() / (2 * HEAT_RADIUS**2)).exp()  # N x K x 2 x cells
        heat = near[:, :, 1, :, None] * near[:, :, 0, None, :]
        entropy = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none").sum((-2, -1))
        return weighted_mean(entropy, targets.keypoint_weights) / self.grid

    def _facing_loss(self, features: Tensor, targets: Targets, index: Tensor) -> Tensor:
        """Cross entropy of the facing direction at positive pixels, relative to the ray through the crop's centre."""
        logits = self.facing(gather_pixels(features, index).squeeze(3).transpose(1, 2).float())
        forward = targets.rotations[:, 0, :, 2]  # the rest pose faces +z
        forward = (viewing_rotations(targets.cameras).transpose(1, 2) @ forward.unsqueeze(-1)).squeeze(-1)
        label = (CONCENTRATION * forward @ self.directions.T).softmax(-1)
        entropy = -(label.unsqueeze(1) * logits.log_softmax(-1)).sum(-1)
        return weighted_mean(entropy, targets.pose_weights[:, :1].expand(entropy.shape))

    def _point_loss(self, prediction: Prediction, targets: Targets, index: Tensor) -> Tensor:
        """L1 error of the keypoints seen from the part points of positive pixels, in grid cells."""
        parts = gather_pixels(prediction.part_features, index).squeeze(3).float()
        offsets = self.offsets(parts).unflatten(1, (-1, 2)).index_select(1, self.slots)  # N x 29 x 2 x positives
        points = prediction.points.flatten(2, 3).transpose(-1, -2)  # N x parts x 2 x pixels
        points = points.gather(3, index[:, None, None].expand(-1, points.shape[1], 2, -1)).index_select(1, self.parts)
        truth = (targets.estimate.keypoints[:, :SKELETON_JOINTS] + 0.5) * self.grid - 0.5
        error = (points + offsets - truth.unsqueeze(-1)).abs().mean((2, 3))
        return weighted_mean(error, targets.keypoint_weights[:, :SKELETON_JOINTS])
