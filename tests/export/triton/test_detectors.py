"""Detectors of repositories: opened before anything is published, and their files copied with the rest."""

import contextlib
import dataclasses
import json
import shutil
import sys

import numpy as np
import onnx
import pytest
from detector_graphs import FLOAT, constant_graph
from triton_backend_stand_in import Request, Utils
from typer.testing import CliRunner

from glnet_export.commands.main import app
from glnet_export.triton.repository import DETECTOR_FILE, MARK, RepositoryOptions, write_repository
from glnet_infer import BackendError, InputError
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.detection import DetectorKind, kinds, onnx_file
from glnet_infer.serving.triton_frames import TritonFrames

BOX = [5.0, 6, 40, 60]
COPY = f"glnet_frames/1/{DETECTOR_FILE}"


@pytest.fixture
def detector(tmp_path):
    """Writes a detector of the family end2end, which finds one person; its path."""

    def write(name="persons.onnx", image="images"):
        rows = np.zeros((1, 300, 6), np.float32)
        rows[0, 0] = [*BOX, 0.9, 0]
        folder = tmp_path / "detectors"
        folder.mkdir(exist_ok=True)
        onnx.save(constant_graph({image: (FLOAT, [1, 3, 64, 64])}, {"output0": rows}), folder / name)
        return folder / name

    return write


@pytest.fixture
def repository_of(bundle, tmp_path):
    def write(detector):
        write_repository(bundle, tmp_path / "repository", RepositoryOptions(detector=str(detector)))
        return tmp_path / "repository"

    return write


def served_boxes(bundle, repository, monkeypatch):
    """Boxes that the model of images finds in a black frame, by the configuration of the repository itself."""
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="install the extra triton")
    from google.protobuf import json_format, text_format

    words = (repository / "glnet_frames" / "config.pbtxt").read_text(encoding="utf-8")
    config = json_format.MessageToDict(
        text_format.Parse(words, model_config_pb2.ModelConfig()), preserving_proto_field_name=True
    )
    arguments = {
        "model_config": json.dumps(config),
        "model_repository": str(repository / "glnet_frames"),
        "model_version": "1",
    }
    with contextlib.closing(open_backend("onnxruntime-cpu", Bundle.open(bundle), 1)) as backend:
        utils = Utils(backend)
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
        frames = TritonFrames(utils, arguments)
        (response,) = frames.answers([Request(frame=np.zeros((64, 64, 3), np.uint8))])
        frames.close()
    assert not response.has_error(), response.error().message()
    return response.tensors["boxes"].as_numpy()[0]


@pytest.mark.parametrize("forced", ["", ":end2end"], ids=["found", "forced"])
def test_a_file_is_copied_and_found_wherever_the_repository_is(
    detector, repository_of, bundle, tmp_path, monkeypatch, forced
):
    path = detector(image="x" if forced else "images")  # of another name, which is taken by force alone
    content = path.read_bytes()
    monkeypatch.chdir(path.parent)  # as users name files
    repository = repository_of(f"{path.name}{forced}")
    record = json.loads((repository / MARK).read_text(encoding="utf-8"))
    assert (repository / COPY).read_bytes() == content and not (repository / COPY).is_symlink()
    assert record["files"][COPY]["bytes"] == len(content)
    assert str(tmp_path) not in (repository / "glnet_frames" / "config.pbtxt").read_text(encoding="utf-8")
    path.unlink()
    monkeypatch.chdir(tmp_path)
    moved = shutil.move(repository, tmp_path / "moved")
    np.testing.assert_allclose(served_boxes(bundle, moved, monkeypatch), [BOX], atol=1e-4)


def test_what_was_opened_is_what_is_copied(detector, repository_of, monkeypatch):
    """Another file at its path a moment later is not what was looked through."""
    path = detector()
    content, real = path.read_bytes(), onnx_file.OnnxDetector.__init__

    def opened(self, *arguments, **named):
        path.write_bytes(b"another file")
        real(self, *arguments, **named)

    monkeypatch.setattr(onnx_file.OnnxDetector, "__init__", opened)
    assert (repository_of(path) / COPY).read_bytes() == content


def test_a_repositorys_own_copy_will_do_for_the_next(detector, repository_of):
    repository = repository_of(detector())
    before = (repository / COPY).read_bytes()
    assert (repository_of(repository / COPY) / COPY).read_bytes() == before


def no_detector(folder):
    path = folder / "graph.onnx"
    onnx.save(constant_graph({"x": (FLOAT, [1, 3, 64, 64])}, {"y": np.zeros((1, 7), np.float32)}), path)
    return path


def broken(folder):
    path = folder / "broken.onnx"
    path.write_bytes(b"no graph")
    return path


@pytest.mark.parametrize(
    "named, words",
    [
        (lambda folder: folder / "none.onnx", "was not read"),
        (broken, "is not an ONNX file"),
        (no_detector, "is not a detector"),
        (lambda folder: f"{no_detector(folder)}:yolo", "no family of detectors 'yolo'"),
        (lambda folder: "nanodett", "no detector 'nanodett'"),
        (lambda folder: "", "no detector ''"),
    ],
    ids=["missing", "broken", "other graph", "family", "name", "nothing"],
)
def test_one_that_does_not_open_is_refused_before_anything_is_written(repository_of, tmp_path, named, words):
    before = repository_of("none")
    content = {path: path.read_bytes() for path in before.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=words):
        repository_of(named(tmp_path))
    assert {path: path.read_bytes() for path in before.rglob("*") if path.is_file()} == content
    shutil.rmtree(before)
    with pytest.raises(InputError, match=words):
        repository_of(named(tmp_path))
    assert not before.exists()


def test_a_name_that_does_not_open_here_is_refused(repository_of, tmp_path, monkeypatch):
    def fail(threshold, threads):
        raise BackendError("The detector theirs cannot start.")

    monkeypatch.setitem(kinds(), "theirs", DetectorKind("theirs", "a test's", fail))
    with pytest.raises(BackendError, match="theirs cannot start"):
        repository_of("theirs")
    assert not (tmp_path / "repository").exists()


def test_the_command_says_what_the_server_needs_for_it(detector, bundle, tmp_path, monkeypatch):
    def says(detector):
        done = CliRunner().invoke(app, ["triton", str(bundle), "-o", str(tmp_path / "r"), "--detector", str(detector)])
        assert done.exit_code == 0, done.stderr
        return " ".join(done.stderr.split())

    assert "needs ONNX Runtime for the detector" in says(detector())
    assert "for the detector" not in says("none") and "package that offers" not in says("nanodet")
    theirs = dataclasses.replace(kinds()["none"], name="theirs")
    monkeypatch.setitem(kinds(), "theirs", theirs)
    assert "needs the package that offers the detector theirs" in says("theirs")
    refused = CliRunner().invoke(app, ["triton", str(bundle), "-o", str(tmp_path / "n"), "--detector", "none.onnx"])
    assert refused.exit_code == InputError.exit_code and not (tmp_path / "n").exists()
