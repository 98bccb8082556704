"""HybrIK's decoder: exact joints give their body back, noisy ones what NumPy makes of them in float64."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.adopted.hybrik import HybrikHeatMap, HybrikRegression, HybrikResNet
from glnet.adopted.hybrik_network import HybrikEstimate
from glnet.kinematics import MAIN_CHILDREN
from glnet.rotations import rotation_angle
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS

FORMS = (HybrikHeatMap, HybrikRegression, HybrikResNet)
CROPS = 20
DEPTH = 2.2
"""Metres that a depth of 1 stands for, in the authors' configurations."""

REACH = 0.015
"""Metres. Children that would be further off are not reached for."""

HALF = 0.5 / 256
"""Crop sides. The authors count pixels from their middles."""


class Answer(torch.nn.Module):
    """A network that gives one answer to all crops."""

    flip_test = False

    def __init__(self, estimate: HybrikEstimate) -> None:
        super().__init__()
        self.estimate = estimate

    def forward(self, crops):
        return self.estimate


def decoded(form, body, cameras, joints, twists, betas, scale, sigma):
    given = (joints - np.array([HALF, HALF, 0]), twists, betas, scale, sigma)
    estimate = HybrikEstimate(*(torch.tensor(each, dtype=torch.float32) for each in given))
    crops = torch.zeros(len(cameras), 256, 256, 3, dtype=torch.uint8)
    with torch.no_grad():
        return form(Answer(estimate), body)(crops, torch.tensor(cameras, dtype=torch.float32))


def random_cameras(rng) -> np.ndarray:
    focal = rng.uniform(2, 6, (CROPS, 1))
    return np.concatenate([focal, focal, rng.uniform(-1, 1, (CROPS, 2))], axis=1)


def persons(body, rng, plausible_poses):
    """Cameras, shapes, local rotations, and the joints of the bodies that they see: float64, metres."""
    cameras = random_cameras(rng)
    betas, local = rng.normal(size=(CROPS, 10)), plausible_poses(CROPS)
    with torch.no_grad():
        posed = body.pose(*(torch.tensor(each, dtype=torch.float32) for each in (local, betas)))
    joints = posed.joints.double().numpy()
    distance = cameras[:, :1] / rng.uniform(0.35, 0.5, (CROPS, 1))
    # In the crop's middle, wherever that lies in the image.
    root = np.concatenate([-cameras[:, 2:] / cameras[:, :2], np.ones((CROPS, 1))], axis=1) * distance
    return cameras, betas, local, joints - joints[:, :1] + root[:, None]


def as_seen(joints, cameras):
    """Joints as the network gives them: places in the crop, crop sides, and depths behind the root."""
    places = joints[..., :2] / joints[..., 2:] * cameras[:, None, :2] + cameras[:, None, 2:]
    return np.concatenate([places, (joints[..., 2:] - joints[:, :1, 2:]) / DEPTH], axis=-1)


@pytest.mark.parametrize("form", FORMS)
def test_exact_joints_give_pose_distance_and_joints_back(demo_body, rng, plausible_poses, form):
    cameras, betas, local, joints = persons(demo_body, rng, plausible_poses)
    with torch.no_grad():
        rest = demo_body.rest_joints(torch.tensor(betas, dtype=torch.float32))
        chained = demo_body.kinematics.chain(torch.tensor(local, dtype=torch.float32))
        twists = demo_body.kinematics.twist(chained, rest).numpy()
    scale = cameras[:, :1] / joints[:, 0, 2:]
    sigma = rng.uniform(0, 0.05, (CROPS, SKELETON_JOINTS))
    found = decoded(form, demo_body, cameras, as_seen(joints, cameras), twists, betas, scale, sigma)
    distances = found.joints[:, 0, 2].double().numpy() / joints[:, 0, 2]
    off = np.linalg.norm(found.joints.double().numpy() - joints, axis=-1)
    pixels = np.abs(found.keypoints_2d.double().numpy() - (as_seen(joints, cameras)[..., :2] + 0.5) * 256)
    # The authors' guards turn the body that finds the scale of the first form a little.
    loose = 50 if form is HybrikHeatMap else 1
    assert np.abs(distances - 1).max() < 2e-5 * loose
    assert rotation_angle(found.rotations.double(), torch.tensor(local)).max() < 0.01 * loose  # degrees
    assert off.max() < 2e-4 * loose  # metres, for bodies up to 17 m away
    assert pixels.max() < 1e-3  # crop pixels
    np.testing.assert_allclose(found.confidence, 1 - sigma[:, :BODY_JOINTS].mean(1), atol=1e-6)


def swing(start, end):
    """The smallest rotation from one direction to another."""
    axis = np.cross(start, end)
    angle = np.arctan2(np.linalg.norm(axis), start @ end)
    return Rotation.from_rotvec(axis / max(np.linalg.norm(axis), 1e-300) * angle).as_matrix()


def fitted(joints, rest):
    children = [1, 2, 3]
    return Rotation.align_vectors(joints[children] - joints[0], rest[children] - rest[0])[0].as_matrix()


def by_the_spine(joints, rest):
    """By the lowest bone of the spine, then about it, by the middle of the hips."""
    first = swing(rest[3] - rest[0], joints[3] - joints[0])
    axis = (joints[3] - joints[0]) / np.linalg.norm(joints[3] - joints[0])
    start, end = (each[[1, 2]].mean(0) - each[0] for each in (rest @ first.T, joints))
    return swing(start - (start @ axis) * axis, end - (end @ axis) * axis) @ first


def bent(joints, rest, twists, root, reach):
    """Global rotations and joints, and how far the rule of the reach is from deciding otherwise, metres."""
    joints = joints - joints[0] + rest[0]
    rotations, places, margin = [root], [rest[0]], np.inf
    for joint in range(1, BODY_JOINTS):
        parent, child = PARENTS[joint], MAIN_CHILDREN[joint - 1]
        places.append(places[parent] + rotations[parent] @ (rest[joint] - rest[parent]))
        bone, target = rest[child] - rest[joint], joints[child] - joints[joint]
        if reach is not None:
            straight = target * np.linalg.norm(bone) / np.linalg.norm(target)
            reached = joints[child] - places[joint]
            off = np.linalg.norm(reached - straight)
            margin, target = min(margin, abs(off - reach)), reached if off <= reach else straight
        turn = Rotation.from_rotvec(bone / np.linalg.norm(bone) * np.arctan2(*twists[joint - 1, ::-1])).as_matrix()
        rotations.append(rotations[parent] @ swing(bone, rotations[parent].T @ target) @ turn)
    return np.array(rotations), np.array(places), margin


def lifted(joints, camera, distance):
    """Joints relative to a point so far ahead, metres."""
    depths = joints[:, 2:] * DEPTH
    return np.concatenate([(joints[:, :2] - camera[2:]) / camera[:2] * (depths + distance), depths], axis=1)


def numpys(form, joints, camera, rest, twists, scale, sigma):
    """Distance and global rotations as the authors' configuration of a form has them, and the margin of the reach."""
    margin = np.inf
    if form is not HybrikResNet:
        start = lifted(joints, camera, camera[0] / scale)
        if form is HybrikHeatMap:
            _, places, _ = bent(start, rest, twists, by_the_spine(start, rest), None)
            weights = np.maximum(1 - 10 * sigma, 0)
        else:
            _, places, margin = bent(start, rest, twists, fitted(start, rest), REACH)
            weights = 1 - 5 * sigma
        places = places - places[0] + start[0]
        rays = (joints[:BODY_JOINTS, :2] - camera[2:]) / camera[:2]
        matrix = weights[:BODY_JOINTS, None] * rays * camera[0]
        right = weights[:BODY_JOINTS, None] * (places[:, :2] - rays * places[:, 2:])
        scale = 1 / np.linalg.lstsq(matrix.reshape(-1, 1), right.reshape(-1), rcond=None)[0][0]
    there = lifted(joints, camera, camera[0] / scale)
    rotations, _, other = bent(there, rest, twists, fitted(there, rest), REACH)
    return camera[0] / scale, rotations, min(margin, other)


@pytest.mark.parametrize("form", FORMS)
def test_noisy_joints_and_a_wrong_scale_give_what_numpy_makes_of_them(demo_body, rng, plausible_poses, form):
    cameras, betas, _, joints = persons(demo_body, rng, plausible_poses)
    joints = joints + rng.normal(scale=0.02, size=joints.shape)
    with torch.no_grad():
        rest = demo_body.rest_joints(torch.tensor(betas, dtype=torch.float32)).double().numpy()
    scale = cameras[:, :1] / joints[:, 0, 2:] * rng.choice([0.8, 1.25], (CROPS, 1))
    # Some are so unsure that weights fall below zero.
    sigma, angles = rng.uniform(0, 0.4, (CROPS, SKELETON_JOINTS)), rng.uniform(-1, 1, (CROPS, BODY_JOINTS - 1))
    twists, seen = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * 3, as_seen(joints, cameras)
    found = decoded(form, demo_body, cameras, seen, twists, betas, scale, sigma)
    chained = demo_body.kinematics.chain(found.rotations).double().numpy()
    compared = 0
    for crop in range(CROPS):
        distance, rotations, margin = numpys(
            form, seen[crop], cameras[crop], rest[crop], twists[crop], scale[crop, 0], sigma[crop]
        )
        if margin < 3e-4:  # metres: what float32 and the guards move may decide otherwise
            continue
        compared += 1
        angles = np.degrees(Rotation.from_matrix(chained[crop] @ rotations.transpose(0, 2, 1)).magnitude())
        away = found.joints[crop, 0, 2].double().numpy() / distance
        assert abs(away - 1) < (1e-3 if form is HybrikHeatMap else 1e-5)
        assert angles.max() < (0.05 if form is HybrikHeatMap else 0.01)  # degrees
    assert compared > 0.8 * CROPS


def test_colours_are_scaled_by_the_authors_numbers(fabricated):
    images = fabricated("hybrik-resnet-34").network.normalization(torch.full((1, 32, 32, 3), 200, dtype=torch.uint8))
    wanted = (200 / 255 - np.array([0.406, 0.457, 0.480])) / [0.225, 0.224, 0.229]
    np.testing.assert_allclose(images[0, :, 7, 3], wanted, atol=1e-5)
