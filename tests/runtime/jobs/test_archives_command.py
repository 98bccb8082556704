"""glnet-infer --ray on real inputs, its actors in this process: what goes on, and what is not mixed."""

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from command_runs import failed
from detector_graphs import FLOAT, constant_graph

from glnet_infer import BackendError, BundleError, InputError
from glnet_infer.commands import archives
from glnet_infer.jobs.actor import Started, Worker
from glnet_infer.jobs.items import Join

PERSON = {"output0": np.array([[[8, 8, 40, 56, 0.9, 0]]], np.float32)}


class PoolHere:
    """Actors that do what they are given at once, in this process; ``refuses`` sees each item first."""

    orders, done = None, []
    refuses = staticmethod(lambda item: None)

    def __init__(self, orders, address, *, actors, gpus=0.0):
        PoolHere.orders, PoolHere.done = orders, []
        self.workers, self.waiting = {}, []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        pass

    def start(self, place):
        self.workers[place] = Worker(self.orders)
        self.waiting.append((place, self.workers[place].start()))

    def do(self, place, item):
        self.refuses(item)
        self.done.append(item)
        self.waiting.append((place, self.workers[place].do(item)))

    def answers(self):
        answers, self.waiting = self.waiting, []
        return answers


@pytest.fixture
def archive(infer, monkeypatch):
    """Runs glnet-infer --ray; gives the items that were done."""
    monkeypatch.setattr(archives, "RayPool", PoolHere)
    monkeypatch.setattr(archives, "installed_ray", lambda: None)
    monkeypatch.setattr(PoolHere, "refuses", staticmethod(lambda item: None))

    def run(*arguments, **named):
        PoolHere.done = []
        result = infer(*arguments, "--ray", "local", "--actors", "1", **named)
        return result, [type(item).__name__ for item in PoolHere.done]

    return run


@pytest.fixture
def photographs(tmp_path):
    (tmp_path / "photographs").mkdir()
    for name in "ab":
        noise = np.random.default_rng(ord(name)).integers(0, 255, (64, 48, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"photographs/{name}.png"), noise)
    return tmp_path / "photographs"


def test_a_detectors_file_is_found_from_everywhere_and_is_the_same_for_all(archive, photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detectors").mkdir()
    file = tmp_path / "detectors/persons.onnx"
    file.write_bytes(constant_graph({"images": (FLOAT, [1, 3, 64, 64])}, PERSON).SerializeToString())
    result, _ = archive(photographs, "--detector", "./detectors/persons.onnx:end2end")
    assert result.exit_code == 0, result.stderr
    orders = PoolHere.orders
    assert orders.detector == f"{file}:end2end" and len(orders.detector_hash) == 64
    assert isinstance(Worker(orders).start(), Started)
    changed = {"output0": PERSON["output0"] + 1}
    file.write_bytes(constant_graph({"images": (FLOAT, [1, 3, 64, 64])}, changed).SerializeToString())
    refusal = Worker(orders).start()
    assert isinstance(refusal, InputError) and "another detector" in refusal.what
    result, done = archive(photographs, "--detector", "./detectors/persons.onnx:end2end")
    failed(result, InputError, "differs in: detector_hash")
    assert not done


def test_an_actor_refuses_a_bundle_that_was_replaced(archive, photographs):
    archive(photographs, "--detector", "none")
    refusal = Worker(replace(PoolHere.orders, bundle_hash="0" * 64)).start()
    assert isinstance(refusal, BundleError) and "another bundle" in refusal.what


def test_boxes_of_another_file_are_refused_and_an_archive_may_grow(archive, photographs, tmp_path):
    boxes = tmp_path / "boxes.json"

    def run(table, *images):
        boxes.write_text(json.dumps(table), encoding="utf-8")
        return archive(*images, "--boxes-file", boxes)

    one, both = [photographs / "a.png"], sorted(photographs.iterdir())
    a, b = [[4, 4, 40, 60]], [[2, 2, 44, 62]]
    result, done = run({"a.png": a}, *one)
    assert result.exit_code == 0 and done == ["Photographs"], result.stderr
    before = (tmp_path / "out/a.npz").read_bytes()
    result, done = run({"a.png": a, "b.png": b}, *both)
    assert result.exit_code == 0 and done == ["Photographs"] and (tmp_path / "out/b.npz").is_file()
    result, done = run({"a.png": b, "b.png": b}, *both)
    failed(result, InputError, "a.png with other boxes")
    assert not done and (tmp_path / "out/a.npz").read_bytes() == before and "remove a.npz" in result.stderr


def test_a_run_without_ray_is_refused_where_an_archive_lies(archive, infer, photographs, tmp_path):
    assert archive(photographs, "--detector", "none")[0].exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npz")}
    failed(infer(photographs, "--detector", "none"), InputError, "results of an archive", "--ray")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.npz")} and len(before) == 2
    assert infer(photographs, "--detector", "none", output=tmp_path / "other").exit_code == 0


def test_where_ray_is_not_installed_nothing_is_written(infer, monkeypatch, photographs, rendered_clip, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    for source in (photographs, rendered_clip / "clip.mp4"):
        result = infer(source, "--detector", "none", "-f", "npz", "--ray", "local")
        failed(result, BackendError, "Ray is not installed", ".[ray]")
        assert "Starting" not in result.stderr and not list((tmp_path / "out").rglob("*"))


def test_a_directory_of_other_results_stays_as_it_is(archive, infer, photographs, tmp_path):
    assert infer(photographs, "--detector", "none").exit_code == 0
    failed(archive(photographs, "--detector", "none")[0], InputError, "is there already")
    assert not (tmp_path / "out/jobs").exists()


def test_who_stops_a_run_is_told_that_it_goes_on(archive, photographs):
    def stop(item):
        raise KeyboardInterrupt

    PoolHere.refuses = staticmethod(stop)
    result, _ = archive(photographs, "--detector", "none")
    assert result.exit_code == 130 and "the same command goes on" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("seconds, lines", [(0.0, 1), (1e9, 0)])
def test_how_far_a_run_is_is_said_now_and_then(archive, photographs, monkeypatch, seconds, lines):
    monkeypatch.setattr(archives, "SECONDS_IN_LOG", seconds)
    result, _ = archive(photographs, "--detector", "none")
    assert result.stderr.count("1 of 1 items are done") == lines and "Starting Ray and 1 actor," in result.stderr


def test_a_video_of_a_file_for_each_person_is_done_once(archive, tmp_path):
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for grey in range(8):
        writer.write(np.full((48, 64, 3), 30 * grey, np.uint8))
    writer.release()
    arguments = (clip, "--detector", "none", "-f", "npz", "-f", "bvh")

    def broken(item):
        if isinstance(item, Join):
            raise KeyboardInterrupt

    PoolHere.refuses = staticmethod(broken)
    result, done = archive(*arguments)
    assert result.exit_code != 0 and done == ["Survey", "Chunk"]
    PoolHere.refuses = staticmethod(lambda item: None)
    result, done = archive(*arguments)
    assert result.exit_code == 0 and done == ["Join"], result.stderr
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert set(files) == {"clip.npz", "clip.bvh"}
    result, done = archive(*arguments)
    assert result.exit_code == 0 and not done and "All is done already" in result.stderr
    assert files == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()}
    (tmp_path / "out/clip.bvh").unlink()
    result, done = archive(*arguments)
    assert result.exit_code == 0 and done == ["Survey", "Chunk", "Join"] and (tmp_path / "out/clip.bvh").is_file()
