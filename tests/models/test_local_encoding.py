"""The Local Encoding Module: parts, where their points lie, and what is sampled there."""

import dataclasses

import numpy as np
import pytest
import torch

from glnet.local_encoding import LocalEncodingModule
from glnet.parts import PARTS
from glnet.sampling import sample_by_gather, sample_by_grid
from glnet_infer.skeleton import MIRROR_PAIRS, SKELETON_JOINTS

GRID = 16


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def make_module(tiny_config):
    def make(**changes) -> LocalEncodingModule:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            changes = {"pixel_source": "highest", **changes}
            module = LocalEncodingModule(dataclasses.replace(tiny_config, **changes))
        module.initialize()
        return module.eval()

    return make


@pytest.fixture
def inputs(tiny_config, rng):
    """Backbone map, global feature, coarse keypoints."""
    backbone = tiny_config.backbone
    shapes = (2, backbone.channels[0], GRID, GRID), (2, backbone.feature_channels), (2, tiny_config.keypoints, 2)
    return [torch.tensor(rng.normal(scale=0.3, size=shape), dtype=torch.float32) for shape in shapes]


def part_maps(module: LocalEncodingModule, features: torch.Tensor) -> torch.Tensor:
    """E_m of the module's own layers, before any sampling: N x 7 x c x H x W."""
    return module.part(module.pixel(features).relu()).unflatten(1, (len(PARTS), -1))


def set_offset(module: LocalEncodingModule, part: int, x: float, y: float) -> None:
    module.offsets.bias[2 * part : 2 * part + 2] = torch.tensor([x, y])


# Parts


def test_parts_hold_every_joint_exactly_once():
    assert len(PARTS) == 7
    assert sorted(joint for part in PARTS.values() for joint in part) == list(range(SKELETON_JOINTS))


def test_mirroring_a_body_maps_parts_to_parts():
    mirror = list(range(SKELETON_JOINTS))
    for left, right in MIRROR_PAIRS:
        mirror[left], mirror[right] = right, left
    swap = {"left_arm": "right_arm", "right_arm": "left_arm", "left_leg": "right_leg", "right_leg": "left_leg"}
    for name, joints in PARTS.items():
        assert {mirror[joint] for joint in joints} == set(PARTS[swap.get(name, name)]), name


# Points at the pixel


def test_points_start_at_their_pixels_so_parts_are_sampled_where_they_are(make_module, inputs):
    module = make_module()
    encoding = module(*inputs)
    x, y = np.meshgrid(np.arange(GRID), np.arange(GRID))
    np.testing.assert_array_equal(encoding.points, np.broadcast_to(np.stack([x, y], -1), (2, 7, GRID, GRID, 2)))
    # 1e-4: the grid's normalisation moves points by 1e-6 of a cell.
    torch.testing.assert_close(encoding.parts, part_maps(module, inputs[0]).flatten(1, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sample", [sample_by_grid, sample_by_gather])
def test_offset_of_one_to_the_right_shifts_every_part_by_one_cell(make_module, inputs, sample):
    module = make_module()
    module.sample = sample
    for part in range(len(PARTS)):
        set_offset(module, part, 1, 0)
    found = module(*inputs).parts.unflatten(1, (len(PARTS), -1))
    maps = part_maps(module, inputs[0])
    expected = torch.cat([maps[..., 1:], maps[..., -1:]], dim=-1)  # the border's value beyond the border
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(found, maps, atol=1e-2)


def test_points_are_not_rounded(make_module, inputs):
    module = make_module()
    set_offset(module, 2, 0.1234567, -3.7654321)
    x, y = np.meshgrid(np.arange(GRID) + 0.1234567, np.arange(GRID) - 3.7654321)
    expected = np.broadcast_to(np.stack([x, y], -1), (2, GRID, GRID, 2))
    # 1e-5 of a cell: half precision would be off by 1e-3.
    np.testing.assert_allclose(module(*inputs).points[:, 2], expected, atol=1e-5)


@pytest.mark.parametrize("part", range(7))
def test_offset_of_one_part_moves_that_part_alone(make_module, inputs, part):
    module = make_module()
    set_offset(module, part, 0, 2)
    found = module(*inputs).parts.unflatten(1, (len(PARTS), -1))
    expected = part_maps(module, inputs[0])
    expected[:, part] = expected[:, part][:, :, [*range(2, GRID), GRID - 1, GRID - 1]]  # two cells down
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_both_samplers_encode_alike(make_module, inputs, rng):
    module = make_module()
    module.offsets.weight.copy_(torch.tensor(rng.normal(scale=0.5, size=module.offsets.weight.shape)))
    by_grid = module(*inputs)
    module.sample = sample_by_gather
    by_gather = module(*inputs)
    assert (by_grid.points - module.cells).abs().max() > 2  # cells
    torch.testing.assert_close(by_grid.points, by_gather.points, atol=0, rtol=0)
    torch.testing.assert_close(by_grid.pixels, by_gather.pixels, atol=1e-4, rtol=0)
    torch.testing.assert_close(by_grid.parts, by_gather.parts, atol=1e-4, rtol=0)


# Points at the coarse keypoints


def test_coarse_points_start_at_their_parts_mean_keypoint(make_module, inputs):
    module = make_module(point_origin="coarse")
    points = module(*inputs).points
    keypoints = inputs[2].double().numpy()
    for index, joints in enumerate(PARTS.values()):
        # Crop sides from the centre; a crop is 64 pixels, cell i covers pixels 4 i to 4 i + 4, its centre is i.
        pixels = (keypoints[:, list(joints)].mean(1) + 0.5) * 64
        expected = np.broadcast_to((pixels / 4 - 0.5)[:, None, None], (2, GRID, GRID, 2))
        np.testing.assert_allclose(points[:, index], expected, atol=1e-5)


def test_coarse_point_in_the_middle_of_a_cell_gives_every_pixel_that_cells_feature(make_module, inputs, tiny_config):
    module = make_module(point_origin="coarse")
    features, pooled, _ = inputs
    x, y = 11, 4
    pixels = torch.tensor([4 * x + 2.0, 4 * y + 2.0])  # the middle of the cell's four pixels
    keypoints = (pixels / 64 - 0.5).expand(2, tiny_config.keypoints, 2)
    encoding = module(features, pooled, keypoints)
    expected = part_maps(module, features)[..., y, x].flatten(1)[..., None, None].expand_as(encoding.parts)
    torch.testing.assert_close(encoding.parts, expected, atol=1e-4, rtol=0)


def test_keypoints_beyond_the_skeleton_do_not_move_coarse_points(make_module, inputs):
    module = make_module(point_origin="coarse")
    features, pooled, keypoints = inputs
    moved = keypoints.clone()
    moved[:, SKELETON_JOINTS:] += 0.3
    assert torch.equal(module(features, pooled, keypoints).points, module(features, pooled, moved).points)


# What is made of it


def test_part_features_and_global_feature_reach_every_pixel(make_module, inputs):
    module = make_module()
    encoding = module(*inputs)
    pooled = inputs[1].clone()
    pooled[0] += 1
    changed = module(inputs[0], pooled, inputs[2])
    assert not torch.isclose(changed.pixels[0], encoding.pixels[0]).all(0).any()
    assert torch.equal(changed.pixels[1], encoding.pixels[1])
    module.fuse_parts.weight.zero_()
    assert not torch.allclose(module(*inputs).pixels, encoding.pixels, atol=1e-3)


def test_parts_have_features_of_their_own(make_module, inputs, tiny_config):
    """What changes one part's first layer does not reach another part's map."""
    module = make_module()
    before = part_maps(module, inputs[0])
    width = tiny_config.part_channels
    module.part[1].bias[3 * width : 4 * width] += 1
    changed = (part_maps(module, inputs[0]) != before).flatten(2).any(2).all(0)
    assert changed.tolist() == [False, False, False, True, False, False, False]


def test_module_switched_off_is_pointwise_in_its_first_map(make_module, inputs):
    module = make_module(local_encoding=False)
    encoding = module(*inputs)
    assert encoding.parts is None
    assert encoding.points is None
    features = inputs[0].clone()
    features[:, :, 3, 8] += 1
    changed = (module(features, *inputs[1:]).pixels - encoding.pixels).abs().sum((0, 1)) > 0
    rows, columns = np.nonzero(changed.numpy())
    assert {*rows} <= {2, 3, 4}
    assert {*columns} <= {7, 8, 9}
    assert changed[3, 8]


# Other resolutions


def coarser_maps(config, rng) -> list[torch.Tensor]:
    return [
        torch.tensor(rng.normal(size=(2, channels, GRID >> octave, GRID >> octave)), dtype=torch.float32)
        for octave, channels in enumerate(config.backbone.channels[1:], start=1)
    ]


def test_pixels_may_be_made_of_all_resolutions(make_module, inputs, tiny_config, rng):
    module, maps = make_module(pixel_source="all"), coarser_maps(tiny_config, rng)
    encoding = module(*inputs, maps)
    for octave in range(3):  # each of them matters
        changed = [one + (index == octave) for index, one in enumerate(maps)]
        assert (module(*inputs, changed).pixels - encoding.pixels).abs().max() > 1e-2
    highest = make_module()
    highest.load_state_dict({name: value for name, value in module.state_dict().items() if "coarser" not in name})
    for parameter in module.coarser.parameters():
        parameter.zero_()
    torch.testing.assert_close(module(*inputs, maps).pixels, highest(*inputs).pixels)


@pytest.mark.parametrize("octave", [1, 2, 3])
def test_a_ramp_of_low_resolution_is_a_ramp_of_pixels(make_module, inputs, tiny_config, rng, octave):
    """What changes evenly, as the offset to a fixed point does, arrives without steps, and where it belongs."""
    module, maps = make_module(pixel_source="all"), [one * 0 for one in coarser_maps(tiny_config, rng)]
    for layer in module.coarser:
        layer.weight.fill_(1)
        layer.bias.zero_()
    cell = 2**octave
    centers = (torch.arange(GRID // cell) + 0.5) * cell - 0.5  # of the coarse cells, in pixels
    maps[octave - 1][:, 0] = centers
    found = module._enlarged(maps)
    inside = slice(cell, GRID - cell)  # beyond the outermost centres values are repeated
    expected = torch.arange(GRID, dtype=torch.float32)[inside].expand(2, found.shape[1], GRID, -1)
    torch.testing.assert_close(found[..., inside], expected, atol=1e-4, rtol=0)  # pixels
