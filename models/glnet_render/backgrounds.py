"""Backgrounds: procedural pictures, and windows of photographs from a folder."""

import hashlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from glnet_infer.errors import InputError
from glnet_infer.files import is_file
from glnet_infer.image_files import IMAGE_SUFFIXES, is_image_name, read_image
from glnet_render.randomness import Draw
from glnet_render.textures import colors, noise, patterns

TILE = 512
"""Side of the squares that photographs are kept as, pixels."""

MAXIMUM_TILES = 400
"""Squares that are kept at most, about 300 MB. Of a larger folder every n-th photograph is read."""

PROCEDURAL_SHARE = 0.25
"""Share of procedural backgrounds where there are photographs too: plain walls are rare in photographs."""

_SHAPES = 7


def procedural(draw: Draw, count: int, size: int) -> Tensor:
    """Pictures without photographs: N x S x S x 3, 0 to 1.

    A floor and a wall or sky, each a gradient of two colours, with tiles, planks or wallpaper on some; convex shapes and
    bars in any direction; noise of several scales.
    """
    device = draw.device
    ramp = (torch.arange(size, device=device) + 0.5) / size - 0.5

    def linear(slope: Tensor, offset: Tensor) -> Tensor:
        """A plane over the picture, N x S x S, from slopes along x and y (N x 2) and a value at the middle (N)."""
        return (slope[:, 0, None] * ramp)[:, None, :] + (slope[:, 1, None] * ramp + offset[:, None])[:, :, None]

    palette = colors(draw, 4 * count).view(count, 4, 3)
    # The two colours of a gradient are mostly alike.
    alike = 1 - 0.75 * draw.chance(count, 2, 1, probability=0.7).float()
    begins, ends = palette[:, :2], torch.lerp(palette[:, :2], palette[:, 2:], alike)
    tilt = torch.stack([draw.normal(count, deviation=0.08), torch.ones(count, device=device)], dim=-1)
    sharp = draw.log_uniform(count, 1, low=6, high=400)
    floor = (
        linear(tilt * sharp, -draw.uniform(count, low=-0.6, high=0.6) * sharp.squeeze(1) + 0.5).clamp(0, 1).unsqueeze(-1)
    )
    planes = []
    for part in range(2):
        mix = linear(draw.normal(count, 2, deviation=0.8), draw.uniform(count)).clamp(0, 1).unsqueeze(-1)
        planes.append(torch.lerp(begins[:, None, None, part], ends[:, None, None, part], mix))
    image = torch.lerp(planes[0], planes[1], floor)

    # Tiles, planks, wallpaper: a pattern on the floor, on the wall, or on both.
    cloth = patterns(draw, torch.zeros(count, 3, device=device), torch.ones(count, 3, device=device), plain=0.6)[..., :1]
    cloth = interpolate(cloth.permute(0, 3, 1, 2), (size, size), mode="bilinear").permute(0, 2, 3, 1)
    strength = draw.normal(count, 2, 1, 1, 1, deviation=0.25)
    image = image + cloth * torch.lerp(strength[:, 0], strength[:, 1], floor)

    for _ in range(_SHAPES):
        # Inside both of two strips that cross at any angle; the second one tapers.
        angle = draw.uniform(count, 1, low=0, high=torch.pi)
        other = angle + torch.pi / 2 + draw.normal(count, 1, deviation=0.3)
        center = draw.uniform(count, 2, low=-0.6, high=0.6)
        first, second = (torch.cat([direction.cos(), direction.sin()], dim=1) for direction in (angle, other))
        along = linear(first, -(first * center).sum(1))
        across = linear(second, -(second * center).sum(1))
        long, short = draw.log_uniform(2, count, 1, 1, low=0.01, high=0.45)
        taper = draw.uniform(count, 1, 1, low=-1, high=1) * (short / long).clamp(max=1)
        distance = torch.maximum(along.abs() - long, across.abs() - short - taper * along)
        opacity = draw.uniform(count, 1, 1, low=0.4, high=1.3).clamp(max=1) * draw.chance(count, 1, 1, probability=0.75)
        alpha = (0.5 - distance * size).clamp(0, 1) * opacity
        shade = 1 + along * draw.normal(count, 1, 1, deviation=1.0)
        image = torch.lerp(image, colors(draw, count)[:, None, None] * shade.unsqueeze(-1), alpha.unsqueeze(-1))

    grain = torch.zeros(count, size, size, device=device)
    for cells, amount in ((4, 0.3), (13, 0.2), (47, 0.15), (size, 0.15)):
        grain = grain + noise(draw, count, cells, size) * draw.uniform(count, 1, 1).pow(3) * amount
    return torch.clamp(image + grain.unsqueeze(-1), 0, 1)


class Photographs:
    """Squares of the photographs in a folder, as bytes in memory.

    Args:
        folder: Folder that is searched, subfolders too. Files that cannot be read are passed over.
        device: Device that holds the squares.

    Attributes:
        tiles: The squares, N x TILE x TILE x 3 uint8, RGB.
        digest: A digest of the files' names and sizes, which differs from folder to folder.

    Raises:
        InputError: The folder holds no photograph.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        files = sorted(path for path in Path(folder).rglob("*") if is_image_name(path.name) and is_file(path))
        listed = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]
        self.digest = hashlib.sha256(repr(listed).encode()).hexdigest()
        tiles: list[NDArray[np.uint8]] = []
        # Two squares of most photographs are kept.
        step = max(1, -(-2 * len(files) // MAXIMUM_TILES))
        for path in files[::step]:
            with suppress(InputError):
                tiles += _squares(read_image(path)[..., ::-1])
        if not tiles:
            raise InputError(
                f"There are no photographs in {folder}.",
                why=f"searched for {', '.join(sorted(IMAGE_SUFFIXES))}",
                fix="give a folder of pictures without people, or none",
            )
        self.tiles = torch.tensor(np.stack(tiles[:MAXIMUM_TILES]), device=device)

    def windows(self, draw: Draw, count: int, size: int) -> Tensor:
        """Random windows, N x S x S x 3, 0 to 1, from anywhere; zoomed, half of them mirrored, sampled bilinearly."""
        tile = draw.integers(count, high=len(self.tiles))
        side = draw.log_uniform(count, 1, low=min(1.0, 0.5 * size / TILE), high=1.0) * (TILE - 1)
        start = draw.uniform(count, 2) * (TILE - 1 - side)
        ramp = (torch.arange(size, device=draw.device) + 0.5) / size
        x, y = start[:, :1] + ramp * side, start[:, 1:] + ramp * side
        x = torch.where(draw.chance(count, 1, probability=0.5), x.flip(1), x)
        left, top = x.long().clamp(max=TILE - 2), y.long().clamp(max=TILE - 2)
        right_share, low_share = (x - left)[:, None, :, None], (y - top)[:, :, None, None]
        index = (tile[:, None, None] * TILE + top[:, :, None]) * TILE + left[:, None, :]
        texels = self.tiles.view(-1, 3)

        def corner(shift: int) -> Tensor:
            return texels.index_select(0, (index + shift).flatten()).view(count, size, size, 3).float()

        upper = torch.lerp(corner(0), corner(1), right_share)
        lower = torch.lerp(corner(TILE), corner(TILE + 1), right_share)
        return torch.lerp(upper, lower, low_share) / 255


def _squares(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The two ends of a photograph as squares; one, where it is almost square."""
    height, width = image.shape[:2]
    side = min(height, width)
    ends = [image[:side, :side], image[height - side :, width - side :]]
    kept = ends if max(height, width) > 1.2 * side else ends[:1]
    return [np.asarray(cv2.resize(square, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8) for square in kept]


class Backgrounds:
    """Backgrounds of a data source: procedural ones, and photographs where a folder is given."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.photographs = None if folder is None else Photographs(folder, device)

    def sample(self, draw: Draw, count: int, size: int) -> Tensor:
        """Backgrounds, N x S x S x 3, 0 to 1, some out of focus."""
        if self.photographs is None:
            image = procedural(draw, count, size)
        else:
            drawn = int(PROCEDURAL_SHARE * count)
            photographs = self.photographs.windows(draw, count - drawn, size)
            image = (
                torch.cat([photographs, procedural(draw, drawn, size)])[draw.permutation(count)] if drawn else photographs
            )
        # Out of focus: a coarse copy, enlarged, for a quarter of them.
        coarse = interpolate(image.permute(0, 3, 1, 2), scale_factor=0.2, mode="area")
        coarse = interpolate(coarse, (size, size), mode="bilinear").permute(0, 2, 3, 1)
        return torch.lerp(image, coarse, draw.uniform(count, 1, 1, 1) * draw.chance(count, 1, 1, 1, probability=0.3))
