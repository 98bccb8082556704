"""Sources of frames. Frames carry their numbers, so that what comes out is compared with what went in."""

import os
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from glnet_infer import InputError
from glnet_infer.video.sources import is_live, open_source
from glnet_infer.video.writers import VideoWriter

STEADY = [Fraction(i, 25) for i in range(60)]
IRREGULAR = [Fraction(i, 1000) for i in (0, 40, 100, 300, 310, 500, 900, 1700, 1710, 1950)]


def taken(spec, clips, **window):
    """Index, time and said number of all frames."""
    with open_source(spec, **window) as source:
        return [(frame.index, frame.time, clips.number(frame.image)) for frame in source]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clips):
    """Clips of several containers, all of 60 frames a 1/25 second, and an irregular one."""
    folder = tmp_path_factory.mktemp("clips")
    clips.write(folder / "steady.mp4", STEADY, sound="aac")
    clips.write(folder / "steady.ts", STEADY, base=Fraction(1, 90000))
    clips.write(folder / "steady.mkv", STEADY, base=Fraction(1, 1000), codec="libx264")
    clips.write(folder / "steady.avi", STEADY, base=Fraction(1, 25), codec="mpeg4")
    clips.write(folder / "steady.webm", STEADY, base=Fraction(1, 1000), codec="libvpx-vp9")
    clips.write(folder / "irregular.mp4", IRREGULAR)
    return folder


@pytest.fixture(params=["pyav", "opencv"])
def either_reader(request, clips):
    """Both ways to read a file."""
    clips.pyav()
    if request.param == "opencv":
        request.getfixturevalue("without_pyav")
    return request.param


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv", "avi", "webm"])
def test_all_frames_come_with_their_numbers_and_times(folder, clips, suffix, either_reader):
    frames = taken(folder / f"steady.{suffix}", clips)
    assert [frame[0] for frame in frames] == [frame[2] for frame in frames] == list(range(60))
    # Containers keep times in ticks of their own: of a millisecond at most.
    assert np.abs(np.array([frame[1] for frame in frames]) - np.array(STEADY, float)).max() <= 0.0005 + 1e-9


def test_irregular_times_are_exact(folder, clips, either_reader):
    # The clip's tick is 1/12800 s; times come back as the number nearest to the tick.
    ticks = [float(Fraction(round(time * 12800), 12800)) for time in IRREGULAR]
    frames = taken(folder / "irregular.mp4", clips)
    assert [frame[2] for frame in frames] == list(range(len(IRREGULAR)))
    if either_reader == "pyav":
        assert [frame[1] for frame in frames] == ticks
    else:  # OpenCV multiplies by 1000 in floating point
        np.testing.assert_allclose([frame[1] for frame in frames], ticks, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv", "avi", "webm"])
def test_a_window_begins_and_ends_exactly(folder, clips, suffix):
    everything = taken(folder / f"steady.{suffix}", clips)
    for first in range(0, 59, 3):
        for last in (first + 1, min(first + 7, 59)):
            start, end = everything[first][1], everything[last][1]
            assert taken(folder / f"steady.{suffix}", clips, start=start, end=end) == everything[first:last]


def test_a_window_of_irregular_frames(folder, clips, either_reader):
    everything = taken(folder / "irregular.mp4", clips)
    for start, end, every in [(0.05, 1.7, 1), (0.3, None, 2), (0.1, 1.0, 3), (None, 0.31, 2), (1.9, None, 1)]:
        window = [frame for frame in everything if (start or 0) <= frame[1] < (end or 9)]
        assert taken(folder / "irregular.mp4", clips, start=start, end=end, every=every) == window[::every]


def test_only_what_is_needed_is_decoded(folder, monkeypatch):
    import glnet_infer.video.sources.pyav as module

    decoded = []
    original = module.PyavReader._decode

    def counted(self, packet):
        for frame in original(self, packet):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(module.PyavReader, "_decode", counted)
    with open_source(folder / "steady.mp4", start=2.0) as source:
        assert [frame.index for frame in source] == list(range(50, 60))
    assert len(decoded) <= 10 + 12  # the window, and what precedes it in its group of twelve pictures


def test_what_is_expected_is_what_comes(folder):
    for window in ({}, {"start": 1.0}, {"end": 1.5}, {"start": 0.4, "end": 2.0, "every": 3}, {"every": 7}, {"start": 2.36}):
        with open_source(folder / "steady.mp4", **window) as source:
            assert source.expected == len(list(source))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_turned_frames_are_upright(tmp_path, clips, rotation, monkeypatch):
    clip = clips.write(tmp_path / "turned.mp4", STEADY[:3], size=(64, 32), rotation=rotation)
    capture = cv2.VideoCapture(str(clip))  # which turns by itself
    expected = capture.read()[1]
    with open_source(clip) as source:
        frame = next(iter(source))
        assert (source.facts.width, source.facts.height) == (expected.shape[1], expected.shape[0])
    assert frame.image.shape == expected.shape
    # Two libraries convert colours in their own arithmetic; a wrong turn is wrong by 200.
    assert np.abs(frame.image.astype(int) - expected).max() <= 8


@pytest.mark.parametrize("size", [(61, 47), (1, 1), (33, 2)])
def test_odd_sizes(tmp_path, clips, size, either_reader):
    clip = clips.write(tmp_path / "odd.mkv", STEADY[:4], size=size, codec="ffv1", pixels="bgr0", base=Fraction(1, 1000))
    with open_source(clip) as source:
        assert [frame.image.shape for frame in source] == [(size[1], size[0], 3)] * 4


def test_one_frame(tmp_path, clips, either_reader):
    clip = clips.write(tmp_path / "one.mp4", STEADY[:1])
    assert [frame[::2] for frame in taken(clip, clips)] == [(0, 0)]


def noisy_clip(path, av, frames=60, **options):
    """A clip with much in it, so that damage hits pictures."""
    generator = np.random.default_rng(0)
    base = cv2.GaussianBlur(generator.integers(0, 255, (120, 160, 3), np.uint8), (5, 5), 0)
    with av.open(str(path), "w", **options) as file:
        stream = file.add_stream("libx264", rate=25, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for shift in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(base, 3 * shift, 1), "bgr24")))
        file.mux(stream.encode(None))
    return path


def test_damaged_frames_are_left_out_and_counted(tmp_path, clips, capfd):
    clip = noisy_clip(tmp_path / "clip.mp4", clips.pyav())
    with open_source(clip) as source:
        good = {frame.index: frame for frame in source}
    data = bytearray(clip.read_bytes())
    generator = np.random.default_rng(1)
    for place in generator.integers(data.find(b"mdat") + 2000, data.find(b"moov") - 10, 30):
        data[place] = generator.integers(256)
    clip.write_bytes(data)
    with open_source(clip) as source:
        frames = list(source)
        assert source.skipped > 0
        assert len(frames) + source.skipped == 60
        assert not source.ended_early
    assert all(frame.time == good[frame.index].time for frame in frames)  # who is left keeps number and time
    assert capfd.readouterr() == ("", "")


def test_a_file_that_breaks_off_is_said_to(tmp_path, clips, capfd):
    clip = noisy_clip(tmp_path / "clip.mp4", clips.pyav(), options={"movflags": "+faststart"})
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 2 // 3])
    with open_source(clip) as source:
        count = len(list(source))
        assert 20 < count < 60
        assert "breaks off" in source.ended_early and "of 60 frames" in source.ended_early
    assert capfd.readouterr() == ("", "")


def refused(spec, what, **window):
    with pytest.raises(InputError, match=what) as caught:
        open_source(spec, **window)
    assert caught.value.what and caught.value.fix
    return caught.value


def test_files_that_are_no_videos(tmp_path, clips, either_reader, capfd):
    whole = noisy_clip(tmp_path / "whole.mp4", clips.pyav())
    contents = {
        "text": b"hello, this is no video" * 100,
        "headless": whole.read_bytes()[:-2000],  # the index is at the end
        "zeros": bytes(10000),
        "noise": np.random.default_rng(0).bytes(10000),
        "short": b"\x00",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        refused(tmp_path / f"{name}.mp4", "is not a video that can be read")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "is empty")
    assert "No such file" in refused(tmp_path / "missing.mp4", "was not read").why
    refused("null\0byte.mp4", "was not read")
    assert capfd.readouterr() == ("", "")


def test_sound_alone_is_no_video(tmp_path, clips, either_reader):
    av = clips.pyav()
    for cover in (False, True):
        path = tmp_path / f"sound-{cover}.mp4"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=48000, layout="mono")
            if cover:
                picture = file.add_stream("mjpeg", rate=1)
                picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
                picture.disposition = av.stream.Disposition.attached_pic.value
                file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "bgr24")))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        if either_reader == "pyav":
            assert "sound only" in refused(path, "has no pictures").why
        elif not cover:  # OpenCV shows the cover
            refused(path, "is not a video that can be read")


def test_no_frames(tmp_path, clips, either_reader):
    av = clips.pyav()
    with av.open(str(tmp_path / "none.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()
    refused(tmp_path / "none.mkv", "has no frame that can be decoded|is not a video that can be read")


def test_huge_pictures_are_refused(tmp_path, clips, either_reader):
    av = clips.pyav()
    with av.open(str(tmp_path / "huge.mkv"), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 12000, 9000, "yuvj420p"
        frame = av.VideoFrame(12000, 9000, "yuvj420p")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert "100 million" in refused(tmp_path / "huge.mkv", "12000 x 9000 pixels").why


def test_a_size_that_changes_ends_the_source(tmp_path, clips):
    parts = [
        clips.write(tmp_path / f"{width}.ts", STEADY[:6], size=(width, 48), base=Fraction(1, 90000)) for width in (64, 96)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(both) as source:
        assert {frame.image.shape for frame in source} == {(48, 64, 3)}
        assert "96 x 48" in source.ended_early


def test_a_stream_that_begins_on_the_way(folder, tmp_path, clips, monkeypatch):
    """Broadcasts do that. Whether PyAV stumbles over it at the end hangs on what lies in memory, so it is made to."""
    av = clips.pyav()
    real = av.open

    class Stumbling:
        def __init__(self, *args, **named):
            self._file = real(*args, **named)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def demux(self, stream):
            yield from (packet for packet in self._file.demux(stream) if packet.size)
            raise IndexError("list index out of range")

    def opened(file, mode="r", **named):
        return Stumbling(file, mode, **named) if mode == "r" else real(file, mode, **named)

    monkeypatch.setattr(av, "open", opened)
    for start in (None, 1.0):
        with open_source(folder / "steady.mp4", start=start) as source:
            with VideoWriter.like(tmp_path / "copy.mp4", source) as writer:
                for frame in source:
                    writer.write(frame.image, frame.time)
            assert writer.frames == (35 if start else 60) and not writer.lost
            assert not source.ended_early and not source.skipped


def test_times_grow_although_stamps_jump_back(tmp_path, clips):
    part = clips.write(tmp_path / "part.ts", STEADY[:6], base=Fraction(1, 90000))
    twice = tmp_path / "twice.ts"
    twice.write_bytes(part.read_bytes() * 2)
    frames = taken(twice, clips)
    assert [frame[2] for frame in frames] == [*range(6), *range(6)]
    assert [frame[0] for frame in frames] == list(range(12))
    np.testing.assert_allclose(np.diff([frame[1] for frame in frames]), 0.04, atol=1e-4)


@pytest.mark.parametrize(
    "window, what",
    [
        ({"start": -1}, "start is -1"),
        ({"start": float("nan")}, "start is nan"),
        ({"end": float("inf")}, "end is inf"),
        ({"start": 2, "end": 2}, "not after the start"),
        ({"end": 0}, "not after the start"),
        ({"every": 0}, "not a stride"),
        ({"start": 60}, "no frame from 60 s on"),
        ({"start": 0.001, "end": 0.002}, "before 0.002 s"),
        ({"fps": 25}, "frame rate was given"),
        ({"fps": 0}, "frames per second cannot be"),
    ],
)
def test_windows_that_hold_nothing(folder, window, what, either_reader):
    refused(folder / "steady.mp4", what, **window)


def test_what_is_lost_is_said(folder, without_pyav):
    with open_source(folder / "steady.mp4") as source:
        assert source.facts.sound is None
        assert source.facts.lost == ("sound", "a count of damaged frames")
        assert "[video]" in source.facts.remedy


def test_nothing_is_lost_with_pyav(folder):
    with open_source(folder / "steady.mp4") as source:
        assert source.facts.sound.path == folder / "steady.mp4"
        assert not source.facts.lost and not source.facts.remedy and not source.facts.live


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, clips, monkeypatch, either_reader):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "100%.mp4", "frame_%d.mp4", "-x.mp4"):
        clips.write(tmp_path / name, STEADY[:2])
        assert not is_live(name)
        assert len(taken(name, clips)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_read_or_refused(tmp_path, clips, either_reader):
    # OpenCV crashes on text that is not UTF-8.
    folder = tmp_path / os.fsdecode(b"Stra\xdfe")
    folder.mkdir()
    clips.write(tmp_path / "clip.mp4", STEADY[:2])
    (tmp_path / "clip.mp4").rename(folder / "clip.mp4")
    if either_reader == "pyav":
        assert len(taken(folder / "clip.mp4", clips)) == 2
    else:
        with pytest.raises(InputError, match="not UTF-8") as caught:
            open_source(folder / "clip.mp4")
        assert "rename it" in caught.value.fix and "[video]" in caught.value.fix
        with pytest.raises(InputError, match="not UTF-8"):
            open_source("rtsp://127.0.0.1:9/" + os.fsdecode(b"\xff"))


def test_files_are_closed(folder):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def abandoned():
        with open_source(folder / "steady.mp4", start=1.0) as source:
            for _ in source:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        abandoned()
    before = descriptors()
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            abandoned()
        with pytest.raises(InputError):
            open_source(folder / "steady.mp4", start=60)
    assert descriptors() == before
