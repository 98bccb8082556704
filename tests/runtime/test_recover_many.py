"""Batches across images: the same results as one image at a time, in order, and a failure is one image's alone."""

import gc
import json
import shutil
import weakref

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from glnet_infer import BackendError, InputError, Intrinsics, MeshRecoverer
from glnet_infer.bundle import Bundle
from glnet_infer.commands.infer import app
from glnet_infer.persons import in_groups

METRES = 1e-4
"""Kernels for other batch sizes sum in another order; another person is centimetres away."""

BOXES = [[[639, 30, 955, 736]], [], [[313, 25, 577, 567], [639, 30, 955, 736]], None, [[600, 50, 900, 700]]]


class Counting:
    """A backend that counts the crops of its calls, and fails where a crop is all of one colour."""

    name = "counting"

    def __init__(self, bundle, size=4):
        self.inner, self.batch_size, self.calls = MeshRecoverer(bundle, "onnxruntime-cpu", threads=1)._backend, size, []

    def run(self, crops, cameras):
        self.calls.append(len(crops))
        if any(len(np.unique(crop)) == 1 for crop in crops):
            raise BackendError("A crop is all of one colour.")
        return self.inner.run(crops, cameras)

    def close(self):
        self.inner.close()


def frames_of(photograph):
    return [np.roll(photograph, 10 * index, 1)[: 800 - 50 * index] for index in range(len(BOXES))]


def test_results_are_those_of_one_image_at_a_time(recoverer, photograph):
    frames, camera = frames_of(photograph), Intrinsics(900.0, 1400.0, 250.0, 777.0)
    for given in (None, camera, camera.matrix):
        many = list(recoverer.recover_many(iter(frames), iter(BOXES), given))
        assert [len(meshes) for meshes in many] == [1, 0, 2, 1, 1]
        for meshes, frame, boxes in zip(many, frames, BOXES, strict=True):
            alone = recoverer(frame, boxes, given)
            assert meshes.image_size == alone.image_size and meshes.intrinsics == alone.intrinsics
            assert np.array_equal(meshes.boxes, alone.boxes)
            assert np.abs(meshes.vertices - alone.vertices).max(initial=0) < METRES
            # Pixels: 1e-5 of a crop side, and crops are up to 1,500 px wide here.
            assert np.abs(meshes.keypoints_2d - alone.keypoints_2d).max(initial=0) < 0.02


def test_crops_of_many_images_share_a_call(shared_bundle, photograph):
    backend = Counting(shared_bundle)
    with MeshRecoverer(shared_bundle, backend) as recoverer:
        list(recoverer.recover_many([photograph] * 10))
        assert backend.calls == [4, 4, 2]
        backend.calls.clear()
        list(recoverer.recover_many([photograph] * 4, [[[0, 0, 90, 90]] * count for count in (3, 3, 1, 9)]))
        assert backend.calls == [3, 4, 4, 4, 1]  # no image is torn apart but one that is too large by itself


def test_images_are_taken_when_they_are_needed_and_not_kept(shared_bundle, photograph):
    taken = []

    def frames():
        for _ in range(20):
            frame = photograph.copy()
            taken.append(weakref.ref(frame))
            yield frame

    with MeshRecoverer(shared_bundle, Counting(shared_bundle)) as recoverer:
        results = recoverer.recover_many(frames())
        next(results)
        assert len(taken) == 5  # the fifth shows that the batch of four is full
        gc.collect()
        assert sum(reference() is not None for reference in taken) <= 1
        results.close()


@pytest.mark.parametrize("images, boxes", [(2, 3), (3, 2), (0, 1)])
def test_boxes_for_another_number_of_images(recoverer, photograph, images, boxes):
    with pytest.raises(InputError, match="not as many boxes as images") as error:
        list(recoverer.recover_many([photograph] * images, [[[0, 0, 90, 90]]] * boxes))
    assert error.value.fix


def test_an_image_that_is_none_says_so(recoverer, photograph):
    results = recoverer.recover_many([photograph, photograph[..., 0]])
    with pytest.raises(InputError, match="grey"):
        list(results)


def test_an_open_bundle_is_taken_and_not_opened_again(shared_bundle, photograph, monkeypatch):
    opened = Bundle.open(shared_bundle)
    monkeypatch.setattr(Bundle, "open", lambda directory: pytest.fail("opened twice"))
    with MeshRecoverer(opened, "onnxruntime-cpu") as recoverer:
        assert recoverer.bundle is opened and len(recoverer(photograph)) == 1


def test_groups_are_as_large_as_they_can_be():
    assert list(in_groups([1, 2, 3, 9, 1, 1], lambda group: sum(group) <= 4)) == [[1, 2], [3], [9], [1, 1]]
    assert list(in_groups([], lambda group: True)) == []


def test_one_photographs_failure_is_its_own_though_it_shares_a_batch(shared_bundle, photograph, tmp_path, monkeypatch):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.jpg"), photograph)
    cv2.imwrite(str(folder / "2.jpg"), np.zeros((64, 64, 3), np.uint8))
    (folder / "4.jpg").write_bytes(b"no image")
    backend = Counting(shared_bundle, size=16)
    monkeypatch.setattr("glnet_infer.recoverer.open_fastest", lambda *_: (backend, ""))
    arguments = [str(folder), "-b", str(shared_bundle), "-o", str(tmp_path / "out"), "--format", "npz", "--json"]
    arguments += ["--detector", "none"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == BackendError.exit_code  # of the first image that failed, though 4.jpg was read before it ran
    entries = json.loads(result.stdout)["images"]
    assert [("error" in entry, entry.get("persons")) for entry in entries] == [
        (False, 1),
        (False, 1),
        (True, None),
        (False, 1),
        (True, None),
        (False, 1),
    ]
    assert entries[2]["error"]["what"] == "A crop is all of one colour."
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.npz", "1.npz", "3.npz", "5.npz"]
    shutil.rmtree(tmp_path / "out")
