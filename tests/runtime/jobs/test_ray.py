"""Ray itself: two actors on this machine, some of which are killed, and a driver that is killed twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra [ray] is not installed")
if sys.platform == "win32":
    pytest.skip("actors are killed by signals", allow_module_level=True)

from glnet_infer import MeshRecoverer
from glnet_infer.bundle import Bundle
from glnet_infer.detection import open_detector
from glnet_infer.image_files import read_image
from glnet_infer.jobs.actor import Worker
from glnet_infer.jobs.items import Orders, Survey, groups
from glnet_infer.jobs.ray_pool import RayPool
from glnet_infer.jobs.run import Run
from glnet_infer.results.motion import Motion
from glnet_infer.video.following import FollowOptions

COUNT = 60
KILLS_ONCE, POISON = ("p007", "p023", "p048"), "p031"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, rendered_clip):
    """The film's sixty frames as photographs, and one file that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    film = cv2.VideoCapture(str(rendered_clip / "clip.mp4"))
    for number in range(COUNT):
        assert cv2.imwrite(str(folder / f"p{number:03d}.jpg"), film.read()[1])
    (folder / "p060.jpg").write_bytes(b"no photograph")
    return folder


class Heard:
    def __init__(self):
        self.failures, self.deaths, self.aside, self.entries = {}, 0, {}, []

    def started(self, started):
        pass

    def done(self, item, outcome):
        self.failures |= outcome.failures
        self.entries += outcome.entries

    def died(self, item, died):
        self.deaths += 1
        assert died.reason

    def refused(self, error):
        raise error

    def set_aside(self, name, error):
        self.aside[Path(name).stem] = error

    def progress(self, done, total):
        pass


def killed_over(names, poison, marks):
    """A worker that is killed over a photograph: over some the first time, over one every time."""

    class Killed(Worker):  # inside a function, so that Ray sends it whole: actors do not find tests' modules
        def _photographs(self, item, told):
            for path in map(Path, item.paths):
                if path.stem == poison or (path.stem in names and not (marks / path.stem).exists()):
                    (marks / path.stem).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return super()._photographs(item, told)

    return Killed


def assert_alike(path, meshes):
    """A file of an actor, and what this process recovers: floats of other batches differ in their last places."""
    stored = np.load(path)
    for name in ("vertices", "joints", "keypoints_2d", "rotations", "betas", "translation", "confidence", "boxes"):
        np.testing.assert_allclose(stored[name], getattr(meshes, name), rtol=0, atol=1e-4, err_msg=f"{path} {name}")


def test_two_actors_give_what_one_process_gives_though_four_inputs_kill_them(
    shared_bundle, photographs, rendered_clip, tmp_path
):
    output, marks = tmp_path / "out", tmp_path / "marks"
    marks.mkdir()
    (output / "jobs/videos").mkdir(parents=True)
    clip = rendered_clip / "clip.mp4"
    options = FollowOptions()
    identity = Bundle.open(shared_bundle).manifest.graph.file.sha256
    orders = Orders(
        str(shared_bundle), identity, "onnxruntime-cpu", 1, "nanodet", output, ("npz",), options, chunk_frames=20
    )
    paths = sorted(photographs.glob("*.jpg"))
    heard = Heard()
    with RayPool(orders, "local", actors=2, worker=killed_over(KILLS_ONCE, POISON, marks)) as pool:
        Run(orders, pool, 2, heard)(groups(paths, dict.fromkeys(paths), 6), [Survey(str(clip), "clip")])
    done = [path.stem for path in paths if path.stem not in (POISON, "p060")]
    assert sorted(path.stem for path in output.glob("*.npz")) == ["clip", *done]
    assert list(heard.aside) == [POISON] and heard.deaths == len(KILLS_ONCE) + 3
    assert [Path(name).stem for name in heard.failures] == ["p060"]
    told = [Path(entry["image"]).stem for entry in heard.entries if "image" in entry]
    assert sorted(told) == sorted([*done, "p060"])  # each once
    detector = open_detector("nanodet", threshold=options.score)
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu", threads=1) as recoverer:
        for stem in done[::6]:
            image = read_image(photographs / f"{stem}.jpg")
            assert_alike(output / f"{stem}.npz", recoverer(image, detector(image).boxes))
        with recoverer.follow(clip, detector="nanodet", pose=False) as following:
            frames = list(following)
            found, expected = Motion.load(output / "clip.npz"), following.motion()
    assert len(frames) == 60 and np.array_equal(found.track, expected.track)
    for name in ("box", "translation", "rotations", "joints", "raw_joints", "betas"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4, err_msg=name)
    assert not list((output / "jobs/videos").iterdir())


def test_a_driver_that_is_killed_twice_goes_on_where_it_ended(shared_bundle, photographs, tmp_path):
    command = [
        *(sys.executable, "-c", "from glnet_infer.commands.infer import main; main()", str(photographs)),
        *("-b", str(shared_bundle), "-o", str(tmp_path / "out"), "--backend", "onnxruntime-cpu"),
        *("--ray", "local", "--actors", "2", "--json"),
    ]

    def results():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.npz")}

    for _ in range(2):
        before = len(results())
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            deadline = time.monotonic() + 300
            while len(results()) == before and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            driver.kill()
    first = results()
    assert 0 < len(first) < COUNT
    time.sleep(2)  # actors outlive their driver for a moment, and may end what they had begun
    first = results()
    last = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert last.returncode == 3, last.stderr  # the one that is no photograph
    document = json.loads(last.stdout)  # Ray printed nothing among it
    assert {path.stem for path in results()} == {f"p{number:03d}" for number in range(COUNT)}
    assert {path: results()[path] for path in first} == first, "what was done was done once"
    assert document["done_earlier"] == len(first) and len(document["images"]) == COUNT + 1 - len(first)
    assert [Path(each["image"]).stem for each in document["images"] if "error" in each] == ["p060"]
