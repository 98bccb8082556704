"""What pictures are made of: regions and light, patterns, backgrounds, occluders, camera faults, contact sheets."""

import numpy as np
import pytest
import torch

from glnet_render import appearance
from glnet_render.appearance import Wardrobe
from glnet_render.backgrounds import procedural
from glnet_render.contact_sheet import contact_sheet
from glnet_render.corruptions import _compress, camera_faults, occluders
from glnet_render.limits import INDEX
from glnet_render.randomness import Draw
from glnet_render.textures import patterns

CPU = torch.device("cpu")


@pytest.fixture
def draw():
    return Draw(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def wardrobe(demo_body):
    return Wardrobe(demo_body, CPU)


def test_regions_lie_on_their_body_parts(wardrobe, draw, demo_body):
    """Shares of the looks in which the vertex nearest to a place is covered."""
    trousers, shirt, shoes, hair = wardrobe._regions(draw, 400)
    rest = wardrobe.rest
    joints = demo_body.rest_joints(torch.zeros(1, 10))[0]

    def share(region: torch.Tensor, place: torch.Tensor) -> float:
        return (region[:, (rest - place).norm(dim=-1).argmin()] > 0).float().mean().item()

    head = joints[INDEX["head"]]
    top = joints[24]
    face = head + torch.tensor([0.0, 0.02, 0.12])
    assert share(hair, top) > 0.8
    assert share(hair, face) == 0
    assert share(shirt, joints[INDEX["spine3"]]) > 0.85
    assert share(shirt, face) == 0
    assert 0.3 < share(shirt, (joints[INDEX["left_elbow"]] + joints[INDEX["left_wrist"]]) / 2) < 0.7
    assert share(trousers, joints[INDEX["left_hip"]] - torch.tensor([0, 0.02, 0])) > 0.85
    assert 0.4 < share(trousers, (joints[INDEX["left_knee"]] + joints[INDEX["left_ankle"]]) / 2) < 0.8
    assert share(shoes, joints[INDEX["left_foot"]]) > 0.75
    assert share(shoes, joints[INDEX["left_hand"]]) < 0.15
    for region in (trousers, shirt, shoes, hair):
        mirrored = (rest * torch.tensor([-1.0, 1, 1]))[::97, None] - rest
        partner = mirrored.norm(dim=-1).argmin(1)
        differs = (region[:, ::97] > 0) != (region[:, partner] > 0)
        assert differs.float().mean() < 0.02  # no side is dressed otherwise, but for wavy hems


def test_light_falls_on_the_side_of_the_lamp(wardrobe, draw, monkeypatch, demo_body):
    """With the lamp above the camera, a body turned away from it is as bright: light is in the camera's frame."""
    monkeypatch.setattr(draw, "directions", lambda *shape: torch.tensor([0.0, -1.0, -9.0]).expand(*shape, 3))
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turned = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
    light = wardrobe._light(draw, torch.stack([upright, turned])[:, None].expand(2, 24, 3, 3)).mean(-1)
    chest = (wardrobe.rest - torch.tensor([0.0, 0.3, 0.12])).norm(dim=-1).argmin()
    back = (wardrobe.rest - torch.tensor([0.0, 0.3, -0.12])).norm(dim=-1).argmin()
    assert light[0, chest] > light[0, back] + 0.05
    assert light[1, back] > light[1, chest] + 0.05


def test_patterns_have_their_two_colors(draw):
    first, second = torch.tensor([[0.8, 0.1, 0.1]]).repeat(200, 1), torch.tensor([[0.1, 0.1, 0.8]]).repeat(200, 1)
    cloth = patterns(draw, first, second, plain=0.5)
    assert cloth.min() >= 0 and cloth.max() <= 1
    reddish = (cloth[..., 0] > cloth[..., 2]).float().mean((1, 2))
    assert 0.35 < (reddish == 1).float().mean() < 0.65  # plain ones
    assert ((reddish > 0.1) & (reddish < 0.9)).float().mean() > 0.3


def test_skin_is_never_patterned(wardrobe, draw):
    skin = wardrobe._patterns(draw, 50)[:, appearance.SKIN]
    assert skin.std((1, 2)).max() < 0.1
    assert (skin.mean((1, 2))[:, 0] > skin.mean((1, 2))[:, 2]).all()


def test_backgrounds_are_pictures(draw):
    pictures = procedural(draw, 24, 64)
    assert pictures.shape == (24, 64, 64, 3)
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert pictures.flatten(1).std(1).median() > 0.08
    assert (pictures[1:] - pictures[:-1]).abs().flatten(1).mean(1).min() > 0.02


def test_no_occluders_without_difficulty(draw):
    hidden = occluders(draw, 64, 32, torch.rand(64, 32, 32, 3, generator=draw.generator), 0.0)
    assert hidden.alpha.max() == 0
    assert hidden.inside.all()


def test_occluders_are_some_and_not_too_large(draw):
    hidden = occluders(draw, 400, 32, torch.ones(400, 32, 32, 3), 1.0)
    share = hidden.alpha.mean((1, 2))
    assert 0.25 < (share > 0).float().mean() < 0.5
    assert share.max() < 0.9
    assert 0.02 < (~hidden.inside).any(2).any(1).float().mean() < 0.16
    assert (hidden.color <= hidden.alpha.unsqueeze(-1) + 1e-5).all()
    image = torch.full((400, 32, 32, 3), 0.5)
    clear = hidden.alpha == 0
    assert (hidden.cover(image)[clear] == 0.5).all()


def test_points_behind_occluders_are_found(draw):
    hidden = occluders(draw, 100, 32, torch.ones(100, 32, 32, 3), 1.0)
    line, column = 20, 9
    point = torch.tensor([(column + 0.5) / 32 - 0.5, (line + 0.5) / 32 - 0.5]).expand(100, 1, 2)
    expected = (hidden.alpha[:, line, column] > 0.5) | ~hidden.inside[:, line, column]
    assert torch.equal(hidden.hides(point)[:, 0], expected)
    assert not hidden.hides(point + 1).any()


@pytest.mark.parametrize("size", [32, 50])
def test_camera_faults_keep_the_picture(draw, size):
    """Structures stay where they are: no fault may move what the labels describe."""
    ramp = torch.linspace(0.2, 0.8, size)
    image = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), ramp.expand(size, size)], -1)
    image = image.repeat(64, 1, 1, 1)
    image[:, size // 2, size // 4] = 1
    clear = camera_faults(draw, image, 0.0)
    assert (clear - image).abs().mean() < 0.02
    faulty = camera_faults(draw, image, 1.0)
    assert faulty.min() >= 0 and faulty.max() <= 1
    assert (faulty - image).abs().flatten(1).mean(1).median() > 0.01
    across = faulty[..., 0].mean(1)
    left, right = across[:, : size // 2].mean(1), across[:, size // 2 :].mean(1)
    assert (right > left).all()


def test_compression_is_close_and_blocky(draw):
    image = procedural(draw, 8, 48)
    compressed = _compress(draw, image)
    error = (compressed - image).abs().flatten(1).mean(1)
    assert error.max() < 0.12
    assert error.min() > 1e-4


def test_contact_sheet_puts_crops_in_rows():
    crops = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    sheet = contact_sheet(crops, columns=3)
    assert sheet.shape == (10, 16, 3)
    assert sheet[1, 1, 0] == 0 and sheet[1, 13, 0] == 2 and sheet[7, 7, 0] == 4
    assert (sheet[6:, 12:] == 255).all()
