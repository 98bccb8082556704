"""Mirrored, turned and recoloured crops: the labels change with the picture."""

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.config import GLNetConfig
from glnet.decoding import Decoder
from glnet_infer.contract import CropSpec
from glnet_infer.skeleton import JOINT_NAMES
from glnet_render import SyntheticSource
from glnet_render.targets import BACKGROUND, HIDDEN_WEIGHT, UNKNOWN, Batch
from glnet_train.data.augmentation import SCALE, augment, jittered, mirror, turn
from glnet_train.data.batches import make_targets

MM = 1e-3


@pytest.fixture(scope="module", params=[True, False], ids=["swing-twist", "6d"])
def rendered(request, demo_body):
    """A decoder, a sample and its batch."""
    config = GLNetConfig(swing_twist=request.param, keypoints=31)
    decoder = Decoder(config, demo_body)
    sample = SyntheticSource(demo_body, CropSpec(64), seed=11).sample(6)
    return decoder, sample, Batch(sample.crops, make_targets(decoder, sample, 31))


def swap_sides(name):
    return name.replace("left", "?").replace("right", "left").replace("?", "right")


def test_mirrored_labels_decode_to_the_mirrored_body(rendered):
    decoder, _, batch = rendered
    mirrored = mirror(batch).targets
    trimmed = [
        targets.estimate._replace(keypoints=targets.estimate.keypoints[:, :29], depths=targets.estimate.depths[:, :29])
        for targets in (batch.targets, mirrored)
    ]
    bodies = [decoder(trimmed[0], batch.targets.cameras), decoder(trimmed[1], mirrored.cameras)]
    order = [JOINT_NAMES.index(swap_sides(name)) for name in JOINT_NAMES]
    expected = bodies[0].joints[:, order] * torch.tensor([-1.0, 1, 1])
    # The demo body is symmetric; float32 through the kinematics, some metres away.
    torch.testing.assert_close(bodies[1].joints, expected, atol=0.1 * MM, rtol=0)
    # Rotations are what the estimate decodes to.
    torch.testing.assert_close(bodies[1].rotations, mirrored.rotations, atol=0.02, rtol=0)


def test_mirrored_pictures_show_what_the_labels_say(rendered):
    _, _, batch = rendered
    crops, targets = mirror(batch)
    assert torch.equal(crops, batch.crops.flip(2))
    torch.testing.assert_close(
        targets.estimate.keypoints[:, 0], batch.targets.estimate.keypoints[:, 0] * torch.tensor([-1.0, 1])
    )
    torch.testing.assert_close(targets.cameras[:, 2], -batch.targets.cameras[:, 2])


def test_weights_go_with_their_labels(rendered):
    _, _, batch = rendered
    left, right = JOINT_NAMES.index("left_wrist"), JOINT_NAMES.index("right_wrist")
    targets = batch.targets.map(torch.clone)
    rotations = targets.rotation_weights.shape[1]
    targets.keypoint_weights[:, left] = 7
    targets.depth_weights[:, left] = 6
    targets.pose_weights[:, left] = 5
    targets.rotation_weights[:, left - (24 - rotations)] = 4
    mirrored = mirror(Batch(batch.crops, targets)).targets
    assert (mirrored.keypoint_weights[:, right] == 7).all() and (mirrored.keypoint_weights[:, left] < 7).all()
    assert (mirrored.depth_weights[:, right] == 6).all() and (mirrored.pose_weights[:, right] == 5).all()
    assert (mirrored.rotation_weights[:, right - (24 - rotations)] == 4).all()
    assert (mirrored.pose_weights[:, left] < 5).all() and (mirrored.depth_weights[:, left] < 6).all()


def test_mirroring_twice_changes_nothing(rendered):
    _, _, batch = rendered
    again = mirror(mirror(batch))
    assert torch.equal(again.crops, batch.crops)
    for name in batch.targets._fields[1:]:
        torch.testing.assert_close(getattr(again.targets, name), getattr(batch.targets, name))
    for first, second in zip(again.targets.estimate, batch.targets.estimate, strict=True):
        torch.testing.assert_close(first, second)


def test_mirrored_surfaces_are_those_of_the_mirrored_picture(rendered):
    _, _, batch = rendered
    targets = mirror(batch).targets
    swapped = [JOINT_NAMES.index(swap_sides(name)) for name in JOINT_NAMES[:24]]
    for value in batch.targets.segments.unique().tolist():
        expected = swapped[value] if value < BACKGROUND else value
        assert torch.equal(targets.segments == expected, batch.targets.segments.flip(2) == value)
    sides = targets.places[..., 0] + batch.targets.places.flip(2)[..., 0]
    assert torch.equal(sides, torch.zeros_like(sides))


def test_turned_labels_decode_to_the_turned_body(rendered):
    decoder, _, batch = rendered
    angles, scales = torch.linspace(-1, 1, 6), torch.tensor([0.8, 1.3]).repeat(3)
    turned = turn(batch, angles, scales).targets
    bodies = [
        decoder(estimate._replace(keypoints=estimate.keypoints[:, :29], depths=estimate.depths[:, :29]), cameras)
        for estimate, cameras in ((each.estimate, each.cameras) for each in (batch.targets, turned))
    ]
    roll = torch.from_numpy(Rotation.from_rotvec(angles[:, None].numpy() * [0, 0, 1]).as_matrix()).float()
    # A camera that is rolled at its place: all is turned about the optical axis, nothing comes nearer. Float32 through the
    # kinematics, some metres away.
    torch.testing.assert_close(bodies[1].joints, bodies[0].joints @ roll.transpose(1, 2), atol=0.1 * MM, rtol=0)
    torch.testing.assert_close(bodies[1].rotations, turned.rotations, atol=0.02, rtol=0)


def test_turned_crops_are_what_opencv_warps(rendered):
    _, _, batch = rendered
    angles, scales = torch.linspace(-1, 1, 6), torch.tensor([0.8, 1.3]).repeat(3)
    crops, targets = turn(batch, angles, scales)
    for index, (angle, scale) in enumerate(zip(angles.rad2deg().tolist(), scales.tolist(), strict=True)):
        change = cv2.getRotationMatrix2D((31.5, 31.5), -angle, scale)  # counter-clockwise, about the middle of 64 pixels
        expected = cv2.warpAffine(batch.crops[index].numpy(), change, (64, 64)).astype(int)
        # OpenCV rounds positions to 1/32 pixel: the steepest edges, 255 levels a pixel, are off by 8 in each direction.
        assert np.abs(crops[index].numpy() - expected).max() <= 17
        places = (batch.targets.estimate.keypoints[index].numpy() + 0.5) * 64 - 0.5
        moved = cv2.transform(places[None], change)[0]
        np.testing.assert_allclose((targets.estimate.keypoints[index] + 0.5) * 64 - 0.5, moved, atol=1e-3)  # pixels


def test_a_quarter_turn_moves_whole_cells(rendered):
    _, _, batch = rendered
    quarter = torch.full((6,), torch.pi / 2)
    crops, targets = turn(batch, quarter, torch.ones(6))
    assert (crops.int() - batch.crops.rot90(-1, (1, 2)).int()).abs().max() <= 1  # grey levels
    assert torch.equal(targets.segments, batch.targets.segments.rot90(-1, (1, 2)))
    assert torch.equal(targets.places, batch.targets.places.rot90(-1, (1, 2)))


def test_what_leaves_the_crop_is_hidden_and_what_comes_in_is_black_and_unknown(rendered):
    _, _, batch = rendered
    targets = batch.targets._replace(keypoint_weights=torch.ones_like(batch.targets.keypoint_weights))
    larger = turn(Batch(batch.crops, targets), torch.zeros(6), torch.full((6,), 1.5)).targets
    outside = (larger.estimate.keypoints.abs() > 0.5).any(-1)
    assert outside.any()
    assert (larger.keypoint_weights == torch.where(outside, HIDDEN_WEIGHT, 1.0)).all()
    smaller = turn(batch, torch.zeros(6), torch.full((6,), 0.5))
    assert (smaller.crops[:, :15] == 0).all() and (smaller.targets.segments[:, :4] == UNKNOWN).all()
    unlabelled = batch.targets._replace(keypoint_weights=torch.zeros_like(batch.targets.keypoint_weights))
    assert (turn(Batch(batch.crops, unlabelled), torch.zeros(6), torch.full((6,), 1.5)).targets.keypoint_weights == 0).all()


def test_augmentation_changes_every_crop_and_mirrors_half(rendered):
    _, _, batch = rendered
    many = Batch(batch.crops.repeat(8, 1, 1, 1), batch.targets.map(lambda part: part.repeat(8, *[1] * (part.ndim - 1))))
    crops, targets = augment(many, torch.Generator().manual_seed(0))
    # A mirror image of a body is none of its turned ones: a triangle of joints changes its sense.
    places = [each.estimate.keypoints[:, [0, 1, 16]] for each in (many.targets, targets)]
    edges = [part[:, 1:] - part[:, :1] for part in places]
    mirror_order = [JOINT_NAMES.index(swap_sides(JOINT_NAMES[joint])) for joint in (0, 1, 16)]
    other = targets.estimate.keypoints[:, mirror_order]
    swapped = torch.linalg.det(other[:, 1:] - other[:, :1]) * torch.linalg.det(edges[0]) < 0
    kept = torch.linalg.det(edges[1]) * torch.linalg.det(edges[0]) > 0
    assert (swapped | kept).all()
    scales = targets.estimate.scale / many.targets.estimate.scale
    assert scales.max() <= SCALE and scales.min() >= 1 / SCALE and scales.std() > 0.05
    mirrored = (targets.places[..., 0].flatten(1).sum(1) * many.targets.places[..., 0].flatten(1).sum(1)) < 0
    assert 10 < mirrored.sum() < 38  # of 48
    means = crops.float().mean((1, 2, 3)) / many.crops.float().mean((1, 2, 3))
    assert means.std() > 0.05


def test_photographs_are_not_scaled(rendered):
    """Their boxes were of another size already, and black around them is nothing that a network will meet."""
    _, _, batch = rendered
    targets = augment(batch, torch.Generator().manual_seed(0), rendered=4).targets
    equal = (targets.estimate.scale == batch.targets.estimate.scale).flatten()
    assert equal.tolist() == [False] * 4 + [True] * 2
    assert not torch.equal(targets.rotations[4:, 0].abs(), batch.targets.rotations[4:, 0].abs())  # but turned


def test_boxes_are_off_by_what_detectors_are():
    box, draw = np.array([100.0, 40, 160, 240]), np.random.default_rng(0)
    boxes = np.stack([jittered(box, draw) for _ in range(2000)])
    sides = boxes[:, 2:] - boxes[:, :2]
    factors = sides / (60, 200)
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert 0.8 <= factors.min() < 0.81 and 1.24 < factors.max() <= 1.25
    shifts = (boxes[:, :2] + boxes[:, 2:]) / 2 - (130, 140)
    np.testing.assert_allclose(np.abs(shifts).max(0), (6, 20), rtol=0.02)


def test_without_strength_crops_are_mirrored_and_recoloured_only(rendered):
    _, _, batch = rendered
    targets = augment(batch, torch.Generator().manual_seed(0), strength=0.0).targets
    assert torch.equal(targets.estimate.scale, batch.targets.estimate.scale)
    heights = [each.estimate.keypoints[..., 1].sort(1).values for each in (targets, batch.targets)]
    torch.testing.assert_close(*heights, atol=1e-6, rtol=0)  # crop sides


def test_crops_whose_pixels_are_not_square_are_not_turned(rendered):
    """Real cameras may have fx and fy apart; a turned body would be a sheared one."""
    _, _, batch = rendered
    cameras = batch.targets.cameras * torch.tensor([1.0, 1.01, 1.0, 1.0])
    batch = Batch(batch.crops, batch.targets._replace(cameras=cameras))
    targets = augment(batch, torch.Generator().manual_seed(0)).targets
    for found, given in zip(targets.rotations[:, 0], batch.targets.rotations[:, 0], strict=True):
        mirrored = given * torch.tensor([[1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]])
        assert torch.equal(found, given) or torch.equal(found, mirrored)
