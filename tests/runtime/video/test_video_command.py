"""glnet-infer on videos: good input with its files, bad input with its messages and exit codes."""

import errno
import json
import os
import resource
import signal
import socket
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_runs import failed, names, written
from detector_graphs import FLOAT, constant_graph

from glnet_infer import InputError, OutputError
from glnet_infer.commands.video_jobs import name_of
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.motion import Motion
from glnet_infer.video import encoders
from glnet_infer.video.sources import open_source

STEADY = [Fraction(i, 25) for i in range(8)]
IRREGULAR = [Fraction(i, 1000) for i in (0, 40, 100, 300, 310, 500, 900, 950)]
EVERY_FORMAT = [part for name in ("overlay", "npz", "json", "glb", "bvh", "amass", "html") for part in ("-f", name)]
FORMATS = ["overlay.mp4", "npz", "json", "glb", "bvh", "amass.npz", "html"]


@pytest.fixture
def one(infer):
    """Runs glnet-infer where one person fills each frame: no detector costs time."""
    return lambda *arguments, **named: infer("--detector", "none", *arguments, **named)


@pytest.fixture
def clip(tmp_path, clips):
    """Eight frames of 64 x 48 with a tone."""
    return clips.write(tmp_path / "clip.mp4", STEADY, sound="aac")


def stamps(av, path):
    """Exact times of the pictures, seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def sound(av, path):
    """Exact times of the packets of sound, and their bytes."""
    with av.open(str(path)) as file:
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in file.demux(audio=0) if packet.size]


def motion(tmp_path, name="clip"):
    return Motion.load(tmp_path / f"out/{name}.npz")


# Good input


@pytest.mark.parametrize("times", [STEADY, IRREGULAR])
def test_overlay_and_motion_have_the_sources_times_and_sound(one, tmp_path, clips, times):
    clip = clips.write(tmp_path / "clip.mp4", times, sound="aac")
    result = one(clip)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [str(tmp_path / f"out/clip.{end}") for end in ("overlay.mp4", "npz")]
    overlay, av = tmp_path / "out/clip.overlay.mp4", clips.pyav()
    assert stamps(av, overlay) == stamps(av, clip) == times
    assert sound(av, overlay) == sound(av, clip) != []
    found = motion(tmp_path)
    assert found.frame_numbers.tolist() == found.frame.tolist() == list(range(8))
    assert found.frame_times.tolist() == found.time.tolist() == [float(time) for time in times]
    assert found.track.tolist() == [1] * 8 and found.image_size == (64, 48)
    assert found.body == "demo" and found.bundle == "small" and found.smoothing and found.raw_joints is not None


@pytest.mark.parametrize(
    "options, numbers",
    [
        (("--start", 0.1), [3, 4, 5, 6, 7]),
        (("--end", 0.12), [0, 1, 2]),
        (("--every", 3), [0, 3, 6]),
        (("--start", 0.08, "--end", 0.28, "--every", 2), [2, 4, 6]),
    ],
)
def test_windows(one, tmp_path, clips, clip, options, numbers):
    result = one(clip, *options)
    assert result.exit_code == 0, result.stderr
    found, start = motion(tmp_path), options[1] if options[0] == "--start" else 0
    assert found.frame_numbers.tolist() == numbers
    assert found.frame_times.tolist() == [float(STEADY[number]) for number in numbers]
    shown = [float(time) for time in stamps(clips.pyav(), tmp_path / "out/clip.overlay.mp4")]
    # The window's start is the file's zero, in ticks of 1/12800 s.
    assert shown == pytest.approx([float(STEADY[number]) - start for number in numbers], abs=1 / 12800)


def opens(folder, name):
    """The number of meshes in a clip's .glb, when those who read its files could read each of them."""
    trimesh = pytest.importorskip("trimesh")
    page = (folder / f"{name}.html").read_text()
    assert page.lower().startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    for path in folder.glob("*.amass.npz"):
        with np.load(path) as amass:
            assert len(amass["poses"]) == len(amass["trans"]) > 0
    for path in folder.glob("*.bvh"):
        assert path.read_text().startswith("HIERARCHY")
    assert json.loads((folder / f"{name}.json").read_text())
    assert Motion.load(folder / f"{name}.json").tracks == Motion.load(folder / f"{name}.npz").tracks
    return len(trimesh.load(folder / f"{name}.glb", force="scene").geometry)


def test_every_format_is_written_for_several_persons(infer, tmp_path, rendered_clip):
    result = infer(rendered_clip / "clip.mp4", *EVERY_FORMAT, "--end", 0.2)
    assert result.exit_code == 0, result.stderr
    each = [f"track-{number}.{end}" for end in ("bvh", "amass.npz") for number in (1, 2, 3)]
    assert names(result) == [f"clip.{end}" for end in ("overlay.mp4", "npz", "json", "glb", *each, "html")]
    assert sorted(names(result)) == written(tmp_path)
    assert "6 frames, 3 persons" in result.stderr
    assert motion(tmp_path).tracks == [1, 2, 3] and opens(tmp_path / "out", "clip") == 3
    assert infer(rendered_clip / "clip.mp4", "-f", "npz", "--end", 0.2, "--max-persons", 1).exit_code == 0
    assert len(motion(tmp_path).tracks) == 1 and len(motion(tmp_path)) == 6


def test_nobody_is_said_and_no_failure(infer, tmp_path, clip):
    result = infer(clip, *EVERY_FORMAT, "--json")
    assert result.exit_code == 0, result.stderr
    assert "8 frames, nobody" in result.stderr and "--detector-threshold" in result.stderr
    (entry,) = json.loads(result.stdout)["videos"]
    assert entry["persons"] == entry["rows"] == 0 and entry["frames"] == 8
    assert written(tmp_path) == sorted(f"clip.{end}" for end in FORMATS if end not in ("bvh", "amass.npz"))
    assert len(motion(tmp_path)) == 0 and motion(tmp_path).frame_numbers.tolist() == list(range(8))
    assert opens(tmp_path / "out", "clip") == 0


def test_one_frame_of_an_odd_size(one, tmp_path, clips):
    clip = clips.write(tmp_path / "odd.mkv", STEADY[:1], size=(61, 47), codec="ffv1", pixels="bgr0", base=Fraction(1, 1000))
    result = one(clip, *EVERY_FORMAT)
    assert result.exit_code == 0, result.stderr
    assert names(result) == [f"odd.{end}" for end in FORMATS]
    assert stamps(clips.pyav(), tmp_path / "out/odd.overlay.mp4") == [0]
    assert motion(tmp_path, "odd").image_size == (61, 47) and len(motion(tmp_path, "odd")) == 1
    assert opens(tmp_path / "out", "odd") == 1


def test_a_rotated_clip_is_upright(one, tmp_path, clips):
    assert one(clips.write(tmp_path / "clip.mp4", STEADY[:2], rotation=90)).exit_code == 0
    assert motion(tmp_path).image_size == (48, 64)
    with open_source(tmp_path / "out/clip.overlay.mp4") as source:
        assert (source.facts.width, source.facts.height) == (48, 64)


@pytest.fixture
def frames(tmp_path, clips):
    """Images 3, 4 and 6."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (3, 4, 6):
        cv2.imwrite(str(folder / f"f_{number:03d}.png"), clips.image(number))
    return folder


@pytest.mark.parametrize("pattern", ["f_%03d.png", ""])
def test_numbered_images(one, tmp_path, frames, pattern):
    result = one(frames / pattern, "--fps", 10)
    assert result.exit_code == 0, result.stderr
    assert names(result) == ["frames.overlay.mp4", "frames.npz"]
    found = motion(tmp_path, "frames")
    assert found.frame_numbers.tolist() == [0, 1, 3] and found.frame_times.tolist() == [0, 0.1, 0.3] and found.rate == 10


def test_a_pattern_is_a_video_without_a_rate_too(one, tmp_path, frames):
    result = one(frames / "f_%03d.png", "-f", "npz")
    assert result.exit_code == 0 and "30 per second are assumed" in result.stderr
    assert motion(tmp_path, "frames").rate == 30


@pytest.mark.parametrize("pattern", ["f_%03d.png", ""])
def test_what_is_said_of_numbered_pictures_is_said_once(one, tmp_path, clips, frames, pattern):
    for number in (4, 6):
        cv2.imwrite(str(frames / f"f_{number:03d}.png"), clips.image(number).astype(np.uint16) << 4)
    result = one(frames / pattern, "--fps", 10, "-f", "npz", "--json")
    (entry,) = json.loads(result.stdout)["videos"]
    assert entry["warnings"] == [f"{frames / 'f_004.png'}: its 16 bits hold values of 12 only, and were made brighter"]
    assert result.stderr.count("16 bits") == 1 and entry["warnings"][0] in result.stderr


def test_a_clip_of_which_nothing_is_to_be_said_has_no_warnings(one, clip):
    assert json.loads(one(clip, "-f", "npz", "--json").stdout)["videos"][0]["warnings"] == []


def test_a_person_behind_the_camera_is_said_once(one, clip, monkeypatch):
    original = MeshRecoverer.recover

    def nearer(self, images):
        found = original(self, images)
        for meshes in found:
            meshes.vertices[..., 2] -= meshes.vertices[..., 2].max() + 0.1
        return found

    monkeypatch.setattr(MeshRecoverer, "recover", nearer)
    result = one(clip, "-f", "npz", "--json")
    (entry,) = json.loads(result.stdout)["videos"]
    assert entry["warnings"] == ["1 of 1 persons reach behind the camera: its focal length may be in other units"]
    assert result.stderr.count("behind the camera") == 1


def test_poses_can_be_left_as_they_are_recovered(one, tmp_path, clip):
    assert one(clip, "-f", "npz").exit_code == 0
    smooth = motion(tmp_path)
    assert one(clip, "-f", "npz", "--no-smooth").exit_code == 0
    rough = motion(tmp_path)
    assert rough.raw_rotations is None and not rough.smoothing
    np.testing.assert_array_equal(rough.rotations, smooth.raw_rotations)


def test_a_damaged_video_does_not_stop_the_others(one, tmp_path, clips, clip):
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:1000])
    second = clips.write(tmp_path / "second.mp4", STEADY[:2])
    result = one(clip, tmp_path / "broken.mp4", second, "-f", "npz", "--json")
    failed(result, InputError, "broken.mp4 is not a video that can be read", "what to do")
    document = json.loads(result.stdout)
    assert document["backend"] == "onnxruntime-cpu" and document["detector"] == "none"
    first, broken, last = document["videos"]
    assert [Path(file).name for file in first["files"] + last["files"]] == ["clip.npz", "second.npz"]
    assert (first["frames"], first["persons"], first["rows"], first["stopped"]) == (8, 1, 8, False)
    assert broken["error"]["kind"] == "InputError" and broken["error"]["exit_code"] == 3 and not broken.get("files")
    assert written(tmp_path) == ["clip.npz", "second.npz"]


def test_sound_whose_stamps_jump_back_ends_there(one, tmp_path, clips):
    base, av = Fraction(1, 90000), clips.pyav()
    times = [Fraction(i, 25) for i in range(25)]
    parts = [clips.write(tmp_path / f"{side}.ts", times, size=(side, 48), base=base, sound="aac") for side in (64, 96)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    result = one(tmp_path / "both.ts", "--every", 5)
    assert result.exit_code == 0 and "it broke off" in result.stderr and "96 x 48" in result.stderr
    assert "the rest of the sound" in result.stderr
    overlay = tmp_path / "out/both.overlay.mp4"
    assert len(stamps(av, overlay)) == 5 and 0.8 < sound(av, overlay)[-1][0] < 1.1


def test_results_are_named_after_the_source(tmp_path, monkeypatch):
    (tmp_path / "v1.2").mkdir()
    monkeypatch.chdir(tmp_path / "v1.2")
    for source, name in {
        "a/walk.v2.mp4": "walk.v2",
        "0": "camera-0",
        "007": "camera-7",
        "rtsp://user:secret@10.0.0.7:554/live/front.sdp?key=secret": "front",
        "http://camera.local": "camera.local",
        "rtsp://[::1": "stream",
        "shots/%04d.png": "shots",
        "%04d.png": "v1.2",
        ".": "v1.2",
        "../v1.2/": "v1.2",
    }.items():
        assert name_of(source) == name, source


# Bad input


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
