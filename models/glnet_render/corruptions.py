"""Corruptions of a picture: occluders, the image's border, and the camera's faults."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from glnet_render.randomness import Draw
from glnet_render.textures import colors, patterns

_OCCLUDERS = 3
_QUARTER = 4

_LUMINANCE_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
"""Quantisation of luminance that the JPEG standard gives as its example (ITU-T T.81, annex K, table K.1)."""

_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_FROM_YCBCR = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class Occluders(NamedTuple):
    """Things that hide parts of the crops.

    Attributes:
        alpha: N x S x S, 0 (nothing) to 1 (hidden).
        color: N x S x S x 3, 0 to 1, premultiplied.
        inside: N x S x S bool, pixels within the image that the crop was cut from; the rest is black.
    """

    alpha: Tensor
    color: Tensor
    inside: Tensor

    def cover(self, image: Tensor) -> Tensor:
        """Images with the occluders in front."""
        return image * (1 - self.alpha.unsqueeze(-1)) + self.color

    def with_farthest(self, chosen: Tensor, color: Tensor, alpha: Tensor) -> "Occluders":
        """Occluders with one thing more, farther than all others, in M chosen crops.

        Args:
            chosen: M, indices of the crops, all different.
            color: M x S x S x 3, 0 to 1, premultiplied.
            alpha: M x S x S x 1, 0 to 1.
        """
        open_share = 1 - self.alpha[chosen].unsqueeze(-1)
        return Occluders(
            self.alpha.index_add(0, chosen, (open_share * alpha).squeeze(-1)),
            self.color.index_add(0, chosen, open_share * color),
            self.inside,
        )

    def hides(self, points: Tensor) -> Tensor:
        """Whether points (N x K x 2, crop sides from the centre) lie in the crop but are hidden, N x K bool."""
        size = self.alpha.shape[-1]
        column, line = ((points + 0.5) * size).floor().clamp(0, size - 1).long().unbind(-1)
        hidden = ((self.alpha > 0.5) | ~self.inside).flatten(1)
        return hidden.gather(1, line * size + column) & in_crop(points)


def in_crop(points: Tensor) -> Tensor:
    """Whether points, ... x 2 in crop sides from the crop's centre, lie in the crop."""
    return ((points >= -0.5) & (points < 0.5)).all(-1)


def occluders(draw: Draw, count: int, size: int, scenery: Tensor, difficulty: float) -> Occluders:
    """Up to three things in front of the person, and sometimes the image's border.

    Boxes, ellipses and limb-like bars of any direction; plain, patterned, or pieces of another picture. Beyond the border
    of its image a crop is black (``glnet_infer.crops``): one crop in twelve has a black band.

    Args:
        draw: Random numbers.
        count: N.
        size: S.
        scenery: N x S x S x 3, pictures that occluders may be pieces of.
        difficulty: Share of the full number of occluders and borders; 0 has none.
    """
    device = draw.device
    ramp = (torch.arange(size, device=device) + 0.5) / size - 0.5
    some = draw.chance(count, probability=0.4 * difficulty)
    alpha = torch.zeros(count, size, size, device=device)
    color = torch.zeros(count, size, size, 3, device=device)

    def each(values: Tensor) -> Tensor:
        return values[:, None, None]

    # The first thing is patterned, the second plain, the third a piece of another picture, in a random order.
    cloth = patterns(draw, colors(draw, count), colors(draw, count), plain=0.2)
    cloth = interpolate(cloth.permute(0, 3, 1, 2), (size, size)).permute(0, 2, 3, 1)
    surfaces = (cloth, colors(draw, count)[:, None, None], scenery.roll(1, 0))
    present = torch.stack([draw.chance(count, probability=0.35) for _ in range(_OCCLUDERS)])
    # At least one, where there are some.
    present = some & (present | (draw.integers(count, high=_OCCLUDERS) == torch.arange(_OCCLUDERS, device=device)[:, None]))
    for index, surface in enumerate(surfaces):
        kind = each(draw.integers(count, high=3))
        center = draw.normal(count, 2, deviation=0.25)
        angle = draw.uniform(count, low=0, high=torch.pi)
        cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
        x, y = ramp - center[:, :1], ramp - center[:, 1:]
        along = (cosine * x)[:, None, :] + (sine * y)[:, :, None]
        across = (cosine * y)[:, :, None] - (sine * x)[:, None, :]
        long = each(draw.uniform(count, low=0.05, high=0.24))
        short = long * each(draw.uniform(count, low=0.3, high=1))
        thick = each(draw.uniform(count, low=0.015, high=0.05))
        square = across.square()
        box = torch.maximum(along.abs() - long, across.abs() - short)
        ellipse = (torch.sqrt(along.square() / long**2 + square / short**2) - 1) * short
        # A bar that tapers, as arms, posts and branches do.
        bar = torch.sqrt((along.abs() - 2 * long).clamp(min=0).square() + square) - thick * (1 - 0.8 * along)
        distance = torch.where(kind == 0, box, torch.where(kind == 1, ellipse, bar))
        part = (0.5 - distance * size).clamp(0, 1) * each(present[index])
        shaded = surface * (1 + across * each(draw.normal(count, deviation=2))).unsqueeze(-1)
        alpha = torch.lerp(alpha, part.new_ones(()), part)
        color = torch.lerp(color, shaded.clamp(0, 1), part.unsqueeze(-1))

    banded = draw.chance(count, probability=0.08 * difficulty)
    side = draw.integers(count, high=4)
    width = each(draw.uniform(count, low=0.02, high=0.25))
    # Columns: distance from the left, right, upper and lower border.
    x, y = ramp.expand(size, size), ramp[:, None].expand(size, size)
    depth = torch.stack([x + 0.5, 0.5 - x, y + 0.5, 0.5 - y])[side]
    return Occluders(alpha, color, ~((depth < width) & each(banded)))


def camera_faults(draw: Draw, image: Tensor, difficulty: float) -> Tensor:
    """Exposure, colour, blur, low resolution, noise and compression; N x S x S x 3, 0 to 1, in and out.

    At difficulty 0 the picture is only a little soft.
    """
    image = _grade(draw, image, difficulty)
    image = _blur(draw, image, difficulty)
    # What costs more is done to a quarter of the crops each, in a random order.
    order = draw.permutation(len(image))
    if difficulty > 0 and len(image) >= _QUARTER:
        quarter = len(image) // _QUARTER
        image = image[order]
        image = torch.cat([_coarsen(draw, image[:quarter]), image[quarter:]])
        image = torch.cat(
            [
                image[: quarter // 2],
                _compress(draw, image[quarter // 2 : quarter // 2 + quarter]),
                image[quarter // 2 + quarter :],
            ]
        )
        image = image[order.argsort()]
    amount = difficulty * 0.06 * draw.uniform(len(image), 1, 1, 1).pow(3)
    return (image + amount * draw.normal(*image.shape)).clamp(0, 1)


def _grade(draw: Draw, image: Tensor, difficulty: float) -> Tensor:
    """Brightness, contrast, gamma, white balance and saturation."""
    count = len(image)
    contrast = 1 + difficulty * draw.uniform(count, 1, 1, 1, low=-0.35, high=0.3)
    brightness = difficulty * draw.uniform(count, 1, 1, 1, low=-0.12, high=0.15)
    balance = 1 + difficulty * draw.normal(count, 1, 1, 3, deviation=0.05)
    gamma = 2 ** (difficulty * draw.normal(count, 1, 1, 3, deviation=0.25).mean(-1, keepdim=True))
    grey = draw.chance(count, 1, 1, 1, probability=0.04 * difficulty)
    saturation = torch.where(grey, 0.0, 1 + difficulty * draw.uniform(count, 1, 1, 1, low=-0.4, high=0.25))
    tone = image.mean(-1, keepdim=True)
    image = torch.lerp(tone, image, saturation)
    image = ((image - 0.5) * contrast + 0.5 + brightness) * balance
    return image.clamp(1e-4, 1) ** gamma


def _blur(draw: Draw, image: Tensor, difficulty: float) -> Tensor:
    """A Gaussian per crop, sharp in most, along one axis more than the other in some (motion)."""
    count, size = image.shape[:2]
    sigma = size / 256 * (0.45 + difficulty * 2.2 * draw.uniform(count, 2).pow(6)) + 0.05
    sigma = torch.where(draw.chance(count, 1, probability=0.7), sigma[:, :1], sigma)
    reach = 4
    offsets = torch.arange(-reach, reach + 1, device=image.device)
    kernels = torch.exp(-0.5 * (offsets / sigma.unsqueeze(-1)) ** 2)
    kernels = kernels / kernels.sum(-1, keepdim=True)
    # One product with a band matrix per axis and crop: rows first, then columns.
    index = offsets[:, None] + torch.arange(size, device=image.device)
    band = torch.zeros(count, 2, size, size, device=image.device)
    rows = torch.arange(size, device=image.device).expand_as(index)
    for tap in range(2 * reach + 1):
        band[:, :, rows[tap], index[tap].clamp(0, size - 1)] += kernels[:, :, tap, None]
    planes = image.permute(0, 3, 1, 2)
    planes = band[:, None, 0] @ planes @ band[:, None, 1].transpose(-2, -1)
    return planes.permute(0, 2, 3, 1)


def _coarsen(draw: Draw, image: Tensor) -> Tensor:
    """A person few pixels high, enlarged: as if the camera had half to a fifth of the pixels."""
    size = image.shape[1]
    planes = image.permute(0, 3, 1, 2)
    coarse = [
        interpolate(interpolate(planes, (side, side), mode="area"), (size, size), mode="bilinear")
        for side in (size // 2, size // 4)
    ]
    mixed = torch.lerp(coarse[0], coarse[1], draw.uniform(len(image), 1, 1, 1).square())
    return mixed.permute(0, 2, 3, 1)


def _compress(draw: Draw, image: Tensor) -> Tensor:
    """The blocks and ringing of JPEG: quantised cosines of 8 x 8 blocks, without subsampling the chroma."""
    count, size = image.shape[:2]
    device = image.device
    convert = draw.constant(_TO_YCBCR)
    beyond = -size % 8
    planes = pad((image * 255 - 128).permute(0, 3, 1, 2), (0, beyond, 0, beyond), mode="replicate")
    planes = (planes.permute(0, 2, 3, 1) @ convert.T).permute(0, 3, 1, 2)
    blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    waves = torch.arange(8, device=device)
    cosines = torch.cos(torch.pi / 8 * (waves + 0.5) * waves[:, None]) * 0.5
    cosines[0] *= 0.5**0.5
    table = draw.constant(_LUMINANCE_TABLE)
    quality = draw.log_uniform(count, 1, 1, 1, 1, 1, low=0.25, high=2.5)
    step = (table * quality).clamp(min=1)
    blocks = cosines.T @ ((cosines @ blocks @ cosines.T / step).round() * step) @ cosines
    planes = blocks.transpose(-3, -2).flatten(-2).flatten(-3, -2)[..., :size, :size]
    image = planes.permute(0, 2, 3, 1) @ draw.constant(_FROM_YCBCR).T
    return (image + 128) / 255
