"""Random patterns as small images, for cloth, hair, skin and occluders."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from glnet_render.randomness import Draw

SIZE = 64
"""Texels per side of a pattern; patterns repeat."""


def noise(draw: Draw, count: int, cells: int, size: int) -> Tensor:
    """Smooth noise of one scale, count x size x size, about -1 to 1, from ``cells`` random values a side."""
    coarse = draw.uniform(count, 1, cells, cells, low=-1, high=1)
    return interpolate(coarse, (size, size), mode="bilinear", align_corners=True).squeeze(1)


def patterns(draw: Draw, first: Tensor, second: Tensor, plain: float, size: int = SIZE) -> Tensor:
    """Patterns of two colours.

    Stripes and checks of any width and direction, blotches, speckles or one plain colour, and on everything the slight
    unevenness of real cloth.

    Args:
        draw: Random numbers.
        first: N x 3, RGB 0 to 1.
        second: N x 3.
        plain: Probability of one plain colour.
        size: Texels per side.

    Returns:
        N x size x size x 3.
    """
    count = len(first)
    # Whole numbers of waves a side, so that stripes continue where the pattern repeats.
    waves = draw.integers(count, 2, high=13) - 6
    waves = torch.where((waves == 0).all(1, keepdim=True), 4, waves).float()[..., None, None]
    ramp = torch.arange(size, device=draw.device) / size
    phase = 2 * torch.pi * (waves[:, 0] * ramp[:, None] + waves[:, 1] * ramp)
    across = 2 * torch.pi * (waves[:, 1] * ramp[:, None] - waves[:, 0] * ramp)
    width = draw.uniform(count, 1, 1, low=-0.7, high=0.7)
    stripes = phase.sin() > width
    checks = stripes ^ (across.sin() > width)
    blotches = noise(draw, count, 9, size) + 0.5 * noise(draw, count, 21, size) > 0.5 * width
    speckles = draw.uniform(count, size, size) < 0.1 + 0.2 * width.abs()
    kinds = torch.stack([torch.zeros_like(stripes), stripes, checks, blotches, speckles])
    weights = (plain, *((1 - plain) * share for share in (0.42, 0.22, 0.26, 0.1)))
    chosen = kinds[draw.choice(count, weights=weights), torch.arange(count, device=draw.device)]
    colors = torch.where(chosen.unsqueeze(-1), second[:, None, None], first[:, None, None])
    uneven = 0.06 * noise(draw, count, 5, size) + 0.04 * draw.uniform(count, size, size, low=-1, high=1)
    return (colors * (1 + uneven.unsqueeze(-1))).clamp(0, 1)


def colors(draw: Draw, count: int) -> Tensor:
    """Colours of things, N x 3, RGB 0 to 1: grey, muted and some bright ones."""
    value = draw.uniform(count, 1, low=0.2, high=1).pow(1.4)
    tint = draw.uniform(count, 3)
    tint = tint / tint.amax(1, keepdim=True)
    saturation = draw.uniform(count, 1).pow(1.5) * 1.1
    return (value * (1 + saturation.clamp(max=1) * (tint - 1))).clamp(0, 1)
