"""The rendered film: what its pictures show is what its truth says."""

import cv2
import numpy as np
import pytest
import torch

from glnet_infer.video.sources import open_source
from glnet_render.clip import Clip


@pytest.fixture(scope="module")
def clip(demo_body):
    return Clip(demo_body, seconds=2)


@pytest.fixture(scope="module")
def some(clip):
    """Frames of the beginning, of the crossing and of the end."""
    return [clip._frame(time) for time in (0.0, 1.0, 1.9)]


@pytest.fixture(scope="module")
def truth(rendered_clip):
    return dict(np.load(rendered_clip / "truth.npz"))


def test_the_same_seed_gives_the_same_film(clip, some, demo_body):
    again = Clip(demo_body, seconds=5)
    for time, frame in zip((1.9, 0.0), (some[2], some[0]), strict=True):  # in any order, of any length
        for given, repeated in zip(frame, again._frame(time), strict=True):
            assert np.array_equal(given, repeated)
    assert not np.array_equal(some[0].image, Clip(demo_body, seed=8)._frame(0.0).image)


def test_keypoints_are_the_joints_seen_by_the_camera(clip, some):
    for frame in some:
        expected = cv2.projectPoints(frame.joints.reshape(-1, 3), np.zeros(3), np.zeros(3), clip.intrinsics.matrix, None)[0]
        np.testing.assert_allclose(frame.keypoints.reshape(-1, 2), expected[:, 0], atol=1e-6)


def test_the_body_stands_where_the_truth_says(clip, some, demo_body):
    betas = torch.tensor(clip.betas, dtype=torch.float32)
    for frame in some:
        posed = demo_body.pose(torch.tensor(frame.rotations, dtype=torch.float32), betas)
        joints = posed.joints.numpy() + frame.translation[:, None]
        np.testing.assert_allclose(joints, frame.joints, atol=1e-5)  # float32, metres
        # On the ground: the camera is 1.5 m above it and looks 5 degrees down.
        seen = posed.vertices.numpy() + frame.translation[:, None]
        below = seen[..., 1] * np.cos(np.radians(5)) + seen[..., 2] * np.sin(np.radians(5))
        np.testing.assert_allclose(below.max(1), 1.5, atol=1e-4)


def test_pictures_show_the_persons_where_the_boxes_are(clip, some):
    background = (clip._background.numpy()[..., ::-1] * 255).round()
    compared = 0
    for frame in (some[0], some[2]):  # where nobody hides another's edge
        changed = np.abs(frame.image - background).max(-1) > 8
        inside = np.zeros_like(changed)
        for x1, y1, x2, y2 in frame.boxes:
            inside[max(int(y1), 0) : int(np.ceil(y2)), max(int(x1), 0) : int(np.ceil(x2))] = True
        assert not changed[~inside].any()
        for index, (x1, y1, x2, y2) in enumerate(frame.boxes):
            others = np.delete(frame.boxes, index, axis=0)
            if ((others[:, 0] < x2 + 1) & (others[:, 2] > x1 - 1)).any():
                continue  # somebody else is on these columns
            compared += 1
            alone = changed[:, int(x1) : int(np.ceil(x2))]
            rows = np.flatnonzero(alone.any(1))
            columns = np.flatnonzero(alone.any(0)) + int(x1)
            # Dark clothes on a dark ground hide a pixel or two.
            np.testing.assert_allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [x1, y1, x2, y2], atol=3)
    assert compared


def test_walkers_cross_and_hide_each_other(truth):
    first, second = truth["keypoints"][:, 0, 0, 0], truth["keypoints"][:, 1, 0, 0]
    assert first[0] < second[0] - 100 and first[-1] > second[-1] + 100
    assert truth["visible"][:, 0].min() > 0.99  # the nearest
    assert truth["visible"][:, 1].min() < 0.6 and truth["visible"][:, 2].min() < 0.6


def test_motion_is_that_of_persons(truth):
    # A pelvis that walks at 1.25 m/s, and bobs; joints turn at less than two full turns a second.
    assert np.linalg.norm(np.diff(truth["translation"], axis=0), axis=-1).max() < 1.25 / 30 * 1.5
    turns = np.swapaxes(truth["rotations"][:-1], -1, -2) @ truth["rotations"][1:]
    angles = np.arccos(np.clip((np.trace(turns, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    assert np.degrees(angles).max() < 720 / 30
    swing = truth["joints"][:, 0, 7, 2] - truth["joints"][:, 0, 8, 2]
    assert np.ptp(truth["keypoints"][:, 0, 7, 0] - truth["keypoints"][:, 0, 8, 0]) > 80 and np.abs(swing).max() < 0.5
    hand = truth["keypoints"][:, 2, 25]
    assert np.ptp(hand[:, 0]) > 15  # waves
    assert (hand[:, 1] < truth["keypoints"][:, 2, 24, 1] + 10).any()  # at the height of the head


def test_the_film_as_files(rendered_clip, truth):
    with open_source(rendered_clip / "clip.mp4") as source:
        frames = list(source)
        assert (source.facts.width, source.facts.height, source.facts.rate) == (640, 360, 30)
    np.testing.assert_allclose([frame.time for frame in frames], truth["time"], atol=1e-4)
    shapes = {name: array.shape for name, array in truth.items()}
    assert shapes == {
        "time": (60,),
        "boxes": (60, 3, 4),
        "rotations": (60, 3, 24, 3, 3),
        "translation": (60, 3, 3),
        "joints": (60, 3, 29, 3),
        "keypoints": (60, 3, 29, 2),
        "visible": (60, 3),
        "betas": (3, 10),
        "intrinsics": (3, 3),
    }
