"""Videos in chunks, in this process: the same motion as in one go, in whatever order the chunks are seen."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from glnet_infer import InputError, Intrinsics, MeshRecoverer
from glnet_infer.jobs.actor import Worker
from glnet_infer.jobs.chunks import cuts, read_recording, windows
from glnet_infer.jobs.items import Chunk, Join, Orders, Survey
from glnet_infer.jobs.notes import recording_of
from glnet_infer.jobs.videos import see_chunk
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import COLUMNS, RAW
from glnet_infer.video.following import FollowOptions
from glnet_infer.video.sources import Window, moments_of, open_source

# What is compared is recovered twice by one backend with one thread, mostly in the same batches. Where batches differ, so
# do products of floats in their last places: 1e-4 of a metre, of a pixel's hundredth, of a radian is far beyond that.
ALIKE = 1e-4


def in_chunks(orders, clip, numbers=None):
    """What an actor makes of a video; ``numbers(count)`` is the order of the chunks."""
    worker = Worker(orders)
    survey = Survey(str(clip), clip.stem)
    chunks = worker.do(survey).cuts
    for number in numbers(len(chunks)) if numbers else range(len(chunks)):
        outcome = worker.do(Chunk(str(clip), clip.stem, number, windows(chunks, orders.window)[number], None))
        assert not outcome.failures, outcome
    outcome = worker.do(Join(str(clip), clip.stem, len(chunks), None))
    assert not outcome.failures, outcome
    (entry,) = outcome.entries
    return Motion.load(entry["files"][0]), entry


def in_one_go(orders, clip):
    with MeshRecoverer(orders.bundle, orders.backend, threads=1) as recoverer:
        source = open_source(clip, **orders.window._asdict())
        with recoverer.follow(
            source, detector=orders.detector, options=orders.options, smooth=orders.smooth, pose=False
        ) as following:
            frames = list(following)
            return following.motion(), frames, following


def assert_alike(found, expected):
    for name in (*COLUMNS, *RAW):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is not None:
            bound = ALIKE if other.dtype.kind == "f" else 0
            np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=name)
    assert np.array_equal(found.frame_numbers, expected.frame_numbers)
    assert np.array_equal(found.frame_times, expected.frame_times)
    for name in ("rate", "threshold", "smoothing", "body", "bundle", "backend", "intrinsics", "image_size"):
        assert getattr(found, name) == getattr(expected, name), name


@pytest.fixture
def orders(shared_bundle, tmp_path):
    return Orders(
        str(shared_bundle), "", "onnxruntime-cpu", 1, "none", tmp_path / "out", ("npz",), FollowOptions(), chunk_frames=8
    )


@pytest.fixture
def clip(tmp_path, clips):
    """Forty frames of 64 x 48 with a key frame in every twelve."""
    return clips.write(tmp_path / "clip.mp4", [Fraction(i, 25) for i in range(40)])


def test_the_film_in_chunks_is_the_film_in_one_go(orders, demo_bundle, rendered_clip):
    orders = replace(orders, bundle=str(demo_bundle), detector="nanodet", chunk_frames=20)
    found, entry = in_chunks(orders, rendered_clip / "clip.mp4", lambda count: reversed(range(count)))
    expected, frames, _ = in_one_go(orders, rendered_clip / "clip.mp4")
    assert entry["chunks"] == 2 and len(expected.tracks) > 1 and len(frames) == 60
    assert_alike(found, expected)
    assert entry["seen_again"] <= 35  # a second behind the seam, and the next detection: so long keypoints are followed


def test_the_seams_do_not_show_where_persons_are_lost_and_found(orders, demo_bundle, rendered_clip):
    """A detector that is sure of few persons: many are followed over the seams, by their keypoints or unsure boxes."""
    options = FollowOptions(score=0.7, detect_every=0.3, most=2)
    orders = replace(orders, bundle=str(demo_bundle), detector="nanodet", chunk_frames=8, options=options)
    found, entry = in_chunks(orders, rendered_clip / "clip.mp4")
    expected, _, _ = in_one_go(orders, rendered_clip / "clip.mp4")
    assert entry["seen_again"]
    assert_alike(found, expected)


@pytest.mark.parametrize(
    "window",
    [Window(), Window(0.1, 1.3), Window(0.5), Window(every=2), Window(0.2, 1.5, 3)],
    ids=["all", "from a time to another", "from a time", "every second frame", "every third of some"],
)
def test_windows_are_the_same_in_chunks(orders, clip, window):
    orders = replace(orders, window=window, options=FollowOptions(intrinsics=Intrinsics(90, 90, 32, 24)))
    found, entry = in_chunks(orders, clip)
    expected, frames, _ = in_one_go(orders, clip)
    assert_alike(found, expected)
    assert entry["frames"] == len(frames) and entry["chunks"] > 1 and not entry["seen_again"]


def test_without_smoothing_nothing_is_smoothed(orders, clip):
    found, _ = in_chunks(replace(orders, smooth=False), clip)
    assert_alike(found, in_one_go(replace(orders, smooth=False), clip)[0])
    assert not found.smoothing


def test_without_pyav_a_video_is_one_chunk(orders, clip, without_pyav):
    found, entry = in_chunks(orders, clip)
    assert entry["chunks"] == 1 and entry["frames"] == 40
    assert_alike(found, in_one_go(orders, clip)[0])


@pytest.mark.parametrize("hole", [0.5, 0.8])
def test_damaged_frames_are_the_same_in_chunks(orders, clip, hole):
    content = clip.read_bytes()
    start = content.index(b"mdat") + 4
    stop = next((at for at in (content.find(b"moov"),) if at > start), len(content))
    middle = start + int(hole * (stop - start))
    clip.write_bytes(content[:middle] + bytes(150) + content[middle + 150 :])
    found, entry = in_chunks(orders, clip)
    expected, frames, following = in_one_go(orders, clip)
    # Numbers and times, not poses: what FFmpeg's threads paint over a hole differs from one time to the next.
    for name in ("frame_numbers", "frame_times", "frame", "time", "track", "box"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert entry["frames"] == len(frames) and entry["ended_early"] == following.source.ended_early
    assert entry["skipped"] >= following.source.skipped > 0  # one at a seam may be counted by both of its chunks


def test_what_was_seen_and_is_damaged_is_seen_again(orders, clip):
    worker, survey = Worker(orders), Survey(str(clip), "clip")
    chunks = worker.do(survey).cuts
    for number, window in enumerate(windows(chunks, orders.window)):
        worker.do(Chunk(str(clip), "clip", number, window, None))
    recording = recording_of(orders, "clip", 1)
    recording.write_bytes(recording.read_bytes()[:-100])
    outcome = worker.do(Join(str(clip), "clip", len(chunks), None))
    assert outcome.entries[0]["seen_again"] == 40 and not outcome.failures
    assert_alike(Motion.load(outcome.entries[0]["files"][0]), in_one_go(orders, clip)[0])


def test_a_recording_is_checked(orders, clip):
    worker = Worker(orders)
    worker.do(Survey(str(clip), "clip"))
    worker.do(Chunk(str(clip), "clip", 0, Window(), None))
    path = recording_of(orders, "clip", 0)
    arrays = dict(np.load(path))
    assert len(read_recording(path)["frame_numbers"]) == 40
    for name, change in (
        ("version", np.asarray(9)),
        ("found_counts", arrays["found_counts"] + 1),
        ("frame_times", arrays["frame_times"][::-1].copy()),
        ("frame_numbers", arrays["frame_numbers"] * 0),
    ):
        np.savez(path, **{**arrays, name: change})
        with pytest.raises(InputError, match="what was seen"):
            read_recording(path)


def test_a_video_that_is_none_fails_when_it_is_surveyed(orders, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    outcome = Worker(orders).do(Survey(str(tmp_path / "clip.mp4"), "clip"))
    assert isinstance(outcome.failures[str(tmp_path / "clip.mp4")], InputError)


# Where chunks begin


def test_a_chunk_of_a_video_that_cannot_be_read_here_is_no_empty_one(tmp_path):
    """Where a machine lacks the archive, or lost it meanwhile."""
    with pytest.raises(InputError, match="gone"):
        see_chunk(tmp_path / "gone.mp4", Window(start=1.0), None, FollowOptions(), tmp_path / "chunk.npz")
    assert not (tmp_path / "chunk.npz").exists()


def test_chunks_begin_where_persons_are_looked_for_behind_a_key_frame():
    moments = [(number / 25, number % 10 == 0) for number in range(100)]
    # Looked for in every fourth frame, so behind the key frames 30, 60 and 90 in the frames 32, 60 and 92.
    assert cuts(moments, Window(), 0.15, 24) == [(0.0, 32), (32 / 25, 28), (60 / 25, 32), (92 / 25, 8)]
    assert cuts(moments, Window(), 0.15, 1000) == [(0.0, 100)]
    assert cuts([(time, False) for time, _ in moments], Window(), 0.15, 1) == [(0.0, 100)]
    assert cuts(moments, Window(1.0, 2.0), 0.15, 8) == [(1.0, 8), (33 / 25, 8), (41 / 25, 9)]
    assert cuts(moments, Window(every=3), 0.15, 1000) == [(0.0, 100)]  # also frames that are left out are decoded
    assert cuts(moments, Window(9.0), 0.15, 8) == [] == cuts([], Window(), 0.15, 8)


def test_moments_are_those_of_the_frames(clips, tmp_path):
    times = [Fraction(i, 1000) for i in (0, 40, 100, 300, 310, 500, 900, 950)]
    clip = clips.write(tmp_path / "clip.mp4", times, options={"g": "3", "bf": "2"})
    with open_source(clip) as source:
        shown = [frame.time for frame in source]
    moments = moments_of(clip)
    assert [time for time, _ in moments] == shown == [float(time) for time in times]
    assert moments[0][1] and 2 <= sum(key for _, key in moments) < len(times)
