"""Why the graph takes the crop's camera: what a network that sees the crop alone can say, and what becomes of it.

A picture taken at an angle to the optical axis is, near the crop, the picture that a camera turned towards the crop would
take: so the crop shows keypoints, and depths along the ray through its centre, but not where in the image it lies.
"""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.config import PRESETS
from glnet.decoding import Decoder
from glnet.estimate import default_cameras, viewing_axes, viewing_rotations
from glnet.rotations import rotation_angle, rotation_to_6d
from glnet_infer.camera import Intrinsics
from glnet_infer.contract import CropSpec
from glnet_infer.crops import CropSquares

PERSONS = 400


@dataclasses.dataclass
class Scene:
    """Persons all over a 1080p image, seen with a focal length of its diagonal."""

    rotations: torch.Tensor
    betas: torch.Tensor
    translation: torch.Tensor
    cameras: torch.Tensor
    at_edge: torch.Tensor


@pytest.fixture(scope="module")
def scene():
    generator = np.random.default_rng(0)
    rotations = Rotation.from_rotvec(generator.normal(0, 0.3, (PERSONS * 24, 3))).as_matrix().reshape(PERSONS, 24, 3, 3)
    yaw = Rotation.from_euler("y", generator.uniform(-np.pi, np.pi, (PERSONS, 1)))
    rotations[:, 0] = (Rotation.from_euler("x", np.pi) * yaw).as_matrix()
    intrinsics = Intrinsics.guess(1920, 1080)
    # Boxes 250 to 700 px high, about as high as a person of 1.7 m at that distance.
    height = generator.uniform(250, 700, PERSONS)
    centers = np.stack([generator.uniform(100, 1820, PERSONS), np.full(PERSONS, 540.0)], axis=1)
    boxes = np.concatenate([centers - height[:, None] / 2, centers + height[:, None] / 2], axis=1)
    z = intrinsics.fx * 1.7 / height
    place = np.column_stack([(centers - (intrinsics.cx, intrinsics.cy)) / intrinsics.fx * z[:, None], z])
    return Scene(
        rotations=torch.tensor(rotations, dtype=torch.float32),
        betas=torch.tensor(generator.normal(0, 1, (PERSONS, 10)), dtype=torch.float32),
        translation=torch.tensor(place, dtype=torch.float32),
        cameras=torch.from_numpy(CropSquares.around(boxes, CropSpec()).cameras(intrinsics)),
        at_edge=torch.from_numpy(np.abs(centers[:, 0] - 960) > 700),
    )


def _what_the_crop_shows(decoder, scene):
    """Labels made by hand: nothing in them depends on where in the image the crop lies."""
    kinematics = decoder.body.kinematics
    rest = decoder.body.rest_joints(scene.betas)
    joints = kinematics(kinematics.chain(scene.rotations), rest) + scene.translation.unsqueeze(1)
    # Turn the camera so that it looks through the crop's centre.
    ray = np.concatenate([-scene.cameras[:, 2:] / scene.cameras[:, :2], np.ones((PERSONS, 1))], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    axis = np.cross([0.0, 0.0, 1.0], ray)
    angle = np.arccos(ray[:, 2])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle[:, None]).as_matrix()
    turned = np.einsum("nij,nkj->nki", turn.transpose(0, 2, 1), joints.double().numpy())
    depths = torch.tensor((turned[..., 2] - turned[:, :1, 2]) / decoder.depth_range, dtype=torch.float32)
    estimate = decoder.encode(scene.rotations, scene.betas, scene.translation, scene.cameras)
    if decoder.swing_twist:
        return estimate._replace(depths=depths)
    local = scene.rotations.clone()
    local[:, 0] = torch.tensor(turn.transpose(0, 2, 1), dtype=torch.float32) @ local[:, 0]
    return estimate._replace(depths=depths, rotation=rotation_to_6d(local))


@pytest.mark.parametrize("swing_twist", [True, False])
def test_what_the_crop_shows_is_turned_right_by_the_camera(demo_body, scene, swing_twist):
    decoder = Decoder(dataclasses.replace(PRESETS["w32"], swing_twist=swing_twist), demo_body)
    seen = _what_the_crop_shows(decoder, scene)
    root = scene.rotations[:, 0]
    with_camera = rotation_angle(decoder(seen, scene.cameras).rotations[:, 0], root)
    without = rotation_angle(decoder(seen, default_cameras(PERSONS)).rotations[:, 0], root)[scene.at_edge]
    print(
        f"root orientation error, degrees: at the edge without the camera median {without.median():.1f}, "
        f"largest {without.max():.1f}; anywhere with the camera largest {with_camera.max():.3f}"
    )
    # A ray through the edge of a picture with this focal length is some 20 degrees off the axis; with the camera, what is
    # left is float32 rounding.
    assert without.median() > 15
    assert with_camera.max() < 0.05


def test_a_crop_in_the_middle_is_hybriks(demo_body, scene):
    centered = default_cameras(PERSONS)
    assert torch.equal(viewing_axes(centered), torch.tensor([0.0, 0.0, 1.0]).expand(PERSONS, 3))
    assert torch.equal(viewing_rotations(centered), torch.eye(3).expand(PERSONS, 3, 3))
