"""Why the graph takes the crop's camera: what happens to a person near the image's edge without it."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from glnet.config import PRESETS
from glnet.estimate import default_cameras
from glnet.recovery import Decoder
from glnet.rotations import rotation_angle
from glnet_infer.camera import Intrinsics
from glnet_infer.crops import CropSquares
from glnet_infer.manifest import CropSpec

PERSONS = 200


def _scene(body):
    """Persons all over a 1080p image seen with a focal length of its diagonal, and what a perfect network says."""
    generator = np.random.default_rng(0)
    rotations = Rotation.from_rotvec(generator.normal(0, 0.3, (PERSONS * 24, 3))).as_matrix().reshape(PERSONS, 24, 3, 3)
    upright = Rotation.from_euler("x", np.pi) * Rotation.from_euler("y", generator.uniform(-np.pi, np.pi, (PERSONS, 1)))
    rotations[:, 0] = upright.as_matrix()
    rotations = torch.tensor(rotations, dtype=torch.float32)
    betas = torch.tensor(generator.normal(0, 1, (PERSONS, 10)), dtype=torch.float32)
    intrinsics = Intrinsics.guess(1920, 1080)
    # Boxes 250 to 700 px high, about as high as a person of 1.7 m at that distance.
    height = generator.uniform(250, 700, PERSONS)
    centers = np.stack([generator.uniform(100, 1820, PERSONS), np.full(PERSONS, 540.0)], axis=1)
    boxes = np.concatenate([centers - height[:, None] / 2, centers + height[:, None] / 2], axis=1)
    squares = CropSquares.around(boxes, CropSpec())
    cameras = torch.from_numpy(squares.cameras(intrinsics))
    z = intrinsics.fx * 1.7 / height
    place = np.column_stack([(centers - (intrinsics.cx, intrinsics.cy)) / intrinsics.fx * z[:, None], z])
    decoder = Decoder(PRESETS["w32"], body)
    estimate = decoder.encode(rotations, betas, torch.tensor(place, dtype=torch.float32), cameras)
    return decoder, estimate, cameras, rotations, centers


def test_the_crop_alone_turns_persons_near_the_edge_and_the_camera_does_not(demo_body):
    decoder, estimate, cameras, rotations, centers = _scene(demo_body)
    at_edge = torch.from_numpy(np.abs(centers[:, 0] - 960) > 700)
    with_camera = rotation_angle(decoder(estimate, cameras).rotations[:, 0], rotations[:, 0])
    without = rotation_angle(decoder(estimate, default_cameras(PERSONS)).rotations[:, 0], rotations[:, 0])
    print(
        f"root orientation error at the edge, degrees: median {without[at_edge].median():.1f}, "
        f"largest {without[at_edge].max():.1f} without the camera; largest {with_camera.max():.3f} with it"
    )
    # A ray through the edge of a picture with this focal length is some 20 degrees off the axis; a float32 round trip
    # through the kinematics is exact to some hundredths of a degree.
    assert without[at_edge].median() > 5
    assert with_camera.max() < 0.1
