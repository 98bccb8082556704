"""Crops that show another person beside the one who is looked for."""

import pytest
import torch

from glnet_infer.contract import CropSpec
from glnet_render import Spread, SyntheticSource, source
from glnet_render.corruptions import Occluders
from glnet_render.placement import NEAREST, OFF_CENTRE, Placement, place_beside, project
from glnet_render.randomness import Draw
from glnet_render.targets import UNKNOWN

COUNT = 2 * source.CHUNK
"""Samples of two chunks: the first persons of the second one too are those of crops without bystanders."""

GREY = 128
"""Grey level of persons; what is behind them is white."""


@pytest.fixture
def compared(demo_body, bare, monkeypatch):
    """Samples of a seed with and without bystanders, the first persons' placements as bystanders got them, and theirs."""
    monkeypatch.setattr(
        source.Wardrobe, "shade", lambda self, look, fragments, pixels: torch.full((*fragments.covered.shape, 3), 0.5)
    )

    def sampled(share: float):
        placed = []

        def spied(draw, placement, vertices):
            placed.append((placement, place_beside(draw, placement, vertices)))
            return placed[-1][1]

        monkeypatch.setattr(source, "place_beside", spied)
        spreads = (Spread(bystanders=share), Spread())
        samples = [SyntheticSource(demo_body, CropSpec(96), seed=8, spread=spread).sample(COUNT) for spread in spreads]
        first, second = (Placement(*map(torch.cat, zip(*found, strict=True))) for found in zip(*placed, strict=True))
        return *samples, first, second

    return sampled


def test_the_first_person_is_who_is_labelled(compared):
    with_others, alone, _, _ = compared(1.0)
    for name in ("cameras", "rotations", "betas", "translation", "places"):
        assert torch.equal(getattr(with_others, name), getattr(alone, name))
    # Another person darkens what is white, and nothing is darker than a person.
    assert (with_others.crops <= alone.crops).all() and (with_others.crops >= GREY - 1).all()
    changed = (with_others.crops != alone.crops).flatten(1).any(1)
    assert changed.sum() >= COUNT - 8  # a few stand beyond the crop, or behind the first one


def test_who_stands_behind_hides_nothing_and_who_stands_before_does(compared):
    with_others, alone, first, second = compared(1.0)
    nearer = second.root[:, 2] < first.root[:, 2]
    assert 0 < nearer.sum() < COUNT
    for found, expected in ((with_others.visibility, alone.visibility), (with_others.segments, alone.segments)):
        assert torch.equal(found[~nearer], expected[~nearer])
    lost = alone.visibility & ~with_others.visibility
    assert lost[nearer].any()
    assert not (with_others.visibility & ~alone.visibility).any()
    covered = with_others.segments != alone.segments
    assert covered[nearer].any() and (with_others.segments[covered] == UNKNOWN).all()
    # What is hidden is hidden by a person.
    middles = with_others.crops[:, 2::4, 2::4]
    assert (middles[covered].float() - GREY).abs().mean() < 15


def test_bystanders_are_seen_by_the_cameras_of_their_crops(compared):
    with_others, alone, first, _ = compared(0.5)
    chosen = (with_others.cameras[:, None] == first.cameras).all(-1).any(1)
    assert chosen.sum() == len(first.cameras)
    assert 6 < chosen.sum() < COUNT - 6
    assert not torch.equal(chosen.sort(descending=True).values, chosen)
    changed = (with_others.crops != alone.crops).flatten(1).any(1)
    assert not (changed & ~chosen).any()
    assert changed.sum() >= chosen.sum() - 5


def test_a_share_of_the_crops_has_bystanders(demo_body, monkeypatch):
    places, numbers = place_beside, []
    monkeypatch.setattr(source, "place_beside", lambda *given: (numbers.append(len(given[2])), places(*given))[1])
    SyntheticSource(demo_body, CropSpec(16), seed=1, spread=Spread(bystanders=0.5)).sample(320)
    assert abs(sum(numbers) / 320 - 0.5) < 0.085  # three standard deviations
    numbers.clear()
    SyntheticSource(demo_body, CropSpec(16), seed=1, spread=Spread(0.5, bystanders=0.5)).sample(320)
    assert abs(sum(numbers) / 320 - 0.25) < 0.075


def test_bystanders_stand_aside_and_before_or_behind():
    generator = torch.Generator().manual_seed(0)
    count = 2000
    root = torch.rand(count, 3, generator=generator) * torch.tensor([2.0, 1.0, 8.0]) + torch.tensor([-1.0, -0.5, 2.0])
    cameras = torch.rand(count, 4, generator=generator) + torch.tensor([1.0, 1.0, -0.5, -0.5])
    vertices = torch.randn(count, 5, 3, generator=generator) * 0.5
    first = Placement(root, cameras)
    second = place_beside(Draw(generator), first, vertices)
    assert second.cameras is cameras
    shift = (project(second.root[:, None], cameras) - project(root[:, None], cameras))[:, 0]
    assert shift[:, 0].abs().min() > 0.199 and shift[:, 0].abs().max() < 0.701
    place = project(root[:, None], cameras)[:, 0, 0]
    aside = place.abs() > OFF_CENTRE
    assert 0.1 < aside.float().mean() < 0.9
    assert torch.equal(shift[aside, 0] > 0, place[aside] > 0)  # not towards the middle
    assert abs((shift[~aside, 0] > 0).float().mean() - 0.5) < 3 * 0.5 / (~aside).sum().sqrt()
    assert shift[:, 1].abs().mean() < 0.06
    nearer = second.root[:, 2] < root[:, 2]
    assert abs(nearer.float().mean() - 0.3) < 0.035  # three standard deviations
    assert shift[nearer, 0].abs().min() > 0.299
    ratio = second.root[:, 2] / root[:, 2]
    assert ratio.min() > 0.699 and ratio.max() < 2.001


def test_bystanders_do_not_stand_in_the_camera():
    count = 500
    vertices = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, 0.5]]]).expand(count, -1, -1)
    first = Placement(torch.tensor([[0.0, 0.0, 1.4]]).expand(count, -1), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    second = place_beside(Draw(torch.Generator().manual_seed(0)), first, vertices)
    nearest = (vertices + second.root[:, None])[..., 2].amin(1)
    assert nearest.min() == pytest.approx(NEAREST, abs=1e-6)
    assert nearest.max() > 1  # who stands farther away is left there


def test_what_is_put_before_a_person_lies_behind_the_occluders():
    """Half a red occluder before half a green bystander before blue: a half, a quarter and a quarter of them."""
    alpha = torch.full((2, 1, 1), 0.5)
    red, green, blue = torch.eye(3)
    hidden = Occluders(alpha, alpha.unsqueeze(-1) * red, alpha > 0)
    both = hidden.with_farthest(torch.tensor([1]), 0.5 * green.view(1, 1, 1, 3), torch.full((1, 1, 1, 1), 0.5))
    image = both.cover(blue.expand(2, 1, 1, 3)).flatten(1)
    torch.testing.assert_close(image, torch.tensor([[0.5, 0, 0.5], [0.5, 0.25, 0.25]]))
    assert both.alpha.flatten().tolist() == [0.5, 0.75]
