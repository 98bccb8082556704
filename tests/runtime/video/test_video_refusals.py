"""glnet-infer on videos: bad input with its messages and exit codes, full disks, signals."""

import errno
import json
import os
import resource
import signal
import socket
import tempfile
from fractions import Fraction

import cv2
import numpy as np
import pytest
from command_runs import failed, written
from detector_graphs import FLOAT, constant_graph
from video_runs import EVERY_FORMAT, STEADY, motion, stamps

from glnet_infer import InputError, OutputError
from glnet_infer.video import encoders


def audio_only(path, av):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def without_frames(path, av):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()


def huge(path, av):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 12000, 9000, "yuvj420p"
        file.mux(stream.encode(av.VideoFrame(12000, 9000, "yuvj420p")))
        file.mux(stream.encode(None))


@pytest.mark.parametrize(
    "name, make, words",
    [
        ("damaged.mp4", lambda path, av: path.write_bytes(bytes(5000)), ["is not a video that can be read", "convert it"]),
        ("empty.mp4", lambda path, av: path.touch(), ["is empty", "copy it again"]),
        ("sound.mp4", audio_only, ["has no pictures", "sound only"]),
        ("none.mkv", without_frames, ["convert it"]),
        ("huge.mkv", huge, ["12000 x 9000 pixels", "100 million", "make the images smaller"]),
    ],
)
def test_files_that_cannot_be_used(one, tmp_path, clips, name, make, words):
    make(tmp_path / name, clips.pyav())
    result = one(tmp_path / name)
    failed(result, InputError, name, *words)
    assert not result.stdout and not written(tmp_path)


def test_no_camera(one, tmp_path):
    failed(one("97"), InputError, "no picture from camera 97", "/dev/video")
    assert not written(tmp_path)


def test_a_refused_stream(one, tmp_path):
    pytest.importorskip("av")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = one(f"rtsp://user:secret@127.0.0.1:{port}/x", "--json")
    failed(result, InputError, f"rtsp://127.0.0.1:{port}/x cannot be opened", "check the address")
    assert "secret" not in result.output and json.loads(result.stdout)["videos"][0]["error"]["kind"] == "InputError"
    assert not written(tmp_path)


def test_an_address_that_is_none(one):
    failed(one("rtsp://[::1"), InputError, "cannot be opened")


def test_a_number_that_no_camera_has(one):
    failed(one("9" * 20), InputError, "9" * 20)


def test_a_detector_of_an_unknown_layout(infer, tmp_path, clip):
    model = constant_graph({"pixels": (FLOAT, [1, 3, 7, 7])}, {"mystery": np.zeros((3, 5), np.float32)})
    (tmp_path / "mine.onnx").write_bytes(model.SerializeToString())
    failed(infer(clip, "--detector", tmp_path / "mine.onnx"), InputError, "mine.onnx", "mystery", "yolo")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def unopened(monkeypatch):
    """No source may be opened: what is wrong is said before the work."""
    from glnet_infer.commands import videos

    monkeypatch.setattr(videos, "open_source", lambda *_, **__: pytest.fail("the work was begun"))


@pytest.mark.parametrize(
    "name", ["clip.overlay.mp4", "clip.npz", "clip.html", "clip.track-2.bvh", "clip.track-9.amass.npz"]
)
def test_a_result_that_is_read_only(one, tmp_path, clip, unopened, name):
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_bytes(b"old")
    path.chmod(0o444)
    failed(one(clip, *EVERY_FORMAT), OutputError, f"Cannot write {path}", "read-only", "what to do")
    assert path.read_bytes() == b"old" and written(tmp_path) == [path.name]


def test_a_folder_in_the_place_of_a_result(one, tmp_path, clip, unopened):
    (tmp_path / "out/clip.npz").mkdir(parents=True)
    failed(one(clip), OutputError, "clip.npz", "directory")
    assert written(tmp_path) == ["clip.npz"]


@pytest.mark.parametrize("kind, end", [("overlay", "overlay.mp4"), ("npz", "npz"), ("html", "html")])
def test_a_full_disk(one, tmp_path, clips, kind, end):
    """A limit on the size of files stands for it: libraries meet both in the same call."""
    clip = clips.write(tmp_path / "clip.mp4", STEADY)
    (tmp_path / "out").mkdir()
    old = tmp_path / f"out/clip.{end}"
    old.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        result = one(clip, "-f", kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    failed(result, OutputError, "File too large", "what to do")
    assert old.read_bytes() == b"old" and written(tmp_path) == [old.name] and not result.stdout


def test_a_full_disk_is_called_so(one, tmp_path, clip, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encoders.PyavEncoder, "write", full)
    failed(one(clip), OutputError, "clip.overlay.mp4", "No space left", "free some space")
    assert not written(tmp_path)


@pytest.mark.parametrize("kind, function", [("npz", "TemporaryFile"), ("html", "mkdtemp")])
def test_no_place_for_temporary_files(one, tmp_path, clip, monkeypatch, kind, function):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, function, full)
    failed(one(clip, "-f", kind), OutputError, "No space left", "what to do")
    assert not written(tmp_path)


@pytest.mark.parametrize(
    "options, words",
    [
        (["photo.png"], ["photo.png is no video, and", "clip.mp4 is one", "once for photographs"]),
        (["--boxes", "1,2,3,4"], ["--boxes does not fit", "photograph"]),
        (["--boxes-file", "x.json"], ["--boxes-file does not fit"]),
        (["-f", "obj"], ["'obj'", "for videos", "bvh"]),
        (["--start", "2", "--end", "1"], ["not after the start"]),
        (["--intrinsics", "1,2"], ["camera"]),
        (["--max-persons", "2"], ["--max-persons", "--detector none"]),
        (["--detector-threshold", "0.5"], ["--detector-threshold", "--detector none"]),
        (["nothing.mp4"], ["There is no file nothing.mp4", "check the path"]),
        (["../clip.mp4"], ["same files", "-o"]),
    ],
)
def test_options_and_inputs_that_do_not_fit(one, tmp_path, clips, clip, monkeypatch, options, words):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    clips.write(tmp_path / "here/clip.mp4", STEADY[:1])
    cv2.imwrite("photo.png", clips.image(1))
    failed(one("clip.mp4", *options), InputError, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, words", [(["--fps", 25], ["frame rate was given", "numbered"]), (["--start", 7], ["no frame from 7 s on"])]
)
def test_options_that_do_not_fit_the_clip(one, tmp_path, clip, options, words):
    failed(one(clip, *options), InputError, *words)
    assert not written(tmp_path)


@pytest.mark.parametrize("option", ["--start", "--end", "--every", "--detect-every", "--confidence"])
def test_options_of_videos_with_a_photograph(one, tmp_path, clips, option):
    cv2.imwrite(str(tmp_path / "photo.png"), clips.image(1))
    failed(one(tmp_path / "photo.png", option, "1"), InputError, f"{option} does not fit", "for videos")
    assert not (tmp_path / "out").exists()


def test_a_rate_for_a_photograph(one, tmp_path, clips):
    cv2.imwrite(str(tmp_path / "photo.png"), clips.image(1))
    failed(one(tmp_path / "photo.png", "--fps", "25"), InputError, "--fps does not fit", "photo.png", "numbered images")


@pytest.mark.parametrize("other", ["clip.overlay.mp4", "./clip.overlay.mp4"])
def test_a_result_in_the_place_of_a_source(one, tmp_path, clips, clip, monkeypatch, other):
    """What happens with *.mp4 in the folder of an earlier run."""
    monkeypatch.chdir(tmp_path)
    content = clips.write(tmp_path / "clip.overlay.mp4", STEADY[:1]).read_bytes()
    failed(one("clip.mp4", other, output="."), InputError, "clip.overlay.mp4 would be replaced", "-o")
    assert (tmp_path / "clip.overlay.mp4").read_bytes() == content and not (tmp_path / "clip.npz").exists()


def test_names_that_meet_in_one_format(one, tmp_path, clips, clip):
    other = clips.write(tmp_path / "clip.amass.mp4", STEADY[:1])
    failed(one(clip, other, "-f", "npz", "-f", "amass"), InputError, "same files")
    assert one(clip, other, "-f", "npz").exit_code == 0 and written(tmp_path) == ["clip.amass.npz", "clip.npz"]


def test_a_terminating_signal_keeps_what_is_done(one, tmp_path, clips, monkeypatch):
    """In this process: a signal while a frame is written. Whole runs are ended in test_video_ends.py."""
    clip = clips.write(tmp_path / "clip.mp4", [Fraction(i, 25) for i in range(100)])
    write = encoders.PyavEncoder.write

    def signalled(self, image, time):
        write(self, image, time)
        if round(time * 25) == 5:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(encoders.PyavEncoder, "write", signalled)
    # Where the command does not hear it, the test fails, and the tests go on.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        result = one(clip, "-f", "overlay", "-f", "npz", "--json")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 130, result.stderr
    (entry,) = json.loads(result.stdout)["videos"]
    assert entry["stopped"] and 6 <= entry["frames"] < 100 and len(entry["files"]) == 2
    assert len(stamps(clips.pyav(), tmp_path / "out/clip.overlay.mp4")) == entry["frames"]
    assert motion(tmp_path).frame_numbers.tolist() == list(range(entry["frames"]))


def test_descriptors_stay_flat(one, tmp_path, clips, monkeypatch):
    """Through frames, and through runs; memory is measured by hand, for it takes minutes."""
    clip = clips.write(tmp_path / "clip.mp4", [Fraction(i, 25) for i in range(30)], sound="aac")
    counts, write = [], encoders.PyavEncoder.write

    def counted(self, image, time):
        write(self, image, time)
        counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208

    monkeypatch.setattr(encoders.PyavEncoder, "write", counted)
    for _ in range(2):
        assert one(clip).exit_code == 0
    first, second = counts[:30], counts[30:]
    assert max(first[5:]) == min(first[5:]) == second[-1]
