"""Motions in memory: selected, derived, smoothed, filled, built frame by frame."""

import dataclasses
import errno

import numpy as np
import pytest

from glnet_infer import InputError, Meshes, OutputError
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_builder import MotionBuilder
from glnet_infer.results.motion_data import COLUMNS, DOUBTED, MISSING, OBSERVED, RAW
from glnet_infer.results.skin import Skin
from glnet_infer.rotations import exponential, logarithm

# float32 of metres near 5, over a chain of ten joints: 10 x 2.4e-7 each side.
SAME = 5e-6


def test_vertices_are_those_of_the_network_s_body(motion, skin, truth):
    assert np.abs(motion.vertices(skin) - truth).max() < SAME
    few = motion.at(7)
    assert np.abs(few.vertices(skin) - truth[motion.frame == 7]).max() < SAME
    assert motion.select(np.zeros(len(motion), bool)).vertices(skin).shape == (0, *truth.shape[1:])


def test_pose_blend_shapes_count(skin, demo_body):
    """The demo body has none, so it is given some; the torch body is the oracle."""
    import torch

    from glnet.body import Body
    from glnet_export.skin import skin_of

    random = np.random.default_rng(0)
    data = dataclasses.replace(demo_body.data, posedirs=random.normal(0, 1e-3, (len(skin.template), 3, 207)))
    rotations = exponential(random.normal(0, 0.5, (3, 24, 3))).astype(np.float32)
    betas, translation = random.normal(0, 1, (3, 10)).astype(np.float32), np.zeros((3, 3))
    with torch.no_grad():
        expected = Body(data).pose(torch.from_numpy(rotations), torch.from_numpy(betas))
    vertices, joints = skin_of(data).pose(rotations, betas, translation)
    assert np.abs(vertices - expected.vertices.numpy()).max() < SAME
    assert np.abs(joints - expected.joints.numpy()).max() < SAME
    assert np.abs(skin.pose(rotations, betas, translation)[0] - vertices).max() > 1e-3


def test_rest_joints_follow_without_a_body(motion, skin):
    assert np.abs(motion.rest_joints() - skin.rest_joints(motion.betas)).max() < SAME


def test_parts_of_a_motion(motion):
    assert motion.tracks == [1, 3] and len(motion) == 69
    assert repr(motion) == "Motion(2 tracks, 40 frames, 69 rows, 25 frames/s)"
    assert motion.at(7).track.tolist() == [1, 3] and motion.at(22).track.tolist() == [1] and not len(motion.at(99))
    assert isinstance(motion.at(7), Motion) and motion.of(3).frame[0] == 5 and not len(motion.of(2))
    assert (motion.bridged == (motion.confidence < 0.4)).all() and (motion.observed != motion.bridged).all()


def test_the_rate_is_the_recording_s_or_what_times_say(motion):
    assert motion.frame_rate == 25
    assert dataclasses.replace(motion, rate=0.0).frame_rate == pytest.approx(25)
    assert repr(dataclasses.replace(motion, rate=30000 / 1001)).endswith("29.97 frames/s)")


def test_another_body_s_skin_is_refused(motion, skin):
    larger = dataclasses.replace(skin, body="giant", joint_template=skin.joint_template * np.float32(1.3))
    with pytest.raises(InputError, match="another body: 'giant'"):
        motion.vertices(larger)


WRONG = {
    "rows": {"frame": lambda v: v[:-1]},
    "type": {"betas": lambda v: v.astype(np.float64)},
    "nan": {"joints": lambda v: np.where(v > 0, np.float32(np.nan), v)},
    "order": {"track": lambda v: v[::-1].copy()},
    "twice": {"track": lambda v: np.ones_like(v)},
    "rotation": {"rotations": lambda v: v * np.float32(1.1)},
    "status": {"status": lambda v: v + np.uint8(3)},
    "time": {"time": lambda v: v + 0.1},
    "frames": {"frame_numbers": lambda v: v[::-1].copy()},
    "gone frame": {"frame_numbers": lambda v: v[:-1], "frame_times": lambda v: v[:-1]},
    "raw": {"raw_betas": lambda _: np.zeros((69, 10), np.float32)},
    "size": {"image_size": lambda _: (0, 480)},
    "rate": {"rate": lambda _: np.nan},
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused(motion, case):
    with pytest.raises(InputError, match="not a motion"):
        dataclasses.replace(motion, **{name: change(getattr(motion, name)) for name, change in WRONG[case].items()})


@pytest.mark.parametrize("with_skin", [True, False])
def test_smoothed_poses_bring_their_joints_and_keep_what_was_recovered(motion, skin, with_skin):
    noise = exponential(np.random.default_rng(0).normal(0, 0.05, (len(motion), 24, 3)))
    new = {"rotations": motion.rotations @ noise, "betas": motion.betas, "translation": motion.translation + 0.1}
    smoothed = motion.smoothed("a test's way", **new, skin=skin if with_skin else None)
    expected = skin.pose(new["rotations"], new["betas"], new["translation"])[1]
    assert np.abs(smoothed.joints - expected).max() < SAME
    assert smoothed.smoothing == "a test's way" and np.array_equal(smoothed.raw_joints, motion.joints)
    again = smoothed.smoothed("twice", **new)
    assert np.array_equal(again.raw_rotations, motion.rotations)


def test_absences_are_filled_and_marked(motion, skin):
    filled = motion.filled(longest=0.5)
    assert len(filled) == 75 and filled.of(3).frame.tolist() == list(range(5, 40))
    new = filled.of(3).status == MISSING
    assert filled.of(3).frame[new].tolist() == list(range(20, 26)) and not filled.of(3).confidence[new].any()
    middle = filled.at(22).of(3)
    ends = motion.of(3).select(np.isin(motion.of(3).frame, (19, 26)))
    way = logarithm(np.swapaxes(ends.rotations[0].astype(float), -1, -2) @ ends.rotations[1])
    assert np.abs(middle.rotations[0] - ends.rotations[0] @ exponential(way * 3 / 7)).max() < 1e-6
    assert np.abs(middle.joints - skin.pose(middle.rotations, middle.betas, middle.translation)[1]).max() < SAME
    assert middle.translation[0] == pytest.approx(ends.translation[0] + (ends.translation[1] - ends.translation[0]) * 3 / 7)
    assert len(motion.filled(longest=0.2)) == len(motion)  # 7 frames are 0.28 s
    assert (filled.of(1).status == motion.of(1).status).all()


# Frame by frame


def meshes_of(part: Motion, faces) -> Meshes:
    count = len(part)
    return Meshes(
        vertices=np.zeros((count, 4, 3), np.float32),
        joints=part.joints,
        keypoints_2d=part.keypoints_2d,
        rotations=part.rotations,
        betas=part.betas,
        translation=part.translation,
        confidence=part.confidence,
        reference_points=np.zeros((count, 2), np.float32),
        boxes=part.box,
        intrinsics=part.intrinsics,
        image_size=part.image_size,
        faces=faces,
        backend="none",
    )


def build(builder, motion, *, raw=False):
    for frame, time in zip(motion.frame_numbers.tolist(), motion.frame_times.tolist(), strict=True):
        part = motion.at(frame)
        meshes = meshes_of(part, np.zeros((1, 3), np.int32))
        builder.add(frame, time, meshes, part.track, part.score, raw=meshes if raw else None)


@pytest.mark.parametrize("raw", [False, True])
def test_a_motion_is_built_frame_by_frame(motion, raw):
    smoothing = "live" if raw else ""
    with MotionBuilder(rate=25.0, threshold=0.4, body="demo", bundle="by-hand", smoothing=smoothing) as builder:
        build(builder, motion, raw=raw)
        assert len(builder) == len(motion)
        built = builder.motion()
    for name in COLUMNS:
        assert np.array_equal(getattr(built, name), getattr(motion, name)), name
    for name in RAW:
        assert (getattr(built, name) is None) != raw
    for name in ("intrinsics", "image_size", "rate", "body", "bundle", "backend", "threshold"):
        assert getattr(built, name) == getattr(motion, name)


def test_who_has_no_track_is_left_out_and_order_is_the_tracks(motion):
    meshes = meshes_of(motion.at(7), np.zeros((1, 3), np.int32))
    with MotionBuilder(threshold=0.99) as builder:
        builder.add(0, 0.0)
        builder.add(4, 0.5, meshes, [5, -1])
        builder.add(6, 0.75, meshes, [5, 2])
        built = builder.motion()
        builder.add(7, 1.0, meshes, [9, -1])  # it goes on
        assert builder.motion().tracks == [2, 5, 9]
    assert built.frame.tolist() == [4, 6, 6] and built.track.tolist() == [5, 2, 5]
    assert np.array_equal(built.rotations[1], meshes.rotations[1]) and built.score.tolist() == [1, 1, 1]
    assert built.frame_numbers.tolist() == [0, 4, 6]
    assert built.status.tolist() == np.where(built.confidence < 0.99, DOUBTED, OBSERVED).tolist()


def test_nobody_is_a_motion_too(motion):
    with MotionBuilder(intrinsics=motion.intrinsics, image_size=motion.image_size) as builder:
        builder.add(0, 0.0)
        assert not len(builder.motion()) and builder.motion().frame_numbers.tolist() == [0]
    with MotionBuilder() as builder, pytest.raises(InputError, match="There is no motion"):
        builder.motion()


def test_frames_that_do_not_fit_are_refused(motion):
    meshes = meshes_of(motion.at(7), np.zeros((1, 3), np.int32))
    with MotionBuilder() as builder:
        builder.add(3, 1.0, meshes, [1, 2])
        for frame, time in ((3, 2.0), (4, 1.0), (4, np.nan), (4, np.inf)):
            with pytest.raises(InputError, match="cannot be added"):
                builder.add(frame, time)
        for wrong in (
            {"tracks": [1]},
            {"tracks": [1, 1]},
            {"tracks": [1, 2], "scores": [1.0]},
            {"tracks": [1, 2], "raw": meshes},
            {"tracks": [1, 2], "meshes": dataclasses.replace(meshes, image_size=(10, 10))},
            {"tracks": [1, 2], "meshes": dataclasses.replace(meshes, keypoints_2d=meshes.keypoints_2d[:, :3])},
        ):
            with pytest.raises(InputError, match="cannot be added"):
                builder.add(4, 2.0, **{"meshes": meshes, **wrong})
        builder.add(4, 2.0, meshes, [1, 2])
        assert len(builder.motion()) == 4


def test_memory_stays_flat(motion):
    """Rows go to the disk; a frame number and a time of each frame stay."""
    import tracemalloc

    meshes = meshes_of(motion.at(7), np.zeros((1, 3), np.int32))
    with MotionBuilder() as builder:
        held = []
        tracemalloc.start()
        for frame in range(3000):
            builder.add(frame, frame / 25, meshes, [1, 2])
            if frame in (999, 2999):
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert held[1] - held[0] < 1 << 20  # 4,000 rows of 2 kB would be 8 MB
        assert len(builder.motion()) == 6000


def test_a_full_disk_is_said(motion, monkeypatch):
    meshes = meshes_of(motion.at(7), np.zeros((1, 3), np.int32))

    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    with MotionBuilder() as builder:
        monkeypatch.setattr(builder, "_file", Full())
        with pytest.raises(OutputError, match="No space left"):
            for frame in range(300):
                builder.add(frame, float(frame), meshes, [1, 2])


def test_a_skin_is_described(skin):
    assert repr(skin) == "Skin('demo', 12408 vertices, license='CC0 1.0')"
    with pytest.raises(InputError, match="not the skin"):
        dataclasses.replace(skin, faces=skin.faces + 1)
    assert isinstance(skin, Skin)


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("weights", 0.5, "do not sum to 1"),
        ("weights", 3e38, "do not sum to 1"),  # their sum leaves float32, without a warning of NumPy's
        ("template", 2e3, "larger than 1 km"),
    ],
)
def test_what_is_no_skin_is_refused(skin, name, value, why):
    with pytest.raises(InputError, match="not the skin") as error:
        dataclasses.replace(skin, **{name: np.full_like(getattr(skin, name), value)})
    assert why in error.value.why
