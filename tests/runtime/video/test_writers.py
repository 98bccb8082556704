"""Videos written: PyAV reads back times, sound and pictures; whatever goes wrong, no half file has the final name."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from glnet_infer import InputError, OutputError, files
from glnet_infer.video import encoders
from glnet_infer.video.sources import open_source
from glnet_infer.video.writers import VideoWriter

STEADY = [Fraction(i, 25) for i in range(60)]
IRREGULAR = [Fraction(i, 1000) for i in (0, 40, 100, 300, 310, 500, 900, 1700, 1710, 1950)]


def copy(clip, target, **window):
    with open_source(clip, **window) as source, VideoWriter.like(target, source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    return writer


def stamps(av, path):
    """Exact times of the frames, in order."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def sound(av, path):
    """Time stamp, seconds, and bytes of each packet."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.pts is not None]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


@pytest.mark.parametrize(
    "name, base, codec",
    [
        ("x.mp4", Fraction(1, 12800), "libx264"),
        ("x.mkv", Fraction(1, 1000), "libx264"),
        ("x.ts", Fraction(1, 90000), "libx264"),
        ("x.avi", Fraction(1001, 30000), "mpeg4"),
    ],
)
def test_times_are_the_sources_own(tmp_path, clips, name, base, codec):
    times = [i * base for i in range(40)] if name == "x.avi" else IRREGULAR
    clip = clips.write(tmp_path / name, times, base=base, codec=codec, rate=Fraction(30000, 1001))
    av = clips.pyav()
    original = stamps(av, clip)
    copy(clip, tmp_path / "copy.mp4")
    written = stamps(av, tmp_path / "copy.mp4")
    assert written == [time - original[0] for time in original] if name == "x.ts" else written == original
    with open_source(tmp_path / "copy.mp4") as source:
        assert [clips.number(frame.image) for frame in source] == list(range(len(times)))


def test_the_length_is_right_although_the_rate_varies(tmp_path, clips):
    clip = clips.write(tmp_path / "x.mp4", IRREGULAR)
    copy(clip, tmp_path / "copy.mp4")
    with clips.pyav().open(str(tmp_path / "copy.mp4")) as file:
        length = file.duration / 1e6
    assert 1.95 < length <= 1.95 + 0.25  # the last frame is shown as long as the one before it


def test_sound_is_copied(tmp_path, clips):
    clip = clips.write(tmp_path / "x.mp4", STEADY, sound="aac")
    writer = copy(clip, tmp_path / "copy.mp4")
    assert not writer.lost
    original, copied = sound(clips.pyav(), clip), sound(clips.pyav(), tmp_path / "copy.mp4")
    assert len(original) > 100 and copied == original


def test_sound_of_a_window_begins_and_ends_with_it(tmp_path, clips):
    clip = clips.write(tmp_path / "x.mp4", STEADY, sound="aac")
    copy(clip, tmp_path / "copy.mp4", start=0.81, end=1.6)
    # Frames at 0.84 ... 1.56; a packet lasts 1024 / 48000 s, and is kept where it begins inside.
    assert stamps(clips.pyav(), tmp_path / "copy.mp4") == pytest.approx([i / 25 - 0.81 for i in range(21, 40)], abs=4e-5)
    original, copied = sound(clips.pyav(), clip), sound(clips.pyav(), tmp_path / "copy.mp4")
    start, end = Fraction(0.81), Fraction(1.6)
    expected = [(time - start, data) for time, data in original if start <= time < end]
    assert [data for _, data in copied] == [data for _, data in expected]
    # Sound is in whole samples of 1/48000 s.
    assert [float(time) for time, _ in copied] == pytest.approx([float(time) for time, _ in expected], abs=1 / 48000)


@pytest.mark.parametrize("start", [0, 1.0])
@pytest.mark.parametrize(
    "name, base, pictures, codec",
    [("x.avi", Fraction(1, 25), "mpeg4", "pcm_s16le"), ("x.webm", Fraction(1, 1000), "libvpx-vp9", "libopus")],
)
def test_sound_of_other_containers(tmp_path, clips, name, base, pictures, codec, start):
    av = clips.pyav()
    clip = clips.write(tmp_path / name, STEADY, base=base, codec=pictures, sound=codec)
    copy(clip, tmp_path / "copy.mp4", start=start)
    with av.open(str(tmp_path / "copy.mp4")) as file:
        assert file.streams.audio[0].codec_context.name == {"pcm_s16le": "aac", "libopus": "opus"}[codec]
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        rate = file.streams.audio[0].rate
    samples = np.concatenate([frame.reshape(frame.shape[0], -1)[0] for frame in frames])
    assert len(samples) / rate == pytest.approx(STEADY[-1] - start, abs=0.08)  # packets, and an encoder's run-in
    middle = samples[len(samples) // 4 : len(samples) // 4 + 9600]  # 0.2 s
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * rate / len(middle) == pytest.approx(440, abs=5)  # the tone


def test_turned_frames_are_written_upright(tmp_path, clips):
    clip = clips.write(tmp_path / "x.mp4", STEADY[:3], size=(64, 32), rotation=90)
    copy(clip, tmp_path / "copy.mp4")
    with clips.pyav().open(str(tmp_path / "copy.mp4")) as file:
        frame = next(file.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (32, 64, 0)
    with open_source(clip) as given, open_source(tmp_path / "copy.mp4") as written:
        first, second = (next(iter(each)).image.astype(int) for each in (given, written))
    assert np.abs(first - second).mean() < 4  # compression; a wrong turn is wrong by 60


@pytest.fixture(params=["pyav", "opencv"])
def either_writer(request, clips):
    if request.param == "opencv":
        request.getfixturevalue("without_pyav")
    else:
        clips.pyav()
    return request.param


@pytest.mark.parametrize("size", [(61, 47), (1, 1), (64, 33), (16, 2)])
def test_odd_sizes_get_an_even_side(tmp_path, clips, size, either_writer):
    with VideoWriter(tmp_path / "x.mp4", width=size[0], height=size[1]) as writer:
        for number in range(3):
            writer.write(clips.image(number, *size), number / 30)
    with open_source(tmp_path / "x.mp4") as source:
        frames = list(source)
    assert len(frames) == 3
    assert frames[0].image.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    if size[0] > 16:
        assert np.abs(frames[0].image[-1].astype(int) - frames[0].image[-2]).mean() < 12  # repeated, not black


def test_colours_stay(tmp_path, either_writer):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :32], image[:, 32:64], image[:, 64:] = (20, 30, 200), (40, 190, 30), (210, 60, 40)
    with VideoWriter(tmp_path / "x.mp4", width=96, height=64) as writer:
        for number in range(3):
            writer.write(image, number / 30)
    with open_source(tmp_path / "x.mp4") as source:
        shown = next(iter(source)).image
    for column in (16, 48, 80):
        # Eight bits of YUV and compression; the matrix of the wrong standard is wrong by 20.
        assert np.abs(shown[32, column].astype(int) - image[32, column]).max() <= 8


def test_colours_are_said(tmp_path, clips):
    av = clips.pyav()
    with VideoWriter(tmp_path / "x.mp4", width=64, height=48) as writer:
        writer.write(clips.image(0), 0.0)
    with av.open(str(tmp_path / "x.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_the_index_comes_first(tmp_path, clips):
    clips.pyav()
    copy(clips.write(tmp_path / "x.mp4", STEADY), tmp_path / "copy.mp4")
    data = (tmp_path / "copy.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_without_pyav_frames_are_kept_and_the_rest_is_said(tmp_path, clips, without_pyav):
    clip = clips.write(tmp_path / "x.mp4", STEADY, sound="aac")
    writer = copy(clip, tmp_path / "copy.mp4", every=2)
    assert writer.frames == 30
    assert "sound" in writer.lost and any("times" in each for each in writer.lost) and "[video]" in writer.remedy
    capture = cv2.VideoCapture(str(tmp_path / "copy.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    assert [clips.number(capture.read()[1]) for _ in range(30)] == list(range(0, 60, 2))


def beside(path):
    """What lies beside a video that failed."""
    return sorted(entry.name for entry in path.iterdir())


def test_an_error_leaves_the_old_file(tmp_path, clips, either_writer):
    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "x.mp4", width=64, height=48) as writer:
        writer.write(clips.image(0), 0.0)
        raise RuntimeError
    assert (tmp_path / "x.mp4").read_bytes() == b"old" and beside(tmp_path) == ["x.mp4"]


def test_an_interrupt_keeps_what_is_done(tmp_path, clips, either_writer):
    clip = clips.write(tmp_path / "clip.mp4", STEADY, sound="aac")
    with (
        pytest.raises(KeyboardInterrupt),
        open_source(clip) as source,
        VideoWriter.like(tmp_path / "x.mp4", source) as writer,
    ):
        for frame in source:
            writer.write(frame.image, frame.time)
            if frame.index == 20:
                raise KeyboardInterrupt
    with open_source(tmp_path / "x.mp4") as source:
        assert [clips.number(frame.image) for frame in source] == list(range(21))
    if either_writer == "pyav":  # and the sound of these frames
        assert 0.8 <= sound(clips.pyav(), tmp_path / "x.mp4")[-1][0] < 0.84
    assert beside(tmp_path) == ["clip.mp4", "x.mp4"]


def test_nothing_is_written_where_no_frame_came(tmp_path, either_writer):
    with VideoWriter(tmp_path / "x.mp4", width=64, height=48):
        pass
    assert beside(tmp_path) == []


@pytest.mark.parametrize("name", ["x.avi", "x", "x.webm"])
def test_other_formats_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="Cannot write") as caught:
        VideoWriter(tmp_path / name, width=64, height=48)
    assert ".mp4" in caught.value.fix and beside(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path, either_writer, monkeypatch):
    (tmp_path / "locked.mp4").write_bytes(b"old")
    (tmp_path / "locked.mp4").chmod(0o444)
    (tmp_path / "folder.mp4").mkdir()
    for name, why in [("locked.mp4", "read-only"), ("folder.mp4", "directory"), ("missing/x.mp4", "no directory")]:
        with pytest.raises(OutputError) as caught:
            VideoWriter(tmp_path / name, width=64, height=48)
        assert why in caught.value.why and caught.value.fix
    assert (tmp_path / "locked.mp4").read_bytes() == b"old"

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "claimed_file", refuse)  # a folder that takes no files, for root too
    with pytest.raises(OutputError, match="Permission denied"):
        VideoWriter(tmp_path / "x.mp4", width=64, height=48)
    monkeypatch.undo()
    assert beside(tmp_path) == ["folder.mp4", "locked.mp4"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_place_whose_name_is_no_text_is_written_or_refused(tmp_path, clips, either_writer):
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    folder.mkdir()
    if either_writer == "pyav":
        with VideoWriter(folder / "x.mp4", width=64, height=48) as writer:
            writer.write(clips.image(0), 0.0)
        assert beside(folder) == ["x.mp4"]
    else:
        with pytest.raises(OutputError, match="not UTF-8"):  # OpenCV would crash
            VideoWriter(folder / "x.mp4", width=64, height=48)
        assert beside(folder) == []


def test_wrong_frames_are_refused(tmp_path, clips):
    with VideoWriter(tmp_path / "x.mp4", width=64, height=48) as writer:
        writer.write(clips.image(0), 0.5)
        for image, time in [
            (clips.image(0, 66, 48), 1.0),
            (clips.image(0).astype(float), 1.0),
            (clips.image(0), 0.5),
            (clips.image(0), 0.4),
        ]:
            with pytest.raises(InputError):
                writer.write(image, time)
        writer.write(clips.image(1), 0.6)
    assert writer.frames == 2


@pytest.mark.parametrize("limit", [2_000, 60_000, "last"])
def test_a_full_disk(tmp_path, limit, either_writer, capfd):
    """A limit on the size of files stands for it: libraries meet both in the same call."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(12)]

    def write():
        with VideoWriter(tmp_path / "x.mp4", width=160, height=120) as writer:
            for number, image in enumerate(images):
                writer.write(image, number / 30)

    if limit == "last":
        write()
        limit = (tmp_path / "x.mp4").stat().st_size - 50
        (tmp_path / "x.mp4").unlink()
    (tmp_path / "x.mp4").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match="Cannot write") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.why and caught.value.fix
    assert (tmp_path / "x.mp4").read_bytes() == b"old" and beside(tmp_path) == ["x.mp4"]
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_called_so(tmp_path, clips, monkeypatch):
    clips.pyav()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encoders.PyavEncoder, "finish", full)
    with (
        pytest.raises(OutputError, match="No space left") as caught,
        VideoWriter(tmp_path / "x.mp4", width=64, height=48) as w,
    ):
        w.write(clips.image(0), 0.0)
    assert "free some space" in caught.value.fix and beside(tmp_path) == []


ENDLESS = """
import numpy as np, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from glnet_infer.video.writers import VideoWriter
image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
with VideoWriter(sys.argv[1], width=320, height=240) as writer:
    for number in range(10**9):
        writer.write(image, number / 30)
        print(number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_from_outside(tmp_path, clips, number):
    clips.pyav()
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path / "x.mp4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(number)
    process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert all(name.startswith(".x.mp4.") for name in beside(tmp_path))
    else:
        assert beside(tmp_path) == ["x.mp4"]
        with open_source(tmp_path / "x.mp4") as source:
            assert len(list(source)) > 0 and not source.ended_early
