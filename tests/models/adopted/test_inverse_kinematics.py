import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.adopted.inverse_kinematics import TOLERANCE, bend, fitted_root, plain_root
from glnet.kinematics import MAIN_CHILDREN
from glnet.rotations import rotation_angle
from glnet_infer.skeleton import BODY_JOINTS


def posed(kinematics, random_rest, plausible_poses, count):
    rest = torch.tensor(random_rest(count), dtype=torch.float32)
    rotations = kinematics.chain(torch.tensor(plausible_poses(count), dtype=torch.float32))
    return rest, rotations, kinematics(rotations, rest)


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.06])
def test_the_root_is_scipys(demo_body, rng, noise):
    rest = demo_body.rest_joints(torch.tensor(rng.normal(size=(2000, 10)), dtype=torch.float32))
    turns = torch.tensor(Rotation.random(len(rest), rng).as_matrix(), dtype=torch.float32)
    joints = rest @ turns.transpose(1, 2) + torch.tensor(rng.normal(scale=noise, size=rest.shape), dtype=torch.float32)
    found = fitted_root(joints, rest).double().numpy()
    starts, ends = ((each[:, 1:4] - each[:, :1]).double().numpy() for each in (rest, joints))
    for start, end, rotation in zip(starts, ends, found, strict=True):
        wanted, _ = Rotation.align_vectors(end, start)
        # Levers of 10 cm, held by float32 to 1e-8 m: 1e-5 degrees, a hundred times that where noise makes them nearly flat.
        assert np.degrees((wanted.inv() * Rotation.from_matrix(rotation)).magnitude()) < 1e-3


def test_exact_joints_give_the_pose_back(demo_body, random_rest, plausible_poses):
    kinematics = demo_body.kinematics
    rest, rotations, joints = posed(kinematics, random_rest, plausible_poses, 50)
    twist = kinematics.twist(rotations, rest)
    root = fitted_root(joints, rest)
    assert rotation_angle(root.double(), rotations[:, 0].double()).max() < 0.005  # degrees
    for tolerance in (None, TOLERANCE):
        found = bend(joints, rest, twist, root, tolerance)
        # The shortest bones have 5 cm, and float32 holds joints two metres away to 2e-7 m: 2e-4 degrees a joint.
        assert rotation_angle(found.double(), rotations.double()).max() < 0.01, tolerance


def test_the_plain_root_is_right_for_exact_joints_of_a_straight_pelvis(demo_body, plausible_poses):
    rest = demo_body.rest_joints(torch.zeros(1, 10)).expand(20, -1, -1)
    rotations = demo_body.kinematics.chain(torch.tensor(plausible_poses(20), dtype=torch.float32))
    joints = demo_body.kinematics(rotations, rest)
    assert (
        rotation_angle(plain_root(joints, rest).double(), rotations[:, 0].double()).max() < 0.05
    )  # a lever of centimetres


def test_children_in_reach_are_reached(demo_body, random_rest, plausible_poses, rng):
    kinematics = demo_body.kinematics
    rest, rotations, joints = posed(kinematics, random_rest, plausible_poses, 100)
    noisy = joints + torch.tensor(rng.normal(scale=0.001, size=joints.shape), dtype=torch.float32)
    found = bend(noisy, rest, kinematics.twist(rotations, rest), fitted_root(noisy, rest))
    reached = kinematics(found, rest)
    target = noisy - noisy[:, :1] + rest[:, :1]
    # A bone points exactly at its child, whose distance alone may be wrong.
    for joint, child in enumerate(MAIN_CHILDREN, 1):
        bone, wanted = reached[:, child] - reached[:, joint], target[:, child] - reached[:, joint]
        close = (wanted - (noisy[:, child] - noisy[:, joint])).norm(dim=1) < TOLERANCE / 2
        angle = torch.linalg.cross(bone, wanted).norm(dim=1) / bone.norm(dim=1)
        assert close.float().mean() > 0.9 and angle[close].max() < 2e-6, joint  # metres


def test_children_out_of_reach_give_their_bones_direction(demo_body, random_rest, plausible_poses):
    kinematics = demo_body.kinematics
    rest, rotations, joints = posed(kinematics, random_rest, plausible_poses, 30)
    twist, root = kinematics.twist(rotations, rest), fitted_root(joints, rest)
    moved = joints.clone()
    moved[:, 4] += torch.tensor([0.0, 0.5, 0.0])  # the left knee, half a metre away
    found, plain = bend(moved, rest, twist, root), bend(moved, rest, twist, root, tolerance=None)
    torch.testing.assert_close(found[:, 1], plain[:, 1], atol=1e-5, rtol=0)


def test_degenerate_skeletons_give_rotations(demo_body):
    rest = demo_body.rest_joints(torch.zeros(1, 10))
    for joints in (torch.zeros_like(rest), rest * torch.tensor([1.0, -1.0, 1.0]), rest):
        found = bend(joints, rest, torch.zeros(1, 23, 2), fitted_root(joints, rest))
        assert found.isfinite().all()
    found = bend(rest, rest, torch.tensor([[1.0, 0.0]]).expand(1, 23, 2), fitted_root(rest, rest))
    torch.testing.assert_close(found, torch.eye(3).expand(1, BODY_JOINTS, 3, 3), atol=1e-5, rtol=0)
