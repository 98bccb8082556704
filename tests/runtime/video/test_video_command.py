"""glnet-infer on videos: good input with its files. What is refused is in test_video_refusals.py."""

import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_runs import failed, names, written
from video_runs import EVERY_FORMAT, FORMATS, STEADY, motion, stamps

from glnet_infer import InputError
from glnet_infer.commands.video_jobs import name_of
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.motion import Motion
from glnet_infer.video.sources import open_source

IRREGULAR = [Fraction(i, 1000) for i in (0, 40, 100, 300, 310, 500, 900, 950)]


def sound(av, path):
    """Exact times of the packets of sound, and their bytes."""
    with av.open(str(path)) as file:
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in file.demux(audio=0) if packet.size]


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
