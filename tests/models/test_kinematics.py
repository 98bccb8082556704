"""Forward and inverse kinematics: round trips, plain recursions in float64, and every degenerate skeleton documented."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.kinematics import LEVELS, MAIN_CHILDREN, Kinematics, perpendicular
from glnet.rotations import rotation_angle
from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, PARENTS, SKELETON_JOINTS

JOINT = {name: i for i, name in enumerate(JOINT_NAMES)}
NO_TWIST = (1.0, 0.0)


@pytest.fixture(scope="module")
def kinematics():
    return Kinematics().double()


@pytest.fixture(scope="module")
def kinematics32():
    return Kinematics()


# Oracles: one joint at a time, in numpy


def global_rotations(local: np.ndarray) -> np.ndarray:
    rotations = local.copy()
    for joint in range(1, BODY_JOINTS):
        rotations[:, joint] = rotations[:, PARENTS[joint]] @ local[:, joint]
    return rotations


def posed_joints(rotations: np.ndarray, rest: np.ndarray) -> np.ndarray:
    joints = rest.copy()
    for joint in range(1, SKELETON_JOINTS):
        parent = PARENTS[joint]
        bone = rest[:, joint] - rest[:, parent]
        joints[:, joint] = joints[:, parent] + np.einsum("nij,nj->ni", rotations[:, parent], bone)
    return joints


def rest_bone_directions(rest: np.ndarray) -> np.ndarray:
    """N x 23 x 3."""
    bones = rest[:, list(MAIN_CHILDREN)] - rest[:, 1:BODY_JOINTS]
    return bones / np.linalg.norm(bones, axis=-1, keepdims=True)


def twist_angles(local: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Swing-twist by quaternions: the twist is the part of the quaternion along the axis (radians)."""
    quaternions = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_quat()
    along = (quaternions[:, :3] * axes.reshape(-1, 3)).sum(1)
    return 2 * np.arctan2(along, quaternions[:, 3])


def swing_angles(local: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Angles by which the bones change direction, degrees."""
    bone = np.einsum("...ij,...j->...i", local, axes)
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(bone - axes, axis=-1) / 2, 0, 1)))


def assert_rotations(matrices: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert matrices.isfinite().all()
    eye = torch.eye(3, dtype=matrices.dtype).expand_as(matrices)
    torch.testing.assert_close(matrices.transpose(-2, -1) @ matrices, eye, atol=tolerance, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), eye[..., 0, 0], atol=tolerance, rtol=0)


def untwisted(count: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(NO_TWIST, dtype=dtype).repeat(count, BODY_JOINTS - 1, 1)


# The tree


def test_smpl_numbers_joints_level_by_level():
    depth = [0]
    for joint in range(1, BODY_JOINTS):
        depth.append(depth[PARENTS[joint]] + 1)
    assert depth == sorted(depth)
    assert [joint for level in LEVELS for joint in level] == list(range(1, BODY_JOINTS))


def test_every_joint_but_the_root_has_a_bone_to_be_oriented_by():
    assert len(MAIN_CHILDREN) == BODY_JOINTS - 1
    for joint, child in enumerate(MAIN_CHILDREN, start=1):
        assert PARENTS[child] == joint
    assert MAIN_CHILDREN[JOINT["spine3"] - 1] == JOINT["neck"]


# Forward


def test_chain_agrees_with_a_joint_by_joint_product(kinematics, random_locals):
    local = random_locals(50)
    np.testing.assert_allclose(kinematics.chain(torch.tensor(local)), global_rotations(local), atol=1e-12)


def test_unchain_undoes_chain_and_chain_undoes_unchain(kinematics, random_locals):
    rotations = torch.tensor(random_locals(50))
    torch.testing.assert_close(kinematics.unchain(kinematics.chain(rotations)), rotations, atol=1e-12, rtol=0)
    torch.testing.assert_close(kinematics.chain(kinematics.unchain(rotations)), rotations, atol=1e-12, rtol=0)


def test_forward_agrees_with_a_joint_by_joint_recursion(kinematics, kinematics32, random_locals, random_rest):
    rotations, rest = global_rotations(random_locals(100)), random_rest(100)
    expected = posed_joints(rotations, rest)
    np.testing.assert_allclose(kinematics(torch.tensor(rotations), torch.tensor(rest)), expected, atol=1e-12)
    single = kinematics32(torch.tensor(rotations).float(), torch.tensor(rest).float())
    np.testing.assert_allclose(single, expected, atol=5e-6)  # 0.005 mm: sums of nine bones of half a metre in float32


# Inverse


def test_inverse_returns_ten_thousand_random_poses(kinematics, random_locals, random_rest):
    local, rest = torch.tensor(random_locals(10_000)), torch.tensor(random_rest(10_000))
    rotations = kinematics.chain(local)
    found = kinematics.inverse(kinematics(rotations, rest), rest, kinematics.twist(rotations, rest))
    # Degrees. 0.01 would do; measured 2e-10, where the closest of 230,000 swings to half a turn costs the most digits.
    assert rotation_angle(found, rotations).max() < 1e-6
    assert rotation_angle(kinematics.unchain(found), local).max() < 1e-6


def test_inverse_returns_poses_of_the_demo_body_from_anywhere(kinematics, demo_body, random_locals, rng):
    betas = torch.tensor(rng.normal(size=(500, 10)), dtype=torch.float32)
    rest = demo_body.rest_joints(betas).double()
    rotations = kinematics.chain(torch.tensor(random_locals(500)))
    joints = kinematics(rotations, rest) + torch.tensor(rng.uniform(-5, 5, (500, 1, 3)))
    found = kinematics.inverse(joints, rest, kinematics.twist(rotations, rest))
    assert rotation_angle(found, rotations).max() < 0.01  # degrees


@pytest.mark.parametrize("skeleton", ["random", "demo"])
def test_inverse_in_float32_is_within_a_tenth_of_a_degree(
    kinematics32, kinematics, demo_body, random_locals, random_rest, skeleton
):
    count = 10_000 if skeleton == "random" else 2_000
    local = random_locals(count)
    rest = random_rest(count) if skeleton == "random" else demo_body.rest_joints(torch.zeros(count, 10)).double().numpy()
    swings = swing_angles(local[:, 1:], rest_bone_directions(rest))
    # Close to half a turn, rounded positions do not say how a bone came to point backwards: its turn is undefined, and
    # so is what hangs on it. A joint counts where its own swing and those above it are below 175 degrees.
    steady = np.concatenate([np.ones((count, 1), bool), swings < 175], axis=1)
    for joint in range(1, BODY_JOINTS):
        steady[:, joint] &= steady[:, PARENTS[joint]]
    assert steady.mean() > 0.98

    rotations = kinematics.chain(torch.tensor(local)).float()
    rest32 = torch.tensor(rest).float()
    found = kinematics32.inverse(kinematics32(rotations, rest32), rest32, kinematics32.twist(rotations, rest32))
    assert_rotations(found)
    assert rotation_angle(found.double(), rotations.double())[torch.tensor(steady)].max() < 0.1  # degrees; measured 0.03


def test_inverse_ignores_where_the_skeleton_is_and_how_large(kinematics, random_locals, random_rest):
    rest = torch.tensor(random_rest(20))
    rotations = kinematics.chain(torch.tensor(random_locals(20)))
    joints = kinematics(rotations, rest)
    found = kinematics.inverse(3 * joints + torch.tensor([4.0, -5.0, 6.0]), rest, kinematics.twist(rotations, rest))
    assert rotation_angle(found, rotations).max() < 1e-4  # degrees


@pytest.mark.parametrize("size", [1e-3, 0.2, 7.0, 1e4])
def test_twists_may_have_any_positive_length(kinematics, random_locals, random_rest, size):
    rest = torch.tensor(random_rest(20))
    rotations = kinematics.chain(torch.tensor(random_locals(20)))
    twist = kinematics.twist(rotations, rest)
    found = kinematics.inverse(kinematics(rotations, rest), rest, twist * size)
    assert rotation_angle(found, rotations).max() < 1e-4  # degrees


def test_twist_agrees_with_the_quaternion_decomposition(kinematics, random_locals, random_rest):
    local, rest = random_locals(500), random_rest(500)
    rotations = torch.tensor(global_rotations(local))
    angles = twist_angles(local[:, 1:], rest_bone_directions(rest)).reshape(500, 23)
    expected = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    np.testing.assert_allclose(kinematics.twist(rotations, torch.tensor(rest)), expected, atol=1e-9)


def test_a_pure_turn_about_the_bone_is_a_twist_by_its_angle(kinematics, random_rest, rng):
    rest = random_rest(1)
    axes, angles = rest_bone_directions(rest)[0], rng.uniform(-np.pi, np.pi, 23)
    local = np.concatenate([np.eye(3)[None], Rotation.from_rotvec(axes * angles[:, None]).as_matrix()])[None]
    twist = kinematics.twist(torch.tensor(global_rotations(local)), torch.tensor(rest))
    np.testing.assert_allclose(twist[0], np.stack([np.cos(angles), np.sin(angles)], axis=-1), atol=1e-12)


def test_inverse_points_every_bone_at_its_target_for_any_skeleton(kinematics, random_rest):
    """Even where posed bones are not as long as rest bones, and hips not as wide apart."""
    rest, joints = torch.tensor(random_rest(100)), torch.tensor(random_rest(100))
    rotations = kinematics.inverse(joints, rest, untwisted(100))
    assert_rotations(rotations, 1e-9)
    bones = np.einsum("nkij,nkj->nki", rotations[:, 1:], rest_bone_directions(rest.numpy()))
    np.testing.assert_allclose(bones, rest_bone_directions(joints.numpy()), atol=1e-7)


def test_swings_are_the_smallest_that_reach_the_target(kinematics, random_rest):
    rest, joints = torch.tensor(random_rest(200)), torch.tensor(random_rest(200))
    local = kinematics.unchain(kinematics.inverse(joints, rest, untwisted(200)))[:, 1:]
    turned = Rotation.from_matrix(local.reshape(-1, 3, 3).numpy()).magnitude()
    needed = swing_angles(local.numpy(), rest_bone_directions(rest.numpy())).ravel()
    np.testing.assert_allclose(np.degrees(turned), needed, atol=1e-4)  # degrees


def test_root_follows_spine_exactly_and_hips_as_far_as_that_allows(kinematics, random_rest):
    """With hips of another width: the spine's direction is kept, and the hips' line stays in the plane of both."""
    rest, joints = random_rest(50), random_rest(50)
    root = kinematics.inverse(torch.tensor(joints), torch.tensor(rest), untwisted(50))[:, 0].numpy()

    def spine_and_hips(points):
        return points[:, 3] - points[:, 1:3].mean(1), points[:, 1] - points[:, 2]

    (rest_spine, rest_hips), (spine, hips) = spine_and_hips(rest), spine_and_hips(joints)
    moved_spine, moved_hips = (np.einsum("nij,nj->ni", root, v) for v in (rest_spine, rest_hips))
    cosine = (moved_spine * spine).sum(1) / np.linalg.norm(moved_spine, axis=1) / np.linalg.norm(spine, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-12)
    np.testing.assert_allclose((np.cross(spine, hips) * moved_hips).sum(1), 0, atol=1e-12)
    along = moved_spine / np.linalg.norm(moved_spine, axis=1, keepdims=True)
    across = hips - (hips * along).sum(1, keepdims=True) * along
    assert ((across * moved_hips).sum(1) > 0).all()  # left stays left


# Degenerate skeletons


@pytest.fixture
def demo_rest(demo_body):
    return demo_body.rest_joints(torch.zeros(1, 10)).double()


def with_bone(rest: torch.Tensor, joint: int, vector: torch.Tensor) -> torch.Tensor:
    """The rest skeleton with the bone below a joint replaced; what hangs below moves along."""
    child = MAIN_CHILDREN[joint - 1]
    below = [child]
    for other in range(child + 1, SKELETON_JOINTS):
        if PARENTS[other] in below:
            below.append(other)
    joints = rest.clone()
    joints[:, below] += (rest[:, joint] + vector - rest[:, child])[:, None]
    return joints


@pytest.mark.parametrize(
    ("joint", "size"),
    [("left_hip", 0.0), ("left_knee", 0.0), ("spine2", 0.0), ("neck", 0.0), ("right_hand", 0.0), ("left_knee", 5e-7)],
)
def test_joint_whose_predicted_bone_has_no_length_only_twists(kinematics, demo_rest, joint, size):
    index, angle = JOINT[joint], 0.7
    axis = rest_bone_directions(demo_rest.numpy())[0, index - 1]
    joints = with_bone(demo_rest, index, size * perpendicular(torch.tensor(axis)))
    twist = untwisted()
    twist[0, index - 1] = torch.tensor([np.cos(angle), np.sin(angle)])
    local = kinematics.unchain(kinematics.inverse(joints, demo_rest, twist))
    expected = torch.tensor(Rotation.from_rotvec(angle * axis).as_matrix())
    assert rotation_angle(local[0, index], expected) < 0.01  # degrees


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("joint", range(1, BODY_JOINTS))
def test_bone_opposite_to_its_rest_direction_is_reached_by_half_a_turn(demo_rest, joint, dtype):
    kinematics = Kinematics().to(dtype)
    rest = demo_rest.to(dtype)
    bone = rest[:, MAIN_CHILDREN[joint - 1]] - rest[:, joint]
    rotations = kinematics.inverse(with_bone(rest, joint, -bone), rest, untwisted(dtype=dtype))
    assert_rotations(rotations)
    local = kinematics.unchain(rotations)[0, joint].double()
    moved = local @ bone[0].double()
    cosine = torch.nn.functional.cosine_similarity(moved, -bone[0].double(), dim=0)
    # 0.1 degrees: halfway between rest and target is rounding noise here, a few 1e-7 / 3e-4 in float32.
    assert np.degrees(np.arccos(min(cosine.item(), 1.0))) < 0.1
    assert np.degrees(Rotation.from_matrix(local).magnitude()) == pytest.approx(180, abs=0.1)


@pytest.mark.parametrize("joint", ["left_knee", "spine2", "right_elbow"])
def test_half_a_turn_is_about_the_documented_axis(kinematics, demo_rest, joint):
    index = JOINT[joint]
    bone = demo_rest[:, MAIN_CHILDREN[index - 1]] - demo_rest[:, index]
    local = kinematics.unchain(kinematics.inverse(with_bone(demo_rest, index, -bone), demo_rest, untwisted()))[0, index]
    axis = perpendicular(bone / bone.norm())[0]
    expected = torch.tensor(Rotation.from_rotvec(np.pi * axis.numpy()).as_matrix())
    assert rotation_angle(local, expected) < 0.1  # degrees


def test_nearly_opposite_bones_point_where_they_should(kinematics32, demo_rest, rng):
    """From 1e-6 to 1e-2 rad off opposite, on both sides of where the half turn begins."""
    rest = demo_rest.float()
    joint = JOINT["left_knee"]
    bone = (rest[:, MAIN_CHILDREN[joint - 1]] - rest[:, joint]).double()
    for angle in np.logspace(-6, -2, 30):
        axis = perpendicular(bone / bone.norm())[0].numpy()
        target = -Rotation.from_rotvec(angle * axis).apply(bone[0].numpy())
        joints = with_bone(rest, joint, torch.tensor(target, dtype=torch.float32))
        rotations = kinematics32.inverse(joints, rest, untwisted(dtype=torch.float32))
        assert_rotations(rotations)
        moved = rotations[0, joint].double().numpy() @ bone[0].numpy()
        assert np.degrees(np.linalg.norm(moved - target) / np.linalg.norm(target)) < 0.1


def test_round_trip_through_exact_half_turns(kinematics, demo_rest):
    """A joint turned by exactly 180 degrees about any axis across its bone comes back: twist() and inverse() agree."""
    axes = rest_bone_directions(demo_rest.numpy())[0]
    for turn in (0.0, 1.0, 2.5):
        across = Rotation.from_rotvec(turn * axes).apply(perpendicular(torch.tensor(axes)).numpy())
        for joint in range(1, BODY_JOINTS):
            local = torch.eye(3, dtype=torch.float64).repeat(1, BODY_JOINTS, 1, 1)
            local[0, joint] = torch.tensor(Rotation.from_rotvec(np.pi * across[joint - 1]).as_matrix())
            rotations = kinematics.chain(local)
            twist = kinematics.twist(rotations, demo_rest)
            found = kinematics.inverse(kinematics(rotations, demo_rest), demo_rest, twist)
            assert rotation_angle(found, rotations).max() < 0.01, JOINT_NAMES[joint]  # degrees


def degenerate_skeletons(rest: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Posed and rest joints of skeletons on which a careless formula divides by zero."""
    point = torch.zeros_like(rest) + torch.tensor([0.3, -0.2, 4.0])
    line = torch.arange(SKELETON_JOINTS)[None, :, None] * torch.tensor([0.0, 0.1, 0.0])
    along_z = torch.arange(SKELETON_JOINTS)[None, :, None] * torch.tensor([0.0, 0.0, -0.1])
    hips_in_one = rest.clone()
    hips_in_one[:, 1:3] = rest[:, :1]
    spine_between_hips = rest.clone()
    spine_between_hips[:, 3] = rest[:, 1:3].mean(1)
    knee = with_bone(rest, JOINT["left_knee"], torch.zeros(1, 3).to(rest))
    return {
        "all posed joints at one point": (point, rest),
        "all rest joints at one point": (rest, point),
        "both at one point": (point, torch.zeros_like(rest)),
        "all on a line": (line.to(rest), rest),
        "all on a line along z, backwards": (along_z.to(rest), rest),
        "hips at one point": (hips_in_one, rest),
        "rest hips at one point": (rest, hips_in_one),
        "lowest spine joint between the hips": (spine_between_hips, rest),
        "zero-length rest bone": (rest, knee),
        "mirrored": (rest * torch.tensor([-1.0, 1.0, 1.0]).to(rest), rest),
        "inside out": (-rest, rest),
        "at rest": (rest, rest),
    }


CASES = list(degenerate_skeletons(torch.zeros(1, SKELETON_JOINTS, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_degenerate_skeletons_give_proper_rotations_and_finite_gradients(demo_rest, case, dtype):
    kinematics = Kinematics().to(dtype)
    joints, rest = degenerate_skeletons(demo_rest.to(dtype))[case]
    inputs = [joints.to(dtype), rest.to(dtype), untwisted(dtype=dtype)]
    inputs = [value.detach().clone().requires_grad_() for value in inputs]
    rotations = kinematics.inverse(*inputs)
    assert_rotations(rotations.detach())
    weight = torch.linspace(-1, 1, rotations.numel(), dtype=dtype).reshape(rotations.shape)
    (rotations * weight).sum().backward()
    for value in inputs:
        assert value.grad.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_twists_of_degenerate_skeletons_are_unit_and_have_finite_gradients(kinematics, demo_rest, random_locals, case):
    rest = degenerate_skeletons(demo_rest)[case][1]
    rest = rest.double().clone().requires_grad_()
    half = torch.eye(3, dtype=torch.float64).repeat(1, BODY_JOINTS, 1, 1)
    half[:, 4] = torch.tensor([1.0, -1.0, -1.0]).double().diag()
    for local in (half, torch.tensor(random_locals(1))):
        rotations = kinematics.chain(local).requires_grad_()
        twist = kinematics.twist(rotations, rest)
        # A unit vector: nothing but the twist is left once the swing is taken away.
        torch.testing.assert_close(twist.norm(dim=-1), torch.ones(1, 23, dtype=torch.float64), atol=1e-6, rtol=0)
        (twist * torch.linspace(-1, 1, 46, dtype=torch.float64).reshape(1, 23, 2)).sum().backward()
        assert rest.grad.isfinite().all()
        assert rotations.grad.isfinite().all()


def test_no_twist_at_all_counts_as_a_zero_vector_and_stays_finite(kinematics, demo_rest):
    twist = torch.zeros(1, 23, 2, dtype=torch.float64, requires_grad=True)
    rotations = kinematics.inverse(demo_rest, demo_rest, twist)
    rotations.sum().backward()
    assert rotations.isfinite().all()
    assert twist.grad.isfinite().all()


def test_rest_bone_without_length_counts_as_pointing_up(kinematics, demo_rest):
    joint = JOINT["left_knee"]
    rest = with_bone(demo_rest, joint, torch.zeros(1, 3).double())
    joints = rest.clone()
    joints[:, [7, 10, 27]] += torch.tensor([0.4, 0.0, 0.0]).double()  # the predicted shin points along +x
    local = kinematics.unchain(kinematics.inverse(joints, rest, untwisted()))[0, joint]
    expected = torch.tensor(Rotation.from_rotvec([0, 0, -np.pi / 2]).as_matrix())  # from +y to +x, the shortest way
    assert rotation_angle(local, expected) < 0.01  # degrees


def test_torso_without_directions_keeps_the_pelvis_of_an_upright_body_upright(kinematics, demo_rest):
    """+y counts as the spine's direction; the hips then give what is left of the answer."""
    joints = demo_rest.clone()
    joints[:, 3] = joints[:, 1:3].mean(1)
    root = kinematics.inverse(joints, demo_rest, untwisted())[0, 0]
    spine = demo_rest[0, 3] - demo_rest[0, 1:3].mean(0)
    moved = root @ spine / spine.norm()
    np.testing.assert_allclose(moved, [0, 1, 0], atol=1e-6)


def test_perpendicular_is_a_unit_vector_across(rng):
    directions = np.concatenate([rng.normal(size=(1000, 3)), np.eye(3), -np.eye(3), [[0, 0.6, 0.8], [0.6, 0, 0.8]]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = perpendicular(torch.tensor(directions)).numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose((found * directions).sum(1), 0, atol=1e-12)


def test_gradients_agree_with_finite_differences(kinematics, random_rest):
    rest, joints = torch.tensor(random_rest(1)), torch.tensor(random_rest(1)).requires_grad_()
    twist = untwisted().requires_grad_()
    assert torch.autograd.gradcheck(lambda j, t: kinematics.inverse(j, rest, t), (joints, twist), fast_mode=True)
