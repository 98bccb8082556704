"""A batched rasteriser in plain PyTorch: z-buffer by scatter-min over the pixel samples that lie inside triangles.

The triangles of a body are about as small as pixels. So every front face lists the samples inside its bounding box and
keeps those inside the triangle. The number of points follows the projected area, and there are no holes at any size. A
scatter-min over depths leaves the nearest point of every sample. There is no loop over triangles, and no order of atomics
shows: the same input gives the same fragments on one device.

Three sizes are known only after they are computed: front faces, points, covered pixels. Each costs one wait for the device
per call, little beside the work of a batch. Dense forms without waiting would do four times the work.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_INSIDE = -1e-4
"""Least barycentric coordinate that counts as inside, so that rounding leaves no cracks between neighbours."""

_NOTHING = torch.iinfo(torch.int64).max


class Fragments(NamedTuple):
    """The parts of N meshes that are seen: P covered pixels with Q samples each.

    Attributes:
        pixels: P, index of the pixel in a flattened N x S x S image.
        covered: Q x P bool, samples that see the mesh.
        corners: Q x P x 3, vertices of the triangle seen, as indices into the flattened N x V vertices.
        weights: Q x P x 3, barycentric coordinates in the image.
    """

    pixels: Tensor
    covered: Tensor
    corners: Tensor
    weights: Tensor

    def interpolate(self, values: Tensor) -> Tensor:
        """Values of the samples, Q x P x C, from values of the vertices, N x V x C."""
        table = values.flatten(0, 1)
        total: Tensor | None = None
        for corner, weight in zip(self.corners.unbind(-1), self.weights.unbind(-1), strict=True):
            part = table.index_select(0, corner.flatten()) * weight.flatten().unsqueeze(-1)
            total = part if total is None else total.add_(part)
        assert total is not None
        mixed: Tensor = total.unflatten(0, self.covered.shape)
        return mixed

    def every(self, stride: int, size: int) -> "Fragments":
        """The middles of all squares of ``stride`` pixels that see the mesh, one sample each; pixels count these squares.

        Args:
            stride: An even divisor of S.
            size: S.
        """
        row, column = self.pixels.div(size, rounding_mode="floor"), self.pixels % size
        # The sample to the lower right of a square's middle is the first one of the pixel there.
        middle = (row % stride == stride // 2) & (column % stride == stride // 2) & self.covered[0]
        chosen = middle.nonzero().squeeze(1)
        row, column = row[chosen].div(stride, rounding_mode="floor"), column[chosen].div(stride, rounding_mode="floor")
        return Fragments(
            row * (size // stride) + column,
            self.covered[:1, chosen],
            self.corners[:1, chosen],
            self.weights[:1, chosen],
        )

    def resolve(self, colors: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Average the samples of every pixel.

        Args:
            colors: Q x P x C.
            count: N.
            size: S.

        Returns:
            Premultiplied colours, N x S x S x C, and coverage, N x S x S x 1.
        """
        covered = self.covered.unsqueeze(-1).to(colors)
        both = torch.cat([colors * covered, covered], dim=-1).mean(0)
        image = colors.new_zeros(count * size * size, both.shape[-1])
        image[self.pixels] = both
        image = image.view(count, size, size, -1)
        return image[..., :-1], image[..., -1:]


class Rasterizer:
    """Rasterises meshes of one topology onto square images.

    Args:
        faces: F x 3, counter-clockwise seen from outside; the mesh is closed, so its back faces are never seen.
        size: S, pixels.
        supersampling: Samples per pixel and axis, on a regular grid.
    """

    def __init__(self, faces: Tensor, size: int, supersampling: int = 2) -> None:
        self.faces = faces.long()
        self.corners = self.faces.unbind(-1)
        self.size = size
        self.supersampling = supersampling

    def __call__(self, points: Tensor, depths: Tensor) -> Fragments:
        """Rasterise.

        Args:
            points: N x V x 2, projected vertices in crop sides from the crop's centre (x right, y down).
            depths: N x V, metres, all positive.
        """
        count, vertices = depths.shape
        s = self.supersampling
        samples = self.size * s
        # Whole numbers are sample positions.
        points = (points + 0.5) * samples - 0.5
        x0, x1, x2 = (points[..., 0].index_select(1, corner) for corner in self.corners)
        y0, y1, y2 = (points[..., 1].index_select(1, corner) for corner in self.corners)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        left, right = _bounds(x0, x1, x2, samples)
        top, bottom = _bounds(y0, y1, y2, samples)
        # With y down, triangles that are counter-clockwise from outside turn the other way when seen from the front.
        seen = (area < 0) & (right >= left) & (bottom >= top)
        front = seen.flatten().nonzero().squeeze(1)
        x0, x1, x2, y0, y1, y2, area, left, right, top, bottom = (
            values.flatten().index_select(0, front) for values in (x0, x1, x2, y0, y1, y2, area, left, right, top, bottom)
        )
        mesh = front.div(seen.shape[1], rounding_mode="floor")
        faces = self.faces.index_select(0, front - mesh * seen.shape[1]) + (mesh * vertices).unsqueeze(-1)
        z0, z1, z2 = depths.flatten().index_select(0, faces.flatten()).reciprocal().view(-1, 3).unbind(-1)

        # Every triangle's points: the samples of its box, row by row. Barycentric coordinates and inverse depth are
        # affine in the image; one row of coefficients a triangle, from the box's upper left sample.
        scale = area.reciprocal()
        ux, uy = (y1 - y2) * scale, (x2 - x1) * scale
        vx, vy = (y2 - y0) * scale, (x0 - x2) * scale
        dx, dy = left - x2, top - y2
        plane = torch.stack([ux, uy, ux * dx + uy * dy, vx, vy, vx * dx + vy * dy], dim=-1)
        width = (right - left + 1).int()
        numbers = width * (bottom - top + 1).int()
        triangle = torch.repeat_interleave(numbers)
        offset = torch.arange(len(triangle), device=depths.device, dtype=torch.int32)
        offset = offset - (numbers.cumsum(0) - numbers).int().index_select(0, triangle)
        wide = width.index_select(0, triangle)
        down = offset.div(wide, rounding_mode="floor")
        across = offset - down * wide
        ux, uy, u0, vx, vy, v0 = plane.index_select(0, triangle).unbind(-1)
        u = u0 + ux * across + uy * down
        v = v0 + vx * across + vy * down
        inside = (torch.minimum(u, v) >= _INSIDE) & (u + v <= 1 - _INSIDE)
        inside = inside.nonzero().squeeze(1)
        triangle, u, v, across, down = (values.index_select(0, inside) for values in (triangle, u, v, across, down))

        # Bits of positive floats are ordered like the floats: depth and point in one number, so that the nearest point
        # is the least number.
        inverse = torch.stack([z0 - z2, z1 - z2, z2], dim=-1).index_select(0, triangle)
        depth = (u * inverse[:, 0] + v * inverse[:, 1] + inverse[:, 2]).clamp(min=1e-6).reciprocal()
        key = (depth.view(torch.int32).long() << 32) | torch.arange(len(triangle), device=depths.device)
        base = torch.stack([left.int(), top.int(), mesh.int()], dim=-1).index_select(0, triangle)
        column, line = base[:, 0] + across, base[:, 1] + down
        pixel = (base[:, 2] * self.size + line // s) * self.size + column // s
        sample = ((line % s) * s + column % s) * (count * self.size**2) + pixel
        buffer = torch.full((count * samples * samples,), _NOTHING, dtype=torch.int64, device=depths.device)
        buffer.scatter_reduce_(0, sample.long(), key, "amin")

        buffer = buffer.view(s * s, -1)
        pixels = (_least(buffer) != _NOTHING).nonzero().squeeze(1)
        nearest = buffer.index_select(1, pixels)
        covered = nearest != _NOTHING
        # Uncovered samples repeat the pixel's nearest covered one, so that their indices are valid.
        nearest = torch.where(covered, nearest, _least(nearest)).bitwise_and_(0xFFFFFFFF).flatten()
        corners = faces.index_select(0, triangle.index_select(0, nearest))
        u, v = u.index_select(0, nearest), v.index_select(0, nearest)
        weights = torch.stack([u, v, 1 - u - v], dim=-1).clamp_(0, 1)
        return Fragments(pixels, covered, corners.unflatten(0, covered.shape), weights.unflatten(0, covered.shape))


def _bounds(a: Tensor, b: Tensor, c: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """First and last sample between the least and the greatest of three coordinates; last < first where there is none."""
    low = torch.minimum(torch.minimum(a, b), c).ceil().clamp(min=0)
    high = torch.maximum(torch.maximum(a, b), c).floor().clamp(max=samples - 1)
    return low, high


def _least(rows: Tensor) -> Tensor:
    """The least of every column; one row at a time, because torch's reduction of few rows of int64 is slow on CPUs."""
    least = rows[0]
    for row in rows[1:]:
        least = torch.minimum(least, row)
    return least
