"""Persons followed through the rendered film: by the demo network, and by one that knows the film's exact truth."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from glnet_infer import InputError, Intrinsics, Meshes, MeshRecoverer
from glnet_infer.detection import Detections
from glnet_infer.images import check_boxes
from glnet_infer.results.motion_data import DOUBTED, MISSING
from glnet_infer.rotations import exponential, logarithm
from glnet_infer.video.following import Follower, FollowOptions
from glnet_infer.video.session import Following
from glnet_infer.video.sources import SourceFacts, VideoFrame
from glnet_infer.video.steadying import smooth_motion
from glnet_infer.video.tracks import intersection_over_union

RATE = 30.0
SIZE = (640, 360)


@pytest.fixture(scope="module")
def truth(rendered_clip):
    return dict(np.load(rendered_clip / "truth.npz"))


@pytest.fixture(scope="module")
def skin(demo_body):
    from glnet_export.skin import skin_of

    return skin_of(demo_body.data)


# A detector and a network that know the truth, and say of it what a test wants


def frames_of(truth, *, every=1):
    """Frames that carry their number in their first pixel."""
    for index in range(0, len(truth["time"]), every):
        image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        image[0, 0, 0] = index
        yield VideoFrame(index, float(truth["time"][index]), image)


@dataclass
class Film:
    """A source of such frames."""

    truth: dict
    live: bool = False
    start, end, rate, expected, skipped, ended_early, notes = 0.0, None, RATE, None, 0, "", ()

    @property
    def facts(self):
        return SourceFacts("film", *SIZE, RATE, Fraction(1, 30), live=self.live)

    def __iter__(self):
        return frames_of(self.truth)

    def close(self):
        pass


class TrueDetector:
    """Finds everybody, but for those whom ``misses(frame, person)`` names."""

    def __init__(self, truth, misses=lambda frame, person: False):
        self.truth, self.misses, self.calls = truth, misses, []

    def __call__(self, image):
        index = int(image[0, 0, 0])
        self.calls.append(index)
        boxes = self.truth["boxes"][index]
        seen = [person for person in range(len(boxes)) if not self.misses(index, person)]
        return Detections(boxes[seen], np.linspace(0.9, 0.7, len(seen), dtype=np.float32))


class TrueNetwork:
    """Recovers whom a box shows best, with noise of some degrees; ``unsure(frame, person)`` has a low confidence."""

    def __init__(self, truth, degrees=0.0, unsure=lambda frame, person: False):
        self.truth, self.unsure, self.groups = truth, unsure, []
        noise = np.random.default_rng(3).normal(0, np.radians(degrees), truth["rotations"].shape[:-1])
        self.rotations = truth["rotations"] @ exponential(noise)

    def prepare(self, image, boxes, intrinsics):
        return int(image[0, 0, 0]), np.asarray(boxes)

    def recover(self, images):
        self.groups.append(len(images))
        return [self._meshes(index, boxes) for index, boxes in images]

    def _meshes(self, index, boxes):
        truth = self.truth
        persons = intersection_over_union(boxes, truth["boxes"][index]).argmax(axis=1)
        low = np.array([self.unsure(index, person) for person in persons], bool)
        joints = truth["joints"][index, persons].astype(np.float32)
        return Meshes(
            vertices=joints,
            joints=joints,
            keypoints_2d=truth["keypoints"][index, persons].astype(np.float32),
            rotations=self.rotations[index, persons].astype(np.float32),
            betas=truth["betas"][persons].astype(np.float32),
            translation=truth["translation"][index, persons].astype(np.float32),
            confidence=np.where(low, 0.1, 0.8).astype(np.float32),
            reference_points=np.zeros((len(persons), 2), np.float32),
            boxes=boxes,
            intrinsics=Intrinsics.from_matrix(truth["intrinsics"]),
            image_size=SIZE,
            faces=np.zeros((1, 3), np.int32),
            backend="truth",
        )


def who(truth, index, boxes):
    """The persons whom boxes show."""
    return intersection_over_union(np.asarray(boxes), truth["boxes"][index]).argmax(axis=1).tolist()


def identities(truth, frames):
    """By person, the tracks they had; frames in which persons are one before the other are left out."""
    tracks = {}
    for frame in frames:
        boxes = truth["boxes"][frame.index]
        alone = (intersection_over_union(boxes, boxes) - np.eye(len(boxes))).max(axis=1) < 0.1
        for track, person in zip(frame.tracks.tolist(), who(truth, frame.index, frame.raw.boxes), strict=True):
            if alone[person]:
                tracks.setdefault(person, set()).add(track)
    return tracks


def follow(truth, *, misses=lambda frame, person: False, live=False, every=1, network=None, **options):
    """The followed frames, the detector and the network."""
    detector, network = TrueDetector(truth, misses), network or TrueNetwork(truth)
    follower = Follower(network, detector, FollowOptions(**options))
    frames = list((follower.live if live else follower.ahead)(frames_of(truth, every=every)))
    return frames, detector, network


# The real thing


def test_the_demo_network_keeps_everybody_apart_and_smoothing_helps(demo_bundle, rendered_clip, truth):
    with MeshRecoverer(demo_bundle, "onnxruntime-cpu") as recoverer:
        with recoverer.follow(rendered_clip / "clip.mp4") as following:
            frames = list(following)
            motion = following.motion()
        live = [frame.meshes for frame in _live_again(recoverer, frames)]
    assert [frame.index for frame in frames] == list(range(len(truth["time"])))
    tracks = identities(truth, frames)
    assert len(tracks) == 3 and all(len(each) == 1 for each in tracks.values()) and following.persons == 3
    assert sum(len(frame.tracks) for frame in frames) > 0.9 * truth["boxes"].shape[0] * 3
    raw, smooth, jitter = [], [], []
    for person, (track,) in tracks.items():
        rows = motion.of(track)
        true_joints = truth["joints"][rows.frame, person]
        true_rotations = truth["rotations"][rows.frame, person]
        for errors, rotations, joints in (
            (raw, rows.raw_rotations, rows.raw_joints),
            (smooth, rows.rotations, rows.joints),
        ):
            apart = np.linalg.norm(logarithm(np.swapaxes(true_rotations, -1, -2) @ rotations), axis=-1).mean()
            errors.append((apart, acceleration(joints - true_joints)))
        at_once = np.stack(
            [m.joints[f.tracks.tolist().index(track)] for f, m in zip(frames, live, strict=True) if track in f.tracks]
        )
        as_recovered = np.stack([f.raw.joints[f.tracks.tolist().index(track)] for f in frames if track in f.tracks])
        jitter.append((acceleration(as_recovered), acceleration(at_once)))
    raw, smooth, jitter = np.mean(raw, axis=0), np.mean(smooth, axis=0), np.mean(jitter, axis=0)
    assert smooth[0] <= raw[0]  # radians
    assert smooth[1] <= 0.5 * raw[1]  # metres per frame squared
    assert jitter[1] <= 0.5 * jitter[0]


def acceleration(joints):
    """Mean second difference, metres per frame squared, of joints relative to the root."""
    relative = joints - joints[:, :1]
    return np.linalg.norm(np.diff(relative, 2, axis=0), axis=-1).mean()


def _live_again(recoverer, frames):
    from glnet_infer.video.steadying import steadied_live

    return steadied_live(frames, recoverer.skin)


# Following


@pytest.mark.parametrize("live", [False, True])
def test_everybody_is_there_in_every_frame(truth, live):
    frames, detector, _ = follow(truth, live=live)
    assert [frame.index for frame in frames] == list(range(len(truth["time"])))
    assert all(len(frame.tracks) == 3 for frame in frames)
    assert all(len(each) == 1 for each in identities(truth, frames).values())
    assert len(detector.calls) < len(frames) / 3  # 0.15 s are 4.5 frames


def test_boxes_between_detections_lie_where_the_persons_are(truth):
    frames, _, _ = follow(truth)
    for frame in frames:
        overlap = intersection_over_union(frame.raw.boxes, truth["boxes"][frame.index]).max(axis=1)
        assert overlap.min() > 0.6  # legs and arms swing within 0.15 s


def test_crops_of_neighbouring_frames_are_run_together(truth):
    _, _, network = follow(truth)
    assert max(network.groups) == 5 and np.mean(network.groups) > 4
    _, _, network = follow(truth, detect_every=10.0)
    assert max(network.groups) == 8  # so many wait at most


def test_every_frame_can_be_looked_at(truth):
    frames, detector, _ = follow(truth, detect_every=0.0)
    assert detector.calls == [frame.index for frame in frames] and min(frame.scores.min() for frame in frames) > 0.6


@pytest.mark.parametrize("live", [False, True])
def test_who_is_missed_for_25_frames_is_followed_by_keypoints(truth, live):
    missed = range(35, 60)  # the walker on the left, whom nobody hides then
    frames, _, _ = follow(truth, live=live, misses=lambda frame, person: person == 1 and frame in missed)
    assert all(len(each) == 1 for each in identities(truth, frames).values())
    assert all(1 in who(truth, frame.index, frame.raw.boxes) for frame in frames[35:])
    assert max(frame.scores.min() for frame in frames[40:]) == 0  # where nobody detected anything, the score says so


def test_who_is_hidden_for_25_frames_keeps_their_number_after(truth):
    """The network is unsure of them too, so nobody is followed; the number is there again when the person is."""
    hidden = range(15, 40)

    def away(frame, person):
        return person == 2 and frame in hidden

    frames, _, _ = follow(truth, misses=away, network=TrueNetwork(truth, unsure=away))
    assert all(len(each) == 1 for each in identities(truth, frames).values())
    assert any(len(frame.tracks) == 2 for frame in frames) and len(frames[-1].tracks) == 3


def test_trust_that_falls_makes_the_detector_look_at_once(truth):
    _, calm, _ = follow(truth, live=True, detect_every=1.0)
    doubts = TrueNetwork(truth, unsure=lambda frame, person: frame == 10)
    _, alert, _ = follow(truth, live=True, detect_every=1.0, network=doubts)
    assert calm.calls == [0, 30] and alert.calls == [0, 11, 41]


def test_recordings_are_looked_at_every_eighth_frame_at_least(truth):
    _, detector, _ = follow(truth, detect_every=10.0)
    assert detector.calls == [0, 8, 16, 24, 32, 40, 48, 56, 59]  # and at the last frame


def test_as_many_as_there_may_be(truth):
    frames, _, _ = follow(truth, most=2)
    assert all(len(frame.tracks) == 2 for frame in frames)
    assert len({tuple(frame.tracks.tolist()) for frame in frames}) == 1  # who is there stays


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("speed", [300.0, 900.0])
def test_who_leaves_the_picture_is_gone(truth, live, speed):
    """The camera turns away, faster than the detector follows: boxes on the way may not leave the image."""
    shift = np.array([speed, 0.0]) * truth["time"][:, None]
    turned = truth | {
        "boxes": truth["boxes"] - np.tile(shift, 2)[:, None],
        "keypoints": truth["keypoints"] - shift[:, None, None],
    }

    def outside(frame, person):
        return turned["boxes"][frame, person, 2] < 20

    class Checking(TrueNetwork):
        def prepare(self, image, boxes, intrinsics):
            check_boxes(boxes, *SIZE)
            return super().prepare(image, boxes, intrinsics)

    frames, _, _ = follow(turned, live=live, misses=outside, network=Checking(turned))
    assert len(frames) == len(truth["time"]) and len(frames[0].tracks) == 3 and not len(frames[-1].tracks)


@pytest.mark.parametrize("rate", [0.5, 3.0])
def test_slow_sources_keep_identities(truth, rate):
    """A time lapse of persons who stand, at a frame in two seconds."""
    still = {name: np.repeat(values[:1], 20, axis=0) if len(values) > 3 else values for name, values in truth.items()}
    frames, _, _ = follow(still | {"time": np.arange(20) / rate}, detect_every=2.0)
    assert {tuple(frame.tracks.tolist()) for frame in frames} == {(1, 2, 3)}


def test_who_is_found_in_the_last_frame_is_there(truth):
    last = len(truth["time"]) - 1
    frames, _, _ = follow(truth, misses=lambda frame, person: person == 1 and frame < last)
    assert len(frames[-1].tracks) == 3 and len(frames[-2].tracks) == 2


def test_nobody_is_no_trouble(truth):
    for live in (False, True):
        frames, _, _ = follow(truth, live=live, misses=lambda frame, person: True)
        assert len(frames) == len(truth["time"]) and not any(len(frame.tracks) for frame in frames)


def test_a_single_frame(truth):
    first = {name: values[:1] if len(values) > 3 else values for name, values in truth.items()}
    frames, _, _ = follow(first)
    assert len(frames) == 1 and len(frames[0].tracks) == 3


@pytest.mark.parametrize(
    "options", [{"detect_every": -1.0}, {"detect_every": float("nan")}, {"score": 2.0}, {"confidence": -0.1}, {"most": 0}]
)
def test_options_that_cannot_be(options):
    with pytest.raises(InputError):
        FollowOptions(**options)


# Smoothing, while frames pass and afterwards


def following(truth, skin, *, live=False, misses=lambda frame, person: False, **options):
    network = TrueNetwork(truth, degrees=4, unsure=options.pop("unsure", lambda frame, person: False))
    source = Film(truth, live)
    return Following(source, network, TrueDetector(truth, misses), FollowOptions(**options), skin=skin, body="demo")


def test_frames_that_pass_show_what_the_motion_holds_afterwards(truth, skin):
    with following(truth, skin, unsure=lambda frame, person: person == 0 and frame in (20, 21)) as followed:
        frames = list(followed)
        motion = followed.motion()
    compared = 0
    for frame in frames:
        now = motion.at(frame.index)
        assert now.track.tolist() == frame.tracks.tolist()
        # Frames 15 and 16 see the doubted ones, and not yet the trusted one after them.
        near = 0.01 if frame.index in (15, 16) else 1e-6  # of a rotation's entries
        np.testing.assert_allclose(frame.meshes.rotations, now.rotations, atol=near)
        np.testing.assert_allclose(frame.meshes.translation, now.translation, atol=near)  # metres
        compared += len(now)
    assert compared == len(motion) and (motion.status == DOUBTED).sum() == 2
    assert not np.allclose(frames[5].meshes.rotations, frames[5].raw.rotations, atol=1e-3)


def test_absences_are_filled_in_for_half_a_second(truth, skin):
    def motion_without(frames):
        with following(truth, skin) as followed:
            list(followed)
            whole = followed._builder.motion()
        return smooth_motion(whole.select(~((whole.track == 1) & np.isin(whole.frame, frames))), skin)

    short, long = motion_without(range(20, 30)), motion_without(range(20, 50))
    assert (short.status == MISSING).sum() == 10 and (long.status == MISSING).sum() == 0
    assert short.of(1).frame.tolist() == list(range(len(truth["time"])))


def test_a_track_has_one_shape(truth, skin):
    with following(truth, skin) as followed:
        list(followed)
        motion = followed.motion()
    for track in motion.tracks:
        assert np.ptp(motion.of(track).betas, axis=0).max() == 0


def test_smoothing_can_be_left_out(truth, skin):
    with Following(Film(truth), TrueNetwork(truth, degrees=4), TrueDetector(truth), smooth=False, skin=skin) as followed:
        frames = list(followed)
        motion = followed.motion()
    assert motion.raw_rotations is None and not motion.smoothing
    assert all(frame.meshes is frame.raw for frame in frames)


def test_stopping_ends_in_good_order(truth, skin):
    with following(truth, skin) as followed:
        for frame in followed:
            if frame.index == 10:
                followed.stop()
        motion = followed.motion()
    assert 10 < followed.frames < len(truth["time"]) and len(motion.frame_numbers) == followed.frames


def test_stopping_before_the_start_takes_no_frame(truth, skin):
    with following(truth, skin) as followed:
        followed.stop()
        assert list(followed) == [] and not len(followed.motion().frame_numbers)


def test_the_motion_may_be_taken_while_frames_pass(truth, skin):
    with following(truth, skin) as followed:
        lengths = [len(followed.motion().frame_numbers) for _ in followed]
    assert lengths == sorted(lengths) and lengths[-1] == len(truth["time"])


def test_persons_are_those_who_were_recovered(truth, skin):
    with following(truth, skin, most=1) as followed:
        list(followed)
        assert followed.persons == 1 and len(followed.motion().tracks) == 1


def test_a_rate_that_varies_is_no_rate(truth, skin):
    varied = truth | {"time": np.cumsum(np.tile([1 / 60, 1 / 10], len(truth["time"]) // 2))}
    with following(varied, skin) as followed:
        list(followed)
        assert followed.motion().rate == 0
    with following(truth, skin) as followed:
        list(followed)
        assert followed.motion().rate == RATE


def test_frames_pass_once(truth, skin):
    with following(truth, skin) as followed:
        list(followed)
        with pytest.raises(InputError, match="followed already"):
            list(followed)


def test_leaving_early_ends_the_threads(truth, skin):
    with following(truth, skin) as followed:
        for _ in followed:
            break
    assert not any(thread.is_alive() for thread in followed._pipeline._threads)
