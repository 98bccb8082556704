"""Mirrored and recoloured crops: the labels change with the picture."""

import pytest
import torch

from glnet.config import GLNetConfig
from glnet.recovery import Decoder
from glnet.training.augmentation import GAIN, augment, mirror
from glnet.training.batches import make_targets
from glnet.training.synthetic import SyntheticSource
from glnet.training.targets import Batch
from glnet_infer.skeleton import JOINT_NAMES

MM = 1e-3


@pytest.fixture(scope="module", params=[True, False], ids=["swing-twist", "6d"])
def rendered(request, demo_body):
    """A decoder, a sample and its batch."""
    config = GLNetConfig(swing_twist=request.param, keypoints=31)
    decoder = Decoder(config, demo_body)
    sample = SyntheticSource(demo_body, 64, seed=11).sample(6)
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


def test_augmentation_mirrors_some_and_keeps_crops_with_their_labels(rendered):
    _, _, batch = rendered
    many = Batch(batch.crops.repeat(8, 1, 1, 1), batch.targets.map(lambda part: part.repeat(8, *[1] * (part.ndim - 1))))
    crops, targets = augment(many, torch.Generator().manual_seed(0))
    mirrored = (targets.cameras[:, 2] * many.targets.cameras[:, 2]) < 0
    assert 10 < mirrored.sum() < 38  # of 48
    for index in range(48):
        expected = many.crops[index].flip(1) if mirrored[index] else many.crops[index]
        # Channels are scaled by at most GAIN, then cut off at 255 and rounded down.
        low = (expected.float() * (1 - GAIN)).floor() - 1
        high = (expected.float() * (1 + GAIN)).clamp(max=255)
        assert ((crops[index] >= low) & (crops[index] <= high)).all()
        sign = -1 if mirrored[index] else 1
        torch.testing.assert_close(
            targets.estimate.keypoints[index, 0, 0], sign * many.targets.estimate.keypoints[index, 0, 0]
        )
