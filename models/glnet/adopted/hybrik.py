"""HybrIK (Li et al., "HybrIK: A Hybrid Analytical-Neural Inverse Kinematics Solution", CVPR 2021), in three forms.

Joints are lifted with depths along the optical axis, and SMPL is bent to them by adaptive inverse kinematics. The forms
with HRNet find the scale anew, so that the bent body covers the joints in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from glnet.adopted.base import AdoptedRecovery, no_choice
from glnet.adopted.hybrik_network import (
    CELLS,
    HeatMapNetwork,
    HybrikEstimate,
    HybrikNetwork,
    RegressionNetwork,
    ResNetNetwork,
)
from glnet.adopted.inverse_kinematics import bend, fitted_root, plain_root
from glnet.body.smpl import Body
from glnet.config import GLNetConfig
from glnet.estimate import MINIMUM_SCALE, TWISTS
from glnet.recovery import Recovery
from glnet_infer.contract import CropSpec
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS

DEPTH_RANGE = GLNetConfig.depth_range

HALF_PIXEL = 0.5
"""The authors count pixels from their centres, this library from the crop's corner."""


class Hybrik(AdoptedRecovery):
    """What the three forms share: the decoder.

    Attributes:
        make: Makes the network; whether with flip test.
        slope: How fast a joint loses weight as it gets unsure, where the scale is found anew; 0: it is the network's.
        adaptive: Whether the body for that is bent adaptively.
        clamped: Whether weights are kept from falling below zero.
    """

    origin = "https://github.com/jeffffffli/HybrIK"
    terms = (
        "The repository is under the MIT licence and states none for the weights alone; they were trained on datasets and "
        "with SMPL, whose own terms hold, most of them non-commercial."
    )
    crop = CropSpec(size=256, padding=1.25)
    # Joints come from steep heat maps, and bones of a few centimetres are turned to them.
    amplification = 10.0
    # A bone is turned to a joint up to 15 mm away, and not at all to one that is further.
    jumps = True
    make: ClassVar[Callable[[bool], HybrikNetwork]]
    slope: ClassVar[float] = 0.0
    adaptive: ClassVar[bool] = False
    clamped: ClassVar[bool] = True

    network: HybrikNetwork

    def __init__(self, network: HybrikNetwork, body: Body) -> None:
        super().__init__(network, body)
        self.flip_test = network.flip_test

    @classmethod
    def blank(cls, flip_test: bool = False) -> HybrikNetwork:
        """The network before its weights are loaded."""
        return cls.make(flip_test)

    def forward(self, crops: UInt8[Tensor, "n s s 3"], cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Recover one mesh per crop."""
        estimate = self.network(crops)
        half = HALF_PIXEL / self.crop.size
        # The average with the mirrored crop is half a pixel to the right by itself.
        shift = torch.tensor([0.0 if self.flip_test else half, half, 0.0], device=crops.device)
        return self.decode(estimate._replace(joints=estimate.joints + shift), cameras)

    def decode(self, estimate: HybrikEstimate, cameras: Float[Tensor, "n 4"]) -> Recovery:
        """Bend the body to an estimate, whose joints are in crop sides from the crop's middle."""
        body = self.body
        rest = body.rest_joints(estimate.betas)
        scale = estimate.scale if self.slope == 0 else self._scale(estimate, cameras, rest)
        distance = cameras[:, :1] / scale.clamp_min(MINIMUM_SCALE)
        lifted = _lift(estimate.joints, distance, cameras)
        rotations = bend(lifted, rest, estimate.twists, fitted_root(lifted, rest))
        local = body.kinematics.unchain(rotations)
        posed = body(rotations, local, estimate.betas, rest)
        ahead = torch.cat([torch.zeros_like(distance), torch.zeros_like(distance), distance], dim=1)
        translation = lifted[:, 0] + ahead - rest[:, 0]
        return Recovery(
            vertices=posed.vertices + translation.unsqueeze(1),
            joints=posed.joints + translation.unsqueeze(1),
            keypoints_2d=(estimate.joints[..., :2] + 0.5) * self.crop.size,
            rotations=local,
            betas=estimate.betas,
            translation=translation,
            confidence=1 - estimate.sigma[:, :BODY_JOINTS].mean(1),
            reference_pixel=no_choice(estimate.betas),
        )

    def _scale(self, estimate: HybrikEstimate, cameras: Tensor, rest: Tensor) -> Float[Tensor, "n 1"]:
        """The scale at which the bent body covers the joints best: weighted least squares in one unknown."""
        distance = cameras[:, :1] / estimate.scale.clamp_min(MINIMUM_SCALE)
        lifted = _lift(estimate.joints, distance, cameras)
        if self.adaptive:
            rotations = bend(lifted, rest, estimate.twists, fitted_root(lifted, rest))
        else:
            rotations = bend(lifted, rest, estimate.twists, plain_root(lifted, rest), tolerance=None)
        bent = self.body.kinematics(rotations, rest)[:, :BODY_JOINTS]
        bent = bent - bent[:, :1] + lifted[:, :1]
        weights = 1 - self.slope * estimate.sigma[:, :BODY_JOINTS, None]
        if self.clamped:
            weights = weights.clamp_min(0)
        return solve_scale(estimate.joints[:, :BODY_JOINTS, :2], bent, weights, cameras, estimate.scale)


def solve_scale(
    seen: Float[Tensor, "n j 2"],
    joints: Float[Tensor, "n j 3"],
    weights: Float[Tensor, "n j 1"],
    cameras: Float[Tensor, "n 4"],
    otherwise: Float[Tensor, "n 1"],
) -> Float[Tensor, "n 1"]:
    """The scale s at which joints, moved away by ``focal / s``, are seen where they should be.

    For each joint and axis, ``ray * focal / s = joint - ray * depth``: linear in 1 / s, so one division solves it.

    Args:
        seen: Where joints should be seen, crop sides from the crop's middle.
        joints: Metres, as far away as the root's depth is zero.
        weights: Weights of the joints.
        cameras: Cameras of the crops.
        otherwise: The scale where no joint has any weight.
    """
    rays = (seen - cameras[:, None, 2:]) / cameras[:, None, :2]
    left = weights * rays * cameras[:, :1, None]
    right = weights * (joints[..., :2] - rays * joints[..., 2:])
    above, below = left.square().sum((1, 2)).unsqueeze(1), (left * right).sum((1, 2)).unsqueeze(1)
    solved = above / torch.where(below.abs() > 1e-12, below, torch.ones_like(below))
    return torch.where((above > 1e-12) & (below.abs() > 1e-12), solved, otherwise)


def _lift(joints: Float[Tensor, "n 29 3"], distance: Float[Tensor, "n 1"], cameras: Float[Tensor, "n 4"]) -> Tensor:
    """Joints in metres, the root's distance taken off their depths, which count along the optical axis."""
    depths = DEPTH_RANGE * joints[..., 2:]
    rays = (joints[..., :2] - cameras[:, None, 2:]) / cameras[:, None, :2]
    return torch.cat([rays * (depths + distance.unsqueeze(1)), depths], dim=-1)


def _heads(shapes: Mapping[str, tuple[int, ...]], width: int) -> bool:
    return shapes.get("decphi.weight") == (2 * TWISTS, width) and "decsigma.weight" in shapes


class HybrikHeatMap(Hybrik):
    """HybrIK with HRNet-W48 and heat maps."""

    name = "hybrik-hrnet-w48"
    title = "HybrIK HRNet-W48"
    make = HeatMapNetwork
    slope = 10.0

    @classmethod
    def matches(cls, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """By the layer that gives the heat maps."""
        return _heads(shapes, 2048) and shapes.get("preact.final_layer.weight", ())[:1] == (SKELETON_JOINTS * CELLS,)


class HybrikRegression(Hybrik):
    """HybrIK with HRNet-W48 and regressed joints."""

    name = "hybrik-hrnet-w48-regression"
    title = "HybrIK HRNet-W48 (regression)"
    make = RegressionNetwork
    slope = 5.0
    adaptive = True
    clamped = False

    @classmethod
    def matches(cls, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """By the layer that gives the joints."""
        return _heads(shapes, 2048) and shapes.get("fc_coord.weight", ())[:1] == (3 * SKELETON_JOINTS,)


class HybrikResNet(Hybrik):
    """HybrIK with ResNet-34."""

    name = "hybrik-resnet-34"
    title = "HybrIK ResNet-34"
    make = ResNetNetwork

    @classmethod
    def matches(cls, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """By its transposed convolutions."""
        return _heads(shapes, 1024) and "deconv_layers.0.weight" in shapes
