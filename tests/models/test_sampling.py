"""Both samplers against scipy's interpolation, inside the map, on its border and far outside."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from glnet.sampling import sample_by_gather, sample_by_grid


def by_group(sample):
    """The sampler for maps whose groups are apart, N x G x C x S x S."""

    def sample_groups(maps, points):
        return sample(maps.flatten(1, 2), points).unflatten(1, maps.shape[1:3])

    return sample_groups


SAMPLERS = [by_group(sample_by_grid), by_group(sample_by_gather)]


def by_scipy(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """N x G x C x S x S values: linear interpolation, the border's value beyond it."""
    out = np.empty_like(maps)
    for n, g, c in np.ndindex(maps.shape[:3]):
        x, y = np.clip(points[n, g], -1e3, 1e3).transpose(2, 0, 1)
        out[n, g, c] = ndimage.map_coordinates(maps[n, g, c], [y, x], order=1, mode="nearest")
    return out


def points_of(kind: str, rng: np.random.Generator, shape: tuple[int, ...], size: int) -> np.ndarray:
    last = size - 1
    if kind == "inside":
        return rng.uniform(0, last, shape)
    if kind == "cell centres":
        return rng.integers(0, size, shape).astype(float)
    if kind == "on the border":
        edges = rng.choice([0.0, last], shape)
        return np.where(rng.random(shape) < 0.5, edges, rng.uniform(0, last, shape))
    if kind == "just beyond the border":
        return rng.choice([-0.5, -1e-3, last + 1e-3, last + 0.5], shape)
    return rng.choice([-1e6, -300.0, last + 40.0, 1e5], shape)


@pytest.mark.parametrize("size", [2, 9, 64])
@pytest.mark.parametrize("kind", ["inside", "cell centres", "on the border", "just beyond the border", "far outside"])
@pytest.mark.parametrize("sample", SAMPLERS)
def test_samples_agree_with_scipy(sample, kind, size, rng):
    maps = rng.normal(size=(2, 3, 4, size, size)).astype(np.float32)
    points = points_of(kind, rng, (2, 3, size, size, 2), size).astype(np.float32)
    found = sample(torch.tensor(maps), torch.tensor(points))
    # A point is rounded to 4e-6 of a cell (64 cells in float32), and neighbours differ by up to 8.
    np.testing.assert_allclose(found, by_scipy(maps.astype(float), points.astype(float)), atol=1e-4)


@pytest.mark.parametrize("sample", SAMPLERS)
def test_first_coordinate_runs_to_the_right_and_second_down(sample):
    maps = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    points = torch.tensor([2.0, 1.0]).expand(1, 1, 4, 4, 2)
    torch.testing.assert_close(sample(maps, points), torch.full((1, 1, 1, 4, 4), 6.0))  # row 1, column 2


@pytest.mark.parametrize("sample", SAMPLERS)
def test_every_group_and_crop_is_sampled_at_its_own_points(sample):
    ramp = torch.arange(5.0).expand(5, 5)
    maps = torch.stack([ramp + 100 * n + 10 * g for n in range(2) for g in range(3)]).reshape(2, 3, 1, 5, 5)
    points = torch.zeros(2, 3, 5, 5, 2)
    points[..., 0] = torch.arange(6.0).reshape(2, 3, 1, 1) * 0.7
    expected = torch.tensor([[100 * n + 10 * g + min(0.7 * (3 * n + g), 4) for g in range(3)] for n in range(2)])
    torch.testing.assert_close(sample(maps, points)[:, :, 0, 2, 2], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sample", SAMPLERS)
def test_half_precision_maps_give_half_precision_close_to_full(sample, rng):
    maps = torch.tensor(rng.normal(size=(1, 2, 3, 16, 16))).half()
    points = torch.tensor(rng.uniform(-2, 18, (1, 2, 16, 16, 2))).float()
    found = sample(maps, points)
    assert found.dtype == torch.float16
    # 0.01: half precision keeps 1/2048 of values up to 4, a few roundings of which add up.
    np.testing.assert_allclose(found.float(), by_scipy(maps.double().numpy(), points.double().numpy()), atol=0.01)


def test_both_have_the_same_gradients(rng):
    maps = rng.normal(size=(2, 3, 4, 8, 8))
    points = rng.uniform(-3, 10, (2, 3, 8, 8, 2))
    weight = torch.tensor(rng.normal(size=maps.shape))
    gradients = []
    for sample in SAMPLERS:
        inputs = [torch.tensor(maps).float().requires_grad_(), torch.tensor(points).float().requires_grad_()]
        (sample(*inputs) * weight.float()).sum().backward()
        gradients.append([value.grad for value in inputs])
    for by_grid, by_gather in zip(*gradients, strict=True):
        assert by_grid.abs().sum() > 0
        torch.testing.assert_close(by_grid, by_gather, atol=1e-4, rtol=1e-4)
