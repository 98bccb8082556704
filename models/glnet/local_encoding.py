"""The 2D Keypoint-Guided Local Encoding Module: every pixel gathers features from seven points on the person.

The poster says that each pixel fuses body-part features at "parts relevant points"; that these are the part-adaptive
points of the same authors' AdaptivePose (arXiv 2112.13635) is an inference, see ``docs/network.md``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from glnet.config import GLNetConfig
from glnet.parts import PARTS
from glnet.sampling import Sampler, sample_by_grid
from glnet_infer.skeleton import SKELETON_JOINTS


class LocalEncoding(NamedTuple):
    """Pixel features after the module.

    Attributes:
        pixels: N x C x H x W, the features that confidence and shape are predicted from.
        parts: N x 7 c x H x W, each part's feature at its point, or None without the module.
        points: N x 7 x H x W x 2, each pixel's part points (x, y) in grid cells, or None without the module.
    """

    pixels: Tensor
    parts: Tensor | None
    points: Tensor | None


class LocalEncodingModule(nn.Module):
    """Pixel features, enriched by part features where the configuration says so, and by the global feature."""

    membership: Tensor
    cells: Tensor

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        channels, part_channels, parts = config.pixel_channels, config.part_channels, len(PARTS)
        self.from_coarse = config.point_origin == "coarse"
        self.sample: Sampler = sample_by_grid
        self.precision = torch.float32
        self.pixel = nn.Conv2d(config.backbone.channels[0], channels, 3, padding=1)
        self.coarser: nn.ModuleList | None = None
        if config.pixel_source == "all":
            self.coarser = nn.ModuleList(nn.Conv2d(branch, channels, 1) for branch in config.backbone.channels[1:])
        self.guide = nn.Linear(config.backbone.feature_channels, channels)
        self.fuse = nn.Conv2d(channels, channels, 1)
        self.enriched = config.local_encoding
        if not self.enriched:
            return
        self.offsets = nn.Conv2d(channels, 2 * parts, 3, padding=1)
        self.part = nn.Sequential(
            nn.Conv2d(channels, parts * part_channels, 1, bias=False),
            nn.BatchNorm2d(parts * part_channels),
            nn.ReLU(),
            nn.Conv2d(parts * part_channels, parts * part_channels, 3, padding=1, groups=parts, bias=False),
            nn.BatchNorm2d(parts * part_channels),
            nn.ReLU(),
        )
        # 1 x 1, so that all that follows the sampling is pointwise and can be evaluated at the chosen pixel alone.
        self.fuse_parts = nn.Conv2d(parts * part_channels, channels, 1, bias=False)
        membership = torch.zeros(parts, SKELETON_JOINTS)
        for part, joints in enumerate(PARTS.values()):
            membership[part, list(joints)] = 1 / len(joints)
        self.register_buffer("membership", membership, persistent=False)
        ys, xs = torch.meshgrid(torch.arange(config.grid), torch.arange(config.grid), indexing="ij")
        self.register_buffer("cells", torch.stack([xs, ys], dim=-1).float(), persistent=False)

    def initialize(self) -> None:
        """Let points start at their origin (AdaptivePose); call it after the convolutions have been initialised."""
        if self.enriched:
            for parameter in self.offsets.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        features: Float[Tensor, "n c h w"],
        pooled: Float[Tensor, "n f"],
        coarse_keypoints: Float[Tensor, "n k 2"],
        coarser: Sequence[Tensor] = (),
    ) -> LocalEncoding:
        """Encode every pixel.

        Args:
            features: The backbone's highest-resolution map.
            pooled: The global feature.
            coarse_keypoints: Coarse keypoints in crop sides from the centre; the first 29 are the skeleton's.
            coarser: The backbone's other maps, each half as large as the one before; needed if ``pixel_source`` is ``all``.
        """
        pixels = self.pixel(features.to(self.precision))
        if self.coarser is not None:
            pixels = pixels + self._enlarged(coarser)
        pixels = pixels.relu()
        fused = self.fuse(pixels + self.guide(pooled.to(self.precision))[:, :, None, None])
        if not self.enriched:
            return LocalEncoding(fused.relu(), None, None)
        points = self._points(pixels, coarse_keypoints)
        parts = self.sample(self.part(pixels), points)
        return LocalEncoding((fused + self.fuse_parts(parts)).relu(), parts, points)

    def _enlarged(self, maps: Sequence[Tensor]) -> Tensor:
        """The sum of coarser maps at the size of pixels.

        Enlarging is bilinear, as in HRNetV2. So offsets from a pixel, which change by one from pixel to pixel, can be made
        from maps of lower resolution. One octave at a time costs a third of enlarging each map on its own.
        """
        assert self.coarser is not None
        total: Tensor | None = None
        for layer, features in zip(reversed(self.coarser), reversed(maps), strict=True):
            part: Tensor = layer(features.to(self.precision))
            total = part if total is None else part + total
            total = functional.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
        assert total is not None
        return total

    def _points(self, pixels: Tensor, coarse_keypoints: Tensor) -> Tensor:
        """Part points in grid cells, in float32: next to coordinates up to 63, half precision resolves 1/32 of a cell."""
        offsets: Tensor = self.offsets(pixels).float().unflatten(1, (len(PARTS), 2)).permute(0, 1, 3, 4, 2)
        if not self.from_coarse:
            return self.cells + offsets
        # The coarse keypoints have losses of their own: where points start must not pull on them.
        coarse = coarse_keypoints[:, None, :SKELETON_JOINTS].detach()
        # Not a matrix product: autocast would compute that in half precision.
        centers = (self.membership[:, :, None] * coarse).sum(2)
        cells = (centers + 0.5) * self.cells.shape[0] - 0.5
        return cells[:, :, None, None] + offsets
