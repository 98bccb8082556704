"""The rasteriser, against hand-made meshes."""

import torch

from glnet_render.renderer import Rasterizer

FACING = torch.tensor([[0, 2, 1], [1, 2, 3]])
"""Two triangles of a quad whose vertices are upper left, upper right, lower left, lower right: seen from the front."""


def quad(left: float, top: float, right: float, bottom: float) -> torch.Tensor:
    return torch.tensor([[[left, top], [right, top], [left, bottom], [right, bottom]]])


def coverage(rasterizer: Rasterizer, points: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
    fragments = rasterizer(points, depths)
    ones = torch.ones(*fragments.covered.shape, 1)
    return fragments.resolve(ones, len(points), rasterizer.size)[1][..., 0]


def test_coverage_is_the_share_of_every_pixel():
    """A quad from 1.5 to 6 pixels by 2 to 5.5 pixels of 8."""
    found = coverage(Rasterizer(FACING, 8), quad(1.5 / 8, 2 / 8, 6 / 8, 5.5 / 8) - 0.5, torch.ones(1, 4))
    expected = torch.zeros(8, 8)
    expected[2:5, 2:6] = 1
    expected[2:5, 1] = expected[5, 2:6] = 0.5
    expected[5, 1] = 0.25
    torch.testing.assert_close(found[0], expected)


def test_back_faces_are_not_drawn():
    assert coverage(Rasterizer(FACING.flip(1), 8), quad(-0.3, -0.3, 0.3, 0.3), torch.ones(1, 4)).sum() == 0


def test_nothing_in_sight():
    assert coverage(Rasterizer(FACING, 8), quad(0.6, 0.6, 0.9, 0.9), torch.ones(1, 4)).sum() == 0


def test_the_nearer_of_two_is_seen_whatever_the_order():
    points = torch.cat([quad(-0.4, -0.4, 0.4, 0.4), quad(-0.2, -0.2, 0.2, 0.2)], dim=1)
    values = torch.tensor([1.0] * 4 + [2.0] * 4).view(1, 8, 1)
    for faces in (torch.cat([FACING, FACING + 4]), torch.cat([FACING + 4, FACING])):
        for depths, middle in (([1.0] * 4 + [2.0] * 4, 1.0), ([2.0] * 4 + [1.0] * 4, 2.0)):
            fragments = Rasterizer(faces, 16)(points, torch.tensor([depths]))
            image, _ = fragments.resolve(fragments.interpolate(values), 1, 16)
            assert image[0, 8, 8, 0] == middle
            assert image[0, 3, 3, 0] == 1.0


def test_tilted_triangles_cut_each_other_where_their_depths_meet():
    """Two quads over the same square, one nearer at the left, one at the right, both seen in perspective."""
    points = quad(-0.5, -0.5, 0.5, 0.5).repeat(1, 2, 1)
    depths = torch.tensor([[1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0, 1.0]])
    fragments = Rasterizer(torch.cat([FACING, FACING + 4]), 16)(points, depths)
    image, _ = fragments.resolve(fragments.interpolate(torch.tensor([0.0] * 4 + [1.0] * 4).view(1, 8, 1)), 1, 16)
    assert (image[0, :, :8] == 0).all()
    assert (image[0, :, 8:] == 1).all()


def test_values_are_interpolated_and_meshes_kept_apart():
    points = quad(-0.5, -0.5, 0.5, 0.5).repeat(2, 1, 1)
    values = torch.stack([points[0], points[1] + 10])
    fragments = Rasterizer(FACING, 10)(points, torch.ones(2, 4))
    image, _ = fragments.resolve(fragments.interpolate(values), 2, 10)
    ramp = (torch.arange(10) + 0.5) / 10 - 0.5
    for mesh, shift in enumerate((0, 10)):
        torch.testing.assert_close(image[mesh, ..., 0], ramp.expand(10, 10) + shift, atol=1e-4, rtol=0)
        torch.testing.assert_close(image[mesh, ..., 1], ramp[:, None].expand(10, 10) + shift, atol=1e-4, rtol=0)


def test_a_fine_mesh_has_no_holes_at_any_size():
    """A grid of small triangles, sheared so that no edge is parallel to the pixels, fills the inside of its outline."""
    side = 23
    ramp = torch.linspace(-0.4, 0.4, side)
    y, x = torch.meshgrid(ramp, ramp, indexing="ij")
    points = torch.stack([x + 0.17 * y, y - 0.13 * x], dim=-1).view(1, -1, 2)
    corner = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).flatten()
    faces = torch.cat([(FACING + torch.tensor([0, 1, side, side + 1])[FACING] - FACING) + c for c in corner])
    for size in (9, 32, 97):
        found = coverage(Rasterizer(faces, size), points, torch.ones(1, side * side))
        outline = points[:, [0, side - 1, side * (side - 1), side * side - 1]]
        expected = coverage(Rasterizer(FACING, size), outline, torch.ones(1, 4))
        inside = -torch.nn.functional.max_pool2d(-expected, 3, 1, 1) == 1
        assert (found[inside] == 1).all()
        # Samples on the outline itself may be taken or not.
        assert (found - expected).abs().max() <= 0.25
        assert (found != expected).float().mean() < 0.01
