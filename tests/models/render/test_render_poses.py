"""Poses, views and shapes: within what bodies can do, from all sides, and no side preferred."""

import numpy as np
import pytest
import torch

from glnet_infer.skeleton import MIRROR_PAIRS, SKELETON_JOINTS
from glnet_render.limits import INDEX, JointAngles, joint_limits
from glnet_render.poses import MAXIMUM_BETA, PoseSampler, shapes, views
from glnet_render.randomness import Draw

CPU = torch.device("cpu")
MANY = 4000
SWAP = np.arange(SKELETON_JOINTS)
for one, other in MIRROR_PAIRS:
    SWAP[[one, other]] = other, one


@pytest.fixture(scope="module")
def sampler():
    return PoseSampler(CPU)


@pytest.fixture(scope="module")
def angles(sampler):
    return sampler.angles(Draw(torch.Generator().manual_seed(0)), MANY, 1.0)


@pytest.fixture(scope="module")
def joints(sampler, angles, demo_body):
    """Joints of a mean body that faces +z, y up, about its root: N x 29 x 3."""
    rotations = sampler.rotations(angles, torch.eye(3).expand(MANY, 3, 3))
    rest = demo_body.rest_joints(torch.zeros(MANY, 10))
    return (demo_body.kinematics(demo_body.kinematics.chain(rotations), rest) - rest[:, :1]).numpy()


def draw(seed: int = 1) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def names(suffix: str) -> tuple[int, int]:
    return INDEX[f"left_{suffix}"], INDEX[f"right_{suffix}"]


def test_angles_are_within_the_limits(angles):
    low, high = joint_limits().unbind(-1)
    assert (angles >= low).all()
    assert (angles <= high).all()


@pytest.mark.parametrize("side", [0, 1])
def test_knees_and_elbows_never_bend_backwards(sampler, angles, side):
    """In the thigh's frame the shin lies below it or behind it; the forearm beside the upper arm or before it."""
    rotations = sampler.joints.rotations(angles).numpy()
    knee = rotations[:, names("knee")[side]]
    shin = -knee[:, :, 1]  # where the rest pose's downward bone points
    assert np.degrees(np.arctan2(shin[:, 2], -shin[:, 1])).max() < 3
    elbow = rotations[:, names("elbow")[side]]
    outwards = 1 if side == 0 else -1
    forearm = elbow[:, :, 0] * outwards
    assert np.degrees(np.arctan2(-forearm[:, 2], forearm[:, 0] * outwards)).max() < 3


def test_knees_and_elbows_use_their_range(angles):
    assert angles[:, INDEX["left_knee"], 0].quantile(0.95) > 100
    assert angles[:, INDEX["left_elbow"], 1].quantile(0.05) < -90


@pytest.mark.parametrize("side", [0, 1])
def test_signs_of_the_angles(sampler, demo_body, side):
    """One turn at a time on either side moves the limb where the module's text says."""

    def moved(joint: str, end: str, axis: int, degrees: float) -> np.ndarray:
        turned = torch.zeros(1, 24, 4)
        turned[:, names(joint)[side], axis] = degrees
        rotations = sampler.joints.rotations(turned)
        rest = demo_body.rest_joints(torch.zeros(1, 10))
        posed = demo_body.kinematics(demo_body.kinematics.chain(rotations), rest)
        outwards = np.array([1 if side == 0 else -1, 1, 1])
        return ((posed - rest)[0, names(end)[side]].numpy()) * outwards

    assert moved("hip", "ankle", 0, -40)[2] > 0.3  # flexion: forwards
    assert moved("hip", "ankle", 2, 40)[0] > 0.3  # abduction: outwards
    assert moved("knee", "ankle", 0, 40)[2] < -0.2  # flexion: backwards
    assert moved("shoulder", "wrist", 2, -60)[1] < -0.3  # down
    assert moved("shoulder", "wrist", 1, -60)[2] > 0.3  # forwards
    assert moved("elbow", "wrist", 1, -60)[2] > 0.1  # flexion: forwards
    assert moved("hip", "foot", 1, 40)[0] > 0.05  # toes outwards


def test_mirrored_angles_mirror_the_skeleton(sampler, angles, demo_body):
    chosen = angles[:50]
    rest = demo_body.rest_joints(torch.zeros(50, 10))

    def skeleton(values: torch.Tensor) -> np.ndarray:
        rotations = sampler.joints.rotations(values)
        return (demo_body.kinematics(demo_body.kinematics.chain(rotations), rest) - rest[:, :1]).numpy()

    mirrored = skeleton(chosen)[:, SWAP] * [-1, 1, 1]
    np.testing.assert_allclose(skeleton(JointAngles(CPU).mirror(chosen)), mirrored, atol=1e-4)


def test_no_side_is_preferred(joints):
    """Means and spreads of a joint are those of its mirrored partner, within five standard errors."""
    mirrored = joints[:, SWAP] * [-1, 1, 1]
    spread = joints.std(0) + 1e-6
    assert (np.abs(joints.mean(0) - mirrored.mean(0)) / spread).max() < 5 * (2 / MANY) ** 0.5
    assert np.abs(joints.std(0) / mirrored.std(0).clip(1e-6) - 1)[1:].max() < 0.1


def test_poses_are_many(joints):
    """Hands overhead, hands at the feet, knees at the chest, lying bodies: each in a fair share of the poses."""
    head, pelvis = joints[:, INDEX["head"]], joints[:, 0]
    hands = joints[:, list(names("wrist"))]
    feet = joints[:, list(names("ankle"))]
    knees = joints[:, list(names("knee"))]
    assert 0.03 < (hands[..., 1].max(1) > head[:, 1] + 0.1).mean() < 0.4
    assert 0.02 < (hands[..., 1].min(1) < pelvis[:, 1] - 0.3).mean() < 0.4
    assert 0.1 < (knees[..., 1].min(1) > pelvis[:, 1] - 0.25).mean() < 0.5
    assert 0.02 < (np.abs(head[:, 1] - feet[..., 1].mean(1)) < 0.5).mean() < 0.3


def test_no_difficulty_is_frontal_standing(sampler, demo_body):
    generator = draw(2)
    angles = sampler.angles(generator, 500, 0.0)
    assert (angles - sampler.relaxed).abs().max() < 35
    facing = views(generator, 500, 0.0)
    towards, up = facing[:, :, 2], facing[:, :, 1]
    assert (towards[:, 2] < -0.8).all()  # the chest points at the camera
    assert (up[:, 1] < -0.99).all()  # the head is up


def test_difficulty_widens_the_poses(sampler):
    spreads = [sampler.angles(draw(3), 1000, difficulty).std(0).mean() for difficulty in (0.0, 0.5, 1.0)]
    assert spreads[0] < 0.5 * spreads[1]
    assert spreads[1] < 0.75 * spreads[2]


def test_views_come_from_all_sides():
    facing = views(draw(), MANY, 1.0)
    torch.testing.assert_close(facing @ facing.transpose(1, 2), torch.eye(3).expand(MANY, 3, 3), atol=1e-5, rtol=0)
    towards = facing[:, :, 2]
    sectors = torch.histc(torch.atan2(towards[:, 0], -towards[:, 2]), 12, -torch.pi, torch.pi) / MANY
    assert (sectors - 1 / 12).abs().max() < 0.025
    up = facing[:, :, 1]
    assert (up[:, 1] < -0.8).float().mean() > 0.8  # mostly upright
    assert (up[:, 2] < -0.5).float().mean() > 0.02  # some from high above: the head is nearer


def test_camera_above_sees_the_head_nearer():
    up = views(draw(), MANY, 1.0)[:, :, 1]
    assert up[:, 2].mean() < -0.05


def test_shapes_are_bounded_and_wide():
    betas = shapes(draw(), MANY)
    assert betas.abs().max() <= MAXIMUM_BETA
    assert betas.mean(0).abs().max() < 0.1
    assert betas[:, 2:].std(0).min() > 0.9
    assert betas[:, :2].std(0).min() > 1.05
