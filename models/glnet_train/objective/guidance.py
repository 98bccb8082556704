"""Guidance: heads and losses for training only, which shape the features and are not exported.

The poster guides its Local Encoding Module by an auxiliary annotation, and compares three (Table 3). A recipe names one of
:data:`glnet_train.recipe.GUIDANCES`:

- 2D keypoints, the poster's, guide twice. Every part point is pulled to the middle of its part's keypoints. And every pixel
  says how close it is to each keypoint, a heat map, which reaches all pixels from the first step on.
- By part segmentation maps, every pixel says which part of the body it sees.
- By IUV maps, it also says where on that part (:mod:`glnet_render.charts`).
- ``all`` has the keypoints and the parts. Here a pixel says where the point is on the mean body and how far away, some
  hundred labels a crop beside 29 keypoints (dense correspondence after Güler et al., "DensePose", CVPR 2018). And positive
  pixels say where the person faces, as a choice among directions: front and back look alike until the details are
  understood, regression then answers with their mean, and a classifier's gradient does not vanish there.

The losses look at what the module gives, and at nothing after it. So their gradient reaches the module and, through it, the
backbone, but neither the coarse estimate nor confidence or residuals.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.estimate import viewing_rotations
from glnet.network import Prediction, gather_pixels, gather_points
from glnet.parts import PARTS
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS
from glnet_render.charts import Charts
from glnet_render.targets import BACKGROUND, UNKNOWN, Targets
from glnet_train.objective.losses import weighted_mean
from glnet_train.recipe import GUIDANCES

GUIDANCE_TERMS = frozenset(name for names in GUIDANCES.values() for name in names)
"""Names of all losses."""

HEAT_RADIUS = 1.5
"""Standard deviation of a keypoint's heat, in cells of the pixel grid."""

DIRECTIONS = 48
"""Facing directions to choose from, about 30 degrees apart."""

CONCENTRATION = 12.0
"""Sharpness with which the label favours the nearest directions (von Mises-Fisher's kappa)."""

PLACE = 4
"""Numbers of a place: x, y, z on the mean body in its rest pose, and the depth behind the root."""

PLACE_WEIGHT = 5.0
"""Weight of a place's error in metres: one that is off by 10 cm in each of its numbers counts 2."""

CHART_WEIGHT = 1.5
"""Weight of an error of U or V: a part is some 30 cm long, so 10 cm count as much as those of a place."""


def _sphere(count: int) -> Float[Tensor, "count 3"]:
    """Unit vectors spread evenly over the sphere, on a spiral of golden angles."""
    number = torch.arange(count) + 0.5
    y = 1 - 2 * number / count
    turn = math.pi * (1 + 5**0.5) * number
    radius = (1 - y.square()).sqrt()
    return torch.stack([radius * turn.cos(), y, radius * turn.sin()], dim=-1)


class Guidance(nn.Module):
    """Training-only heads on the pixel and part features, and their losses.

    Args:
        config: The network.
        kind: Labels that guide, one of :data:`glnet_train.recipe.GUIDANCES`.
        body: The body in the crops, which IUV maps need.
    """

    directions: Tensor
    membership: Tensor

    def __init__(self, config: GLNetConfig, kind: str = "all", body: Body | None = None) -> None:
        super().__init__()
        self.grid = config.grid
        names = GUIDANCES[kind]
        self.heat = self.facing = self.surface = self.charts = None
        if "heat" in names:
            self.heat = nn.Conv2d(config.pixel_channels, config.keypoints, 1)
            assert self.heat.bias is not None
            nn.init.constant_(self.heat.bias, -4.0)  # a keypoint is nearly nowhere
        if "facing" in names:
            self.facing = nn.Linear(config.pixel_channels, DIRECTIONS)
        self.register_buffer("directions", _sphere(DIRECTIONS), persistent=False)
        if "segments" in names:
            further = PLACE if "places" in names else 2 * BODY_JOINTS if "charts" in names else 0
            self.surface = nn.Conv2d(config.pixel_channels, BACKGROUND + 1 + further, 1)
        if "charts" in names:
            assert body is not None
            self.charts = Charts(body)
        self.has_points = "part points" in names and config.local_encoding
        membership = torch.zeros(len(PARTS), SKELETON_JOINTS)
        for part, joints in enumerate(PARTS.values()):
            membership[part, list(joints)] = 1
        self.register_buffer("membership", membership, persistent=False)

    def forward(self, prediction: Prediction, targets: Targets, index: Int[Tensor, "n p"]) -> dict[str, Float[Tensor, ""]]:
        """The guidance losses by name.

        Args:
            prediction: The network's prediction, with its features.
            targets: The labels.
            index: The positive pixels.
        """
        terms, features = {}, prediction.pixel_features
        if self.heat is not None:
            terms["heat"] = self._heat_loss(self.heat(features.float()), targets)
        if self.facing is not None:
            at_positives = gather_pixels(features, index).squeeze(3).transpose(1, 2)
            terms["facing"] = self._facing_loss(self.facing(at_positives.float()), targets)
        if self.surface is not None:
            terms |= self._surface_losses(self.surface(features.float()), targets)
        if self.has_points:
            assert prediction.points is not None
            terms["part points"] = self._point_loss(prediction.points, targets, index)
        return terms

    def _heat_loss(self, logits: Tensor, targets: Targets) -> Tensor:
        """Cross entropy of the heat maps against Gaussians about the keypoints, per labelled keypoint."""
        centers = (targets.estimate.keypoints + 0.5) * self.grid - 0.5
        cells = torch.arange(self.grid, device=logits.device)
        near = (-(cells - centers.unsqueeze(-1)).square() / (2 * HEAT_RADIUS**2)).exp()  # N x K x 2 x cells
        heat = near[:, :, 1, :, None] * near[:, :, 0, None, :]
        entropy = functional.binary_cross_entropy_with_logits(logits, heat, reduction="none").sum((-2, -1))
        return weighted_mean(entropy, targets.keypoint_weights) / self.grid

    def _facing_loss(self, logits: Tensor, targets: Targets) -> Tensor:
        """Cross entropy of the facing direction at positive pixels, relative to the ray through the crop's centre."""
        forward = targets.rotations[:, 0, :, 2]  # the rest pose faces +z
        forward = (viewing_rotations(targets.cameras).transpose(1, 2) @ forward.unsqueeze(-1)).squeeze(-1)
        label = (CONCENTRATION * forward @ self.directions.T).softmax(-1)
        entropy = -(label.unsqueeze(1) * logits.log_softmax(-1)).sum(-1)
        return weighted_mean(entropy, targets.pose_weights[:, :1].expand(entropy.shape))

    def _surface_losses(self, found: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Cross entropy of the segments where they are known, and L1 errors of where on the person the pixels are.

        Places are compared in metres, U and V as shares. V is an angle: it is compared the shorter way around.
        """
        logits, where = found[:, : BACKGROUND + 1], found[:, BACKGROUND + 1 :]
        known = targets.segments != UNKNOWN
        entropy = functional.cross_entropy(logits, targets.segments.where(known, BACKGROUND).long(), reduction="none")
        person = known & (targets.segments != BACKGROUND)
        # The background is most of a crop, and soon easy: person and background count as much as each other.
        background = (known & ~person).float()
        weights = background / background.mean().clamp_min(1e-6) + person / person.float().mean().clamp_min(1e-6)
        terms = {"segments": weighted_mean(entropy, weights)}
        if self.charts is not None:
            segments = targets.segments.where(person, 0)
            own = segments[:, None, None].long().expand(-1, -1, 2, -1, -1)
            chosen = where.unflatten(1, (BODY_JOINTS, 2)).gather(1, own).squeeze(1).permute(0, 2, 3, 1)
            error = chosen - self.charts(segments, targets.places[..., :3])
            u, v = error.unbind(-1)
            terms["charts"] = CHART_WEIGHT * weighted_mean(u.abs() + (v - v.detach().round()).abs(), person.float())
        elif where.shape[1]:
            error = (where.permute(0, 2, 3, 1) - targets.places).abs().sum(-1)
            terms["places"] = PLACE_WEIGHT * weighted_mean(error, person.float())
        return terms

    def _point_loss(self, points: Tensor, targets: Targets, index: Tensor) -> Tensor:
        """L1 distance of the part points of positive pixels from the middles of their parts' keypoints, in grid cells."""
        points = gather_points(points, index)  # N x positives x parts x 2
        weights = self.membership * targets.keypoint_weights[:, None, :SKELETON_JOINTS]  # N x parts x 29
        total = weights.sum(-1)
        middles = weights @ targets.estimate.keypoints[:, :SKELETON_JOINTS] / total.clamp_min(1e-6).unsqueeze(-1)
        error = (points - ((middles + 0.5) * self.grid - 0.5).unsqueeze(1)).abs().mean((1, 3))
        return weighted_mean(error, total)
