"""From estimate to mesh and back: the decoder returns what was encoded, from any camera."""

import copy

import numpy as np
import pytest
import torch

from glnet.config import GLNetConfig
from glnet.decoding import Decoder, GLNetRecovery, standing_estimate
from glnet.estimate import Estimate, default_cameras, estimate_from_joints, lift
from glnet_infer.skeleton import JOINT_NAMES, SKELETON_JOINTS

MM = 1e-3
JOINT = {name: i for i, name in enumerate(JOINT_NAMES)}


@pytest.fixture(params=[True, False], ids=["swing-twist", "6D"])
def decoder(request, demo_body):
    return Decoder(GLNetConfig(swing_twist=request.param), copy.deepcopy(demo_body))


@pytest.fixture
def random_persons(rng, plausible_poses):
    """Makes N persons somewhere in somebody's image: local rotations, betas, root positions, cameras of their crops.

    Focal lengths from 0.8 to 12 crop sides, the principal point up to three crop sides outside, so that persons are seen
    at up to 70 degrees from the axis; a metre spans 0.2 to 0.5 crop sides, less in wide-angle views, where the person
    would else be behind the camera in part.
    """

    def make(count: int) -> tuple[torch.Tensor, ...]:
        focal = np.exp(rng.uniform(np.log(0.8), np.log(12), (count, 1)))
        focal = np.concatenate([focal, focal * rng.uniform(0.97, 1.03, (count, 1))], axis=1)
        center = rng.uniform(-3, 3, (count, 2)) * np.minimum(focal / 2, 1)
        z = focal.mean(1, keepdims=True) / rng.uniform(0.2, 0.5, (count, 1))
        z = np.maximum(z, 2.5)
        keypoint = rng.uniform(-0.2, 0.2, (count, 2))
        root = np.concatenate([(keypoint - center) / focal * z, z], axis=1)
        values = plausible_poses(count), rng.normal(size=(count, 10)), root, np.concatenate([focal, center], axis=1)
        return tuple(torch.tensor(value) for value in values)

    return make


def encoded(decoder, persons, dtype):
    """The persons' estimate, posed vertices and joints, in the decoder's precision."""
    local, betas, root, cameras = (value.to(dtype) for value in persons)
    posed = decoder.body.pose(local, betas)
    translation = root - posed.joints[:, 0]
    estimate = decoder.encode(local, betas, translation, cameras)
    return estimate, posed.vertices + translation[:, None], posed.joints + translation[:, None], translation


def pixels(points: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Pinhole projection by hand: pixels of a 256-pixel crop, from its centre."""
    return 256 * (points[..., :2] / points[..., 2:] * cameras[:, None, :2] + cameras[:, None, 2:])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 0.001 * MM), (torch.float32, 0.05 * MM)])
def test_decoding_returns_the_encoded_body(decoder, random_persons, dtype, bound):
    # 0.05 mm in float32 (measured 0.008): depths are taken from a distance of up to 60 m, where float32 has steps of
    # 0.004 mm, and bones of 50 mm are oriented by them.
    decoder = decoder.to(dtype)
    persons = random_persons(64)
    with torch.no_grad():
        estimate, vertices, joints, translation = encoded(decoder, persons, dtype)
        decoded = decoder(estimate, persons[3].to(dtype))
    assert (decoded.vertices - vertices).norm(dim=-1).max() < bound
    assert (decoded.joints - joints).norm(dim=-1).max() < bound
    assert (decoded.translation - translation).norm(dim=-1).max() < bound
    # 0.02 degrees in float32 (measured 0.004): bones of 50 mm, whose ends are known to about 0.01 mm.
    chord = (decoded.rotations.double() - persons[0]).flatten(2).norm(dim=-1).max().item() / np.sqrt(2)
    assert np.degrees(chord) < (1e-6 if dtype == torch.float64 else 0.02)


def test_encoded_keypoints_are_the_projected_joints(decoder, random_persons):
    decoder = decoder.double()
    persons = random_persons(32)
    with torch.no_grad():
        estimate, _, joints, _ = encoded(decoder, persons, torch.float64)
        decoded = decoder(estimate, persons[3])
    expected = pixels(joints.numpy(), persons[3].numpy())
    np.testing.assert_allclose(estimate.keypoints * 256, expected, atol=1e-6)  # px
    np.testing.assert_allclose(pixels(decoded.joints.numpy(), persons[3].numpy()), expected, atol=1e-3)  # px
    assert np.abs(expected[:, 0]).max() < 256 * 0.21  # root joints lie in the crop, as was asked for


def test_vertices_are_shifted_by_the_translation_alone(decoder, random_persons):
    """As SMPL has it: vertices are those of the pose, plus ``translation``."""
    persons = random_persons(8)
    _, betas, _, cameras = (value.float() for value in persons)
    with torch.no_grad():
        estimate, *_ = encoded(decoder, persons, torch.float32)
        decoded = decoder(estimate, cameras)
        posed = decoder.body.pose(decoded.rotations, estimate.betas)
    assert torch.equal(estimate.betas, betas)
    torch.testing.assert_close(decoded.vertices, posed.vertices + decoded.translation[:, None], atol=0.02 * MM, rtol=0)
    torch.testing.assert_close(decoded.joints, posed.joints + decoded.translation[:, None], atol=0.02 * MM, rtol=0)


def test_twice_the_focal_length_is_twice_as_far_with_the_same_keypoints(decoder, random_persons):
    decoder = decoder.double()
    persons = random_persons(32)
    cameras = persons[3]
    doubled = cameras * torch.tensor([2.0, 2.0, 1.0, 1.0])
    with torch.no_grad():
        estimate, *_ = encoded(decoder, persons, torch.float64)
        near, far = decoder(estimate, cameras), decoder(estimate, doubled)
    torch.testing.assert_close(far.joints[:, 0, 2], 2 * near.joints[:, 0, 2])
    torch.testing.assert_close(far.joints[:, 0, :2], near.joints[:, 0, :2])  # a metre spans as much: no further sideways
    for cams in (cameras, doubled):
        lifted = lift(estimate, cams, 2.2).numpy()
        np.testing.assert_allclose(pixels(lifted, cams.numpy()), estimate.keypoints * 256, atol=1e-6)  # px


def test_graphs_keypoints_do_not_depend_on_the_camera(recovery, random_crops):
    cameras = default_cameras(3)
    with torch.no_grad():
        near = recovery(random_crops(3), cameras)
        far = recovery(random_crops(3), cameras * torch.tensor([2.0, 2.0, 1.0, 1.0]))
    assert torch.equal(near.keypoints_2d, far.keypoints_2d)
    assert (far.joints[:, 0, 2] > 1.5 * near.joints[:, 0, 2]).all()


def test_scale_is_what_a_metre_spans_at_the_root(rng):
    cameras = torch.tensor([[4.0, 4.0, 0.0, 0.0]]).double()
    rod = torch.tensor([[[0.0, 0.0, 8.0], [1.0, 0.0, 8.0], [0.0, 0.0, 10.2]]]).double()  # 1 m across, 2.2 m behind
    estimate = estimate_from_joints(rod, torch.zeros(1, 0), torch.zeros(1, 10), cameras, depth_range=2.2)
    assert estimate.scale.item() == pytest.approx(0.5)
    np.testing.assert_allclose(estimate.keypoints[0], [[0, 0], [0.5, 0], [0, 0]])
    np.testing.assert_allclose(estimate.depths[0], [0, 0, 1])


@pytest.mark.parametrize("scale", [0.0, -0.7, -1e6, 1e-12, 1e6])
@pytest.mark.parametrize("depth", [0.0, -50.0])
def test_senseless_scales_and_depths_give_finite_bodies_in_front_of_the_camera(decoder, random_persons, scale, depth):
    persons = random_persons(8)
    with torch.no_grad():
        estimate, *_ = encoded(decoder, persons, torch.float32)
        estimate = estimate._replace(scale=torch.full_like(estimate.scale, scale), depths=estimate.depths + depth)
        decoded = decoder(estimate, persons[3].float())
    for value in decoded:
        assert value.isfinite().all()
    assert (decoded.joints[:, 0, 2] > 0).all()
    distance = persons[3][:, :2].mean(1) / 0.05
    assert (decoded.joints[:, 0, 2] <= distance + 1e-3).all() or depth  # at most where a crop shows 20 m


def test_gradients_reach_every_part_of_the_estimate(decoder, random_persons):
    persons = random_persons(4)
    estimate, *_ = encoded(decoder, persons, torch.float32)
    estimate = Estimate(*(value.detach().requires_grad_() for value in estimate))
    decoder(estimate, persons[3].float()).vertices.square().sum().backward()
    for name, value in estimate._asdict().items():
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0, name


def test_keypoints_beyond_the_skeleton_do_not_change_the_body(decoder, random_persons):
    persons = random_persons(4)
    with torch.no_grad():
        estimate, *_ = encoded(decoder, persons, torch.float32)
        more = estimate._replace(
            keypoints=torch.cat([estimate.keypoints, torch.rand(4, 5, 2)], dim=1),
            depths=torch.cat([estimate.depths, torch.rand(4, 5)], dim=1),
        )
        for ours, theirs in zip(decoder(estimate, persons[3].float()), decoder(more, persons[3].float()), strict=True):
            assert torch.equal(ours, theirs)


# The beginning


@pytest.mark.parametrize("keypoints", [29, 34])
def test_standing_estimate_is_an_upright_body_that_faces_the_camera(decoder, keypoints):
    estimate = standing_estimate(decoder, keypoints)
    assert estimate.keypoints.shape == (1, keypoints, 2)
    assert estimate.depths.shape == (1, keypoints)
    assert not estimate.keypoints[:, SKELETON_JOINTS:].any()
    with torch.no_grad():
        decoded = decoder(estimate, default_cameras(1))
    vertices, joints = decoded.vertices[0], decoded.joints[0]
    x, y, z = joints.unbind(1)
    assert y[JOINT["head_top"]] + 1.4 < y[JOINT["left_big_toe"]]  # metres; y runs down
    for side in ("left", "right"):
        assert z[JOINT[f"{side}_big_toe"]] < z[JOINT[f"{side}_ankle"]] - 0.1  # toes towards the camera
    assert x[JOINT["left_middle_finger"]] > 0.5  # the person's left hand on the image's right
    assert x[JOINT["right_middle_finger"]] < -0.5
    lowest = vertices[vertices[:, 1] > vertices[:, 1].max() - 0.05]  # soles
    left = lowest[lowest[:, 0] > 0]
    heel, toes = left[left[:, 2].argmax()], left[left[:, 2].argmin()]
    assert toes[2] < heel[2] - 0.15
    # In the middle of the crop, as tall as a box that fills 1 / 1.25 of it, give or take scalp and soles (px).
    image = pixels(joints[None].double().numpy(), default_cameras(1).double().numpy())[0]
    assert np.ptp(image[:, 1]) == pytest.approx(256 / 1.25, rel=0.02)
    assert image[:, 1].max() + image[:, 1].min() == pytest.approx(0, abs=5)
    assert np.abs(image).max() < 128


def test_recovery_is_network_then_decoder(recovery, random_crops):
    assert isinstance(recovery, GLNetRecovery)
    cameras = default_cameras(2) + torch.tensor([[0.0, 0.0, 0.5, -0.25], [1.0, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        estimate = recovery.network.layout.split(recovery.network.select(random_crops(2)).estimate)
        decoded, result = recovery.decoder(estimate, cameras), recovery(random_crops(2), cameras)
    for name in ("vertices", "joints", "rotations", "translation"):
        torch.testing.assert_close(getattr(result, name), getattr(decoded, name), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.betas, estimate.betas, atol=1e-6, rtol=0)
