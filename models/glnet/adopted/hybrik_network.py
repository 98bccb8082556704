"""HybrIK's networks: from crops to 29 joints in the image with depths, twists, shape and scale."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from glnet.adopted.base import AdoptedNetwork
from glnet.adopted.resnet import ResNet34
from glnet.config import PRESETS, GLNetConfig
from glnet.estimate import BETAS, TWISTS
from glnet.hrnet import HRNet, initialize
from glnet.network import Normalization
from glnet_infer.skeleton import SKELETON_JOINTS, mirror_order

_SCALE = 0.4
"""Crop sides that a metre spans: a person of two metres fills a crop."""

CELLS = 64
"""Cells of the heat map along each axis."""


class HybrikEstimate(NamedTuple):
    """A network's answer.

    Attributes:
        joints: N x 29 x 3: x and y in crop sides from the middle of the crop's pixel (S/2, S/2), depth in HybrIK's unit.
        twists: N x 23 x 2, cosine and sine.
        betas: N x 10.
        scale: N x 1, crop sides that a metre spans.
        sigma: N x 29, how unsure each joint is, 0 to 1.
    """

    joints: Tensor
    twists: Tensor
    betas: Tensor
    scale: Tensor
    sigma: Tensor


def _marginals(logits: Float[Tensor, "n j*d h w"]) -> Float[Tensor, "n j 3 c"]:
    """How likely each joint is at each x, y and depth.

    Each of the three is divided by its own sum: that of the whole volume, a quarter of a million numbers, is less exact.
    """
    volume = logits.unflatten(1, (SKELETON_JOINTS, CELLS))
    shares = (volume - volume.amax((2, 3, 4), keepdim=True)).exp()
    sums = torch.stack([shares.sum((2, 3)), shares.sum((2, 4)), shares.sum((3, 4))], dim=2)
    return sums / sums.sum(-1, keepdim=True)


def _two_views(values: Tensor) -> tuple[Tensor, Tensor]:
    """The first half of a batch and the second one."""
    first, second = values.unflatten(0, (2, -1)).unbind()
    return first, second


class HybrikNetwork(AdoptedNetwork):
    """What the three forms share: heads on a global feature, and the average with the mirrored crop.

    Args:
        width: Channels of the global feature.
        cameras: Numbers that the camera head gives; the first one is the scale.
        flip_test: Whether the mirrored crop is looked at as well, and both answers averaged.
    """

    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, width: int, cameras: int, flip_test: bool) -> None:
        super().__init__()
        self.flip_test = flip_test
        self.normalization = Normalization(GLNetConfig.mean, GLNetConfig.std)
        self.decshape = nn.Linear(width, BETAS)
        self.decphi = nn.Linear(width, 2 * TWISTS)
        self.deccam = nn.Linear(width, cameras)
        self.decsigma = nn.Linear(width, SKELETON_JOINTS)
        self.register_buffer("init_shape", torch.zeros(BETAS))
        self.register_buffer("init_cam", torch.zeros(cameras))
        self.mirrored = mirror_order(SKELETON_JOINTS)

    @torch.no_grad()
    def draw(self, rest: Float[Tensor, "29 3"]) -> None:
        """Persons of the body's mean shape, or, from heat maps, of any bones."""
        initialize(self)
        for head, deviation in ((self.decshape, 0.02), (self.decphi, 0.02), (self.deccam, 0.002), (self.decsigma, 0.02)):
            nn.init.normal_(head.weight, std=deviation)
            nn.init.zeros_(head.bias)
        self.decphi.bias[::2] = 1
        nn.init.constant_(self.decsigma.bias, -4)
        self.init_cam[0] = _SCALE
        self.draw_joints(rest)

    def draw_joints(self, rest: Float[Tensor, "29 3"]) -> None:
        """Draw the weights that joints come from."""
        raise NotImplementedError

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What joints are read from, and the global feature, both float32."""
        raise NotImplementedError

    def places(self, seen: Tensor, mirrored: Tensor | None) -> Float[Tensor, "n 29 3"]:
        """Joints, from one view or the average with the mirrored one."""
        raise NotImplementedError

    def mean_scale(self, scale: Tensor, mirrored: Tensor) -> Tensor:
        """The scale of two views: that of the mean distance."""
        return 2 / (1 / scale + 1 / mirrored)

    def forward(self, crops: UInt8[Tensor, "n s s 3"]) -> HybrikEstimate:
        """Look at crops."""
        images = self.normalization(crops).to(self.precision)
        if not self.flip_test:
            seen, feature = self.features(images)
            betas, twists, scale, sigma = self._heads(feature)
            return HybrikEstimate(self.places(seen, None), twists, betas, scale, sigma)
        # One pass over both: a graph that uses weights twice keeps its batch norms, and int8 gains little around them.
        both, feature = self.features(torch.cat([images, images.flip(3)]))
        seen, seen_mirrored = _two_views(both)
        (betas, other_betas), (twists, other_twists), (scale, other_scale), (sigma, other_sigma) = map(
            _two_views, self._heads(feature)
        )
        turned = [joint - 1 for joint in self.mirrored[1 : TWISTS + 1]]
        other_twists = other_twists[:, turned] * torch.tensor([1.0, -1.0], device=crops.device)
        return HybrikEstimate(
            self.places(seen, seen_mirrored),
            (twists + other_twists) / 2,
            (betas + other_betas) / 2,
            self.mean_scale(scale, other_scale),
            (sigma + other_sigma[:, self.mirrored]) / 2,
        )

    def _heads(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Betas, twists, scale, sigma."""
        twists: Tensor = self.decphi(feature).unflatten(1, (TWISTS, 2))
        scale = (self.deccam(feature) + self.init_cam)[:, :1]
        return self.decshape(feature) + self.init_shape, twists, scale, self.decsigma(feature).sigmoid()


class VolumeNetwork(HybrikNetwork):
    """Joints from a heat map of 64 x 64 x 64 cells each: a softmax over the volume, in float32.

    Attributes:
        volume: Gives the maps' logits.
    """

    volume: nn.Conv2d

    def draw_joints(self, rest: Float[Tensor, "29 3"]) -> None:
        """Maps with peaks: joints that all lay in the middle would have no bones."""
        nn.init.normal_(self.volume.weight, std=0.5)
        assert self.volume.bias is not None
        nn.init.normal_(self.volume.bias, std=2.0)

    def places(self, seen: Tensor, mirrored: Tensor | None) -> Tensor:
        """Joints from heat maps; those of the mirrored crop are turned back first, and moved by the cell they are off."""
        marginals = _marginals(seen)
        if mirrored is not None:
            # Cell i of the mirrored map is cell 63 - i: their left edges, which stand for cells here, are one cell apart.
            moved = torch.cat([mirrored[..., 1:], mirrored[..., -1:]], dim=-1)
            x, y, depth = _marginals(moved)[:, self.mirrored].unbind(2)
            marginals = (marginals + torch.stack([x.flip(-1), y, depth], dim=2)) / 2
        return marginals @ (torch.arange(CELLS, dtype=marginals.dtype, device=marginals.device) / CELLS - 0.5)


class HeatMapNetwork(VolumeNetwork):
    """HRNet-W48 and heat maps."""

    half_modules = ("preact",)
    renamed = {"volume.": "preact.final_layer.", "preact.final_layer.": "preact.final_feat_layer."}  # noqa: RUF012

    def __init__(self, flip_test: bool = False) -> None:
        backbone = PRESETS["w48"].backbone
        super().__init__(backbone.feature_channels, 1, flip_test)
        self.preact = HRNet(backbone)
        self.volume = nn.Conv2d(backbone.channels[0], SKELETON_JOINTS * CELLS, 1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps and the pooled feature. Logits are steep, half precision would move joints by millimetres."""
        found = self.preact(images)
        return self.volume(found.pixels.float()), found.pooled.float()


class RegressionNetwork(HybrikNetwork):
    """HRNet-W48; joints from one linear layer."""

    half_modules = ("preact",)
    renamed = {"preact.final_layer.": "preact.final_feat_layer."}  # noqa: RUF012

    def __init__(self, flip_test: bool = False) -> None:
        backbone = PRESETS["w48"].backbone
        super().__init__(backbone.feature_channels, 1, flip_test)
        self.preact = HRNet(backbone)
        self.fc_coord = nn.Linear(backbone.feature_channels, 3 * SKELETON_JOINTS)

    def draw_joints(self, rest: Float[Tensor, "29 3"]) -> None:
        """Joints of the rest pose, upright."""
        nn.init.normal_(self.fc_coord.weight, std=0.002)
        places = rest * torch.tensor([_SCALE, -_SCALE, -1 / GLNetConfig.depth_range])
        self.fc_coord.bias.copy_(places.flatten())

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature alone."""
        pooled: Tensor = self.preact(images).pooled.float()
        return pooled, pooled

    def places(self, seen: Tensor, mirrored: Tensor | None) -> Tensor:
        """Joints from the pooled feature."""
        joints: Tensor = self.fc_coord(seen).unflatten(1, (SKELETON_JOINTS, 3))
        if mirrored is None:
            return joints
        other: Tensor = self.fc_coord(mirrored).unflatten(1, (SKELETON_JOINTS, 3))[:, self.mirrored]
        other = other * torch.tensor([-1.0, 1.0, 1.0], device=joints.device)
        return (joints + other) / 2


class ResNetNetwork(VolumeNetwork):
    """ResNet-34, three transposed convolutions and heat maps."""

    half_modules = ("preact", "deconv_layers")
    renamed = {"volume.": "final_layer."}  # noqa: RUF012

    def __init__(self, flip_test: bool = False) -> None:
        super().__init__(1024, 3, flip_test)
        self.preact = ResNet34()
        layers: list[nn.Module] = []
        for channels in (512, 256, 256):
            layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.volume = nn.Conv2d(256, SKELETON_JOINTS * CELLS, 1)
        # No activation between them: the authors have none.
        self.fc1, self.fc2 = nn.Linear(512, 1024), nn.Linear(1024, 1024)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps and the global feature."""
        deep = self.preact(images)
        feature: Tensor = self.fc2(self.fc1(deep.float().mean((2, 3))))
        return self.volume(self.deconv_layers(deep).float()), feature

    def mean_scale(self, scale: Tensor, mirrored: Tensor) -> Tensor:
        """The mean of both, as its authors take it here."""
        return (scale + mirrored) / 2
