"""The network: the dense form and the selected pixel are one function, and precision is where it is said to be."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from glnet.config import GLNetConfig
from glnet.estimate import Estimate, EstimateLayout, default_cameras
from glnet.network import GLNet, Normalization, PixelHeads, Prediction
from glnet.parts import PARTS
from glnet.random_init import random_recovery, settle_batch_norms
from glnet_infer.skeleton import SKELETON_JOINTS

MM = 1e-3
SWITCHES = list(itertools.product([True, False], [True, False], ["pixel", "coarse"], [29, 34]))


def everywhere(network, crops) -> tuple[Prediction, torch.Tensor]:
    """The dense form: what is computed for all pixels, and their estimates, N x P x H x W."""
    prediction = network(crops)
    return prediction, network.all_estimates(prediction).transpose(1, 2).unflatten(2, prediction.logits.shape[1:])


# Dense and selected


@pytest.mark.parametrize(("local_encoding", "swing_twist", "point_origin", "keypoints"), SWITCHES)
def test_selecting_then_regressing_is_regressing_then_selecting(
    lively_recovery, tiny_config, random_crops, local_encoding, swing_twist, point_origin, keypoints
):
    config = dataclasses.replace(
        tiny_config,
        local_encoding=local_encoding,
        swing_twist=swing_twist,
        point_origin=point_origin,
        keypoints=keypoints,
    )
    network = lively_recovery(config).network
    with torch.no_grad():
        (prediction, pixels), selection = everywhere(network, random_crops(6)), network.select(random_crops(6))
    size = 3 * keypoints + (46 if swing_twist else 144) + 11
    assert pixels.shape == (6, size, 16, 16)
    assert selection.estimate.shape == (6, size)
    # The oracle's arg-max: the first cell, row by row, with the highest logit.
    for logits, (x, y) in zip(prediction.logits.numpy(), selection.pixel.tolist(), strict=True):
        assert np.unravel_index(logits.argmax(), logits.shape) == (y, x)
    assert len({tuple(pixel) for pixel in selection.pixel.tolist()}) > 1  # not one corner for all
    # 1e-5: the same products, summed in another order by kernels for one pixel and for many.
    x, y = selection.pixel.unbind(1)
    torch.testing.assert_close(selection.estimate, pixels[torch.arange(6), :, y, x], atol=1e-5, rtol=0)
    torch.testing.assert_close(selection.logit, prediction.logits.flatten(1).amax(1), atol=1e-5, rtol=0)
    # And the pixels differ by far more than that, so the test can tell them apart.
    assert pixels.flatten(2).std(2).mean() > 0.01


@pytest.mark.parametrize("pixel", [(0, 0), (3, 10), (15, 2), (15, 15)])
def test_most_confident_pixel_decides(recovery, random_crops, pixel):
    x, y = pixel
    network = recovery.network

    def raise_confidence(_layer, _inputs, logits):
        logits[:, :, y, x] = 50

    network.confidence.register_forward_hook(raise_confidence)
    with torch.no_grad():
        (_, pixels), selection = everywhere(network, random_crops(3)), network.select(random_crops(3))
        result = recovery(random_crops(3), default_cameras(3))
    assert selection.pixel.tolist() == [[x, y]] * 3
    torch.testing.assert_close(selection.estimate, pixels[:, :, y, x], atol=1e-5, rtol=0)
    assert result.reference_pixel.tolist() == [[x, y]] * 3
    assert result.reference_pixel.dtype == torch.int32
    torch.testing.assert_close(result.confidence, torch.ones(3))


def test_each_crop_is_answered_for_itself(recovery, random_crops):
    crops, cameras = random_crops(5), default_cameras(5)
    with torch.no_grad():
        together = recovery(crops, cameras)
        for index in range(5):
            alone = recovery(crops[index : index + 1], cameras[:1])
            assert torch.equal(alone.reference_pixel[0], together.reference_pixel[index])
            # 0.02 mm: convolutions sum in another order for another batch size.
            torch.testing.assert_close(alone.vertices[0], together.vertices[index], atol=0.02 * MM, rtol=0)


def test_confidence_and_keypoints_come_in_the_documented_units(recovery, random_crops):
    with torch.no_grad():
        selection, result = recovery.network.select(random_crops(4)), recovery(random_crops(4), default_cameras(4))
    np.testing.assert_allclose(result.confidence, 1 / (1 + np.exp(-selection.logit.double().numpy())), rtol=1e-5)
    sides = selection.estimate[:, : 2 * 31].reshape(4, 31, 2).double().numpy()
    np.testing.assert_allclose(result.keypoints_2d, (sides + 0.5) * 64, atol=1e-3)  # px of a 64-pixel crop


# Composition


def test_without_residuals_every_pixel_gives_the_coarse_estimate_and_its_mesh(recovery, random_crops):
    network = recovery.network
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.zero_()
        prediction, pixels = everywhere(network, random_crops(3))
        result = recovery(random_crops(3), default_cameras(3))
        coarse = recovery.decoder(network.layout.split(prediction.coarse), default_cameras(3))
    assert torch.equal(pixels, prediction.coarse[:, :, None, None].expand_as(pixels))
    torch.testing.assert_close(result.vertices, coarse.vertices, atol=0.001 * MM, rtol=0)
    assert (prediction.coarse[0] - prediction.coarse[1]).abs().max() > 1e-3  # and it depends on the crop


def test_a_heads_bias_is_added_to_the_coarse_estimate(recovery, random_crops, rng):
    network = recovery.network
    shift = torch.tensor(rng.normal(size=network.layout.size), dtype=torch.float32)
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.zero_()
        network.heads.pixel.bias.copy_(shift)
        prediction, pixels = everywhere(network, random_crops(2))
    torch.testing.assert_close(pixels[..., 7, 3], prediction.coarse + shift, atol=1e-6, rtol=0)


@pytest.mark.parametrize("swing_twist", [True, False])
@pytest.mark.parametrize("part", range(len(PARTS)))
def test_a_parts_feature_moves_its_own_joints_alone(tiny_config, rng, part, swing_twist):
    config = dataclasses.replace(tiny_config, swing_twist=swing_twist)
    layout = EstimateLayout(config)
    heads = PixelHeads(config, layout)
    pixels = torch.tensor(rng.normal(size=(1, config.pixel_channels, 1, 1)), dtype=torch.float32)
    parts = torch.tensor(rng.normal(size=(1, len(PARTS), config.part_channels, 1, 1)), dtype=torch.float32)
    changed = parts.clone()
    changed[:, part] += 1
    with torch.no_grad():
        before, after = (heads(pixels, p.flatten(1, 2)).flatten(1) for p in (parts, changed))
    moved = layout.split(before != after)
    own = set(list(PARTS.values())[part])
    joints = [joint in own for joint in range(config.keypoints)]
    assert moved.keypoints[0].all(1).tolist() == moved.keypoints[0].any(1).tolist() == joints
    assert moved.depths[0].tolist() == joints
    rotated = joints[1:24] if swing_twist else joints[:24]
    assert moved.rotation[0].all(1).tolist() == moved.rotation[0].any(1).tolist() == rotated
    assert not moved.betas.any()
    assert not moved.scale.any()


@pytest.mark.parametrize("config", [GLNetConfig(), GLNetConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))])
def test_normalisation_agrees_with_float64(config, rng):
    crops = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = (crops.astype(np.float64) / 255 - config.mean) / config.std
    found = Normalization(config.mean, config.std)(torch.tensor(crops))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=2e-6)  # roundings of values up to 9


def test_default_normalisation_is_hybriks_in_rgb_order():
    red = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    red[..., 0] = 255
    found = Normalization(GLNetConfig.mean, GLNetConfig.std)(red)[0, :, 0, 0]
    np.testing.assert_allclose(found, [(1 - 0.406) / 0.225, -0.457 / 0.224, -0.480 / 0.229], rtol=1e-5)


# The estimate's layout


@pytest.mark.parametrize("swing_twist", [True, False])
@pytest.mark.parametrize("keypoints", [29, 34])
def test_layout_splits_what_it_joins_and_joins_what_it_splits(tiny_config, swing_twist, keypoints, rng):
    layout = EstimateLayout(dataclasses.replace(tiny_config, swing_twist=swing_twist, keypoints=keypoints))
    vectors = torch.tensor(rng.normal(size=(4, 5, layout.size)))
    parts = layout.split(vectors)
    assert torch.equal(layout.join(parts), vectors)
    shapes = [(keypoints, 2), (keypoints,), (23, 2) if swing_twist else (24, 6), (10,), (1,)]
    assert [tuple(part.shape) for part in parts] == [(4, 5, *shape) for shape in shapes]
    estimate = Estimate(*(torch.tensor(rng.normal(size=(3, *shape))) for shape in shapes))
    for ours, theirs in zip(layout.split(layout.join(estimate)), estimate, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("swing_twist", [True, False])
@pytest.mark.parametrize("keypoints", [29, 34])
def test_every_entry_belongs_to_one_joint_or_to_none(tiny_config, swing_twist, keypoints):
    layout = EstimateLayout(dataclasses.replace(tiny_config, swing_twist=swing_twist, keypoints=keypoints))
    parts = layout.split(torch.arange(layout.size))
    shared = [*parts.keypoints[29:].flatten(), *parts.depths[29:], *parts.betas, *parts.scale]
    joints = [entry for joint in range(SKELETON_JOINTS) for entry in layout.joint_entries(joint)]
    assert sorted([*joints, *(int(entry) for entry in shared)]) == list(range(layout.size))
    for joint in range(SKELETON_JOINTS):
        entries = [*parts.keypoints[joint].tolist(), parts.depths[joint].item()]
        first = 1 if swing_twist else 0
        if first <= joint < 24:
            entries += parts.rotation[joint - first].tolist()
        assert layout.joint_entries(joint) == entries


# Mixed precision


@pytest.fixture
def mixed(recovery):
    other = copy.deepcopy(recovery)
    other.network.use_mixed_precision()
    return other


def test_backbone_and_local_encoding_are_half_and_nothing_else(mixed):
    for name, tensor in itertools.chain(mixed.named_parameters(), mixed.named_buffers()):
        if not tensor.is_floating_point():
            continue
        half = name.startswith(("network.backbone.", "network.local_encoding."))
        constant = name in ("network.local_encoding.cells", "network.local_encoding.membership")  # points come from them
        assert tensor.dtype == (torch.float16 if half and not constant else torch.float32), name


def test_mixed_precision_gives_float32_results(mixed, random_crops):
    with torch.no_grad():
        prediction, selection = mixed.network(random_crops(1)), mixed.network.select(random_crops(1))
        result = mixed(random_crops(1), default_cameras(1))
    for tensor in (*prediction[:3], selection.estimate, selection.logit, *result):
        assert tensor.dtype == (torch.int32 if tensor is result.reference_pixel else torch.float32)


@pytest.mark.parametrize("point_origin", ["pixel", "coarse"])
def test_points_are_computed_in_float32(lively_recovery, tiny_config, random_crops, point_origin):
    network = lively_recovery(dataclasses.replace(tiny_config, point_origin=point_origin)).network.use_mixed_precision()
    seen = []
    network.local_encoding.offsets.register_forward_hook(lambda _layer, _inputs, offsets: seen.append(offsets))
    with torch.no_grad():
        prediction = network(random_crops(2))
    assert seen[0].dtype == torch.float16
    offsets = seen[0].double().numpy().reshape(2, 7, 2, 16, 16).transpose(0, 1, 3, 4, 2)
    if point_origin == "pixel":
        origins = np.stack(np.meshgrid(np.arange(16), np.arange(16)), -1)[None, None]
    else:
        keypoints = prediction.coarse[:, : 2 * 31].double().numpy().reshape(2, 31, 2)
        means = np.stack([keypoints[:, list(joints)].mean(1) for joints in PARTS.values()], axis=1)
        origins = ((means + 0.5) * 16 - 0.5)[:, :, None, None]
    # 1e-5 of a cell; half precision would round by 4e-3 on this grid of 16.
    np.testing.assert_allclose(prediction.points, origins + offsets, atol=1e-5)


def test_mixed_precision_moves_the_mesh_by_little(recovery, mixed, random_crops):
    crops, cameras = random_crops(24), default_cameras(24)
    with torch.no_grad():
        pixels, reduced = (everywhere(each.network, crops)[1] for each in (recovery, mixed))
        full, half = recovery(crops, cameras), mixed(crops, cameras)
    # Close rivals may change places, so estimates are compared pixel by pixel, and meshes where they agree.
    differences = pixels - reduced
    assert differences.abs().max() > 0
    assert differences.square().mean().sqrt() < 0.0025
    same = (full.reference_pixel == half.reference_pixel).all(1)
    assert same.sum() >= 12
    relative = [r.vertices[same] - r.translation[same][:, None] for r in (full, half)]
    assert (relative[0] - relative[1]).norm(dim=-1).mean(1).median() < 5 * MM


# Beginnings


def test_random_network_estimates_a_standing_body_and_leaves_the_generator_alone(tiny_config, demo_body, random_crops):
    state = torch.get_rng_state()
    first, again = (random_recovery(tiny_config, demo_body, seed=4) for _ in range(2))
    other = random_recovery(tiny_config, demo_body, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    states = [dict(r.network.named_parameters()) for r in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    with torch.no_grad():
        result = first(random_crops(4), default_cameras(4))
    torch.testing.assert_close(result.confidence, torch.full((4,), 0.01), atol=0.005, rtol=0)  # the prior
    rest = demo_body.rest_joints(torch.zeros(4, 10))
    standing = (rest - rest[:, :1]) * torch.tensor([1.0, -1.0, -1.0])  # y down, facing the camera
    # 80 mm: give or take a little.
    torch.testing.assert_close(result.joints - result.joints[:, :1], standing, atol=80 * MM, rtol=0)


def test_settled_norms_have_the_crops_statistics_and_their_own_momentum(tiny_config, random_crops):
    network = GLNet(tiny_config).eval()
    seen = []
    network.backbone.conv1.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.detach()))
    settle_batch_norms(network, random_crops(4))
    np.testing.assert_allclose(network.backbone.bn1.running_mean, seen[0].mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(network.backbone.bn1.running_var, seen[0].var((0, 2, 3)), rtol=1e-3)
    assert network.backbone.bn1.momentum == 0.1
    assert not network.training


def without_residuals(network, crops):
    """Prediction, selection and the chosen keypoints of a network whose heads say zero; before, its two forms agree."""
    with torch.no_grad():
        (prediction, pixels), selection = everywhere(network, crops), network.select(crops)
        x, y = selection.pixel.unbind(1)
        # Float32 sums in another order.
        assert (pixels[torch.arange(len(crops)), :, y, x] - selection.estimate).abs().max() < 1e-5
        for parameter in network.heads.parameters():
            parameter.zero_()
        keypoints = network.layout.split(network.select(crops).estimate).keypoints
    return prediction, selection, keypoints


def test_keypoints_of_pixels_start_at_the_pixel_in_both_forms(tiny_config, lively_recovery, random_crops):
    """With pixels as origin and residuals of zero, a pixel's keypoints all lie in its middle."""
    network = lively_recovery(dataclasses.replace(tiny_config, keypoint_origin="pixel")).network
    _, selection, keypoints = without_residuals(network, random_crops(2))
    middle = (selection.pixel + 0.5) * 4 / network.config.crop.size - 0.5
    assert (keypoints - middle[:, None]).abs().max() < 1e-6


def test_keypoints_of_parts_start_at_the_pixels_point_on_their_part(tiny_config, lively_recovery, random_crops):
    """With part points as origin and residuals of zero, a joint lies at its part's point; others lie at the pixel."""
    config = dataclasses.replace(tiny_config, keypoint_origin="part", keypoints=31)
    prediction, selection, keypoints = without_residuals(lively_recovery(config).network, random_crops(2))
    x, y = selection.pixel.unbind(1)
    points = prediction.points[torch.arange(2), :, y, x]  # crops x parts x 2
    assert (points - selection.pixel[:, None]).abs().max() > 0.01  # they have left their pixel
    for part, joints in enumerate(PARTS.values()):
        expected = (points[:, part] + 0.5) * 4 / config.crop.size - 0.5
        assert (keypoints[:, list(joints)] - expected[:, None]).abs().max() < 1e-6
    middle = (selection.pixel + 0.5) * 4 / config.crop.size - 0.5
    assert (keypoints[:, 29:] - middle[:, None]).abs().max() < 1e-6


def test_keypoints_may_start_half_way_to_the_coarse_ones(tiny_config, lively_recovery, random_crops):
    """The start is the middle between the coarse keypoint and what it would be with part points alone."""
    network = lively_recovery(dataclasses.replace(tiny_config, keypoint_origin="part", keypoints=31)).network
    other = lively_recovery(dataclasses.replace(tiny_config, keypoint_origin="coarse+part", keypoints=31)).network
    other.load_state_dict(network.state_dict())
    crops = random_crops(2)
    prediction, _, starts = without_residuals(network, crops)
    _, _, found = without_residuals(other, crops)
    coarse = network.layout.split(prediction.coarse).keypoints
    assert (coarse - starts).abs().max() > 0.01  # crop sides
    assert (found - (coarse + starts) / 2).abs().max() < 1e-6
