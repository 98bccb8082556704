"""glnet-infer: files, streams and exit codes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from command_runs import failed, names, written
from detector_graphs import FLOAT, constant_graph
from rendered_crowds import overlaps
from typer.testing import CliRunner

from glnet_infer import BackendError, BundleError, GlnetError, InputError, Meshes, OutputError, errors
from glnet_infer.commands import photographs as batch
from glnet_infer.commands.infer import app as infer_app

PHOTO = Path(__file__).parents[2] / "examples/person.jpg"
BOXES = ["--boxes", "639,30,955,736", "--boxes", "313,25,577,567"]


pytestmark = pytest.mark.usefixtures("plain_output_and_nobodys_files")


@pytest.fixture
def folder(tmp_path, photograph):
    """Two small photographs and a file of another kind."""
    path = tmp_path / "photos"
    path.mkdir()
    small = cv2.resize(photograph, (300, 200), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path / "b.png"), small)
    cv2.imwrite(str(path / "a.JPG"), small[:, ::-1])
    (path / "notes.txt").write_text("no image")
    return path


def test_two_persons_give_an_overlay_a_mesh_file_and_arrays(infer, tmp_path, photograph):
    result = infer(PHOTO, *BOXES)
    assert result.exit_code == 0, result.stderr
    files = [tmp_path / "out" / name for name in ("person.overlay.jpg", "person.glb", "person.npz")]
    assert result.stdout.splitlines() == [str(file) for file in files]
    assert written(tmp_path) == sorted(file.name for file in files)
    overlay = cv2.imread(str(files[0]))
    assert overlay.shape == photograph.shape
    assert len(trimesh.load(files[1], force="scene").geometry) == 2
    meshes = Meshes.load(files[2])
    assert meshes.boxes.tolist() == [[639, 30, 955, 736], [313, 25, 577, 567]]
    assert meshes.image_size == (1200, 800) and meshes.intrinsics.fx == pytest.approx(np.hypot(1200, 800))


def test_arrays_are_those_of_the_library(infer, tmp_path, recoverer, photograph, person_boxes):
    assert infer(PHOTO, *BOXES, "-f", "npz", "--intrinsics", "900,950,610,390").exit_code == 0
    expected = recoverer(photograph, person_boxes, [[900, 0, 610], [0, 950, 390], [0, 0, 1]])
    found = Meshes.load(tmp_path / "out/person.npz")
    assert found.intrinsics == expected.intrinsics
    assert np.array_equal(found.vertices, expected.vertices)


def test_talk_goes_to_stderr_and_names_the_backend(infer):
    result = infer(PHOTO, "-f", "npz")
    assert "backend='onnxruntime-cpu'" in result.stderr
    assert names(result) == ["person.npz"]


def test_random_weights_are_admitted_on_stderr(infer, bundle):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"weights": "checkpoint"', '"weights": "random"'))
    assert "random" in infer(PHOTO, "-f", "npz", bundle=bundle).stderr


def test_every_format_is_written(infer, tmp_path):
    options = [part for name in ("overlay", "glb", "obj", "ply", "npz", "json") for part in ("-f", name)]
    result = infer(PHOTO, *options, *BOXES[:2])
    assert names(result) == [f"person.{suffix}" for suffix in ("overlay.jpg", "glb", "obj", "ply", "npz", "json")]
    assert len(json.loads((tmp_path / "out/person.json").read_text())["persons"]) == 1


def test_a_folders_images_are_done_in_order(infer, folder, tmp_path):
    result = infer(folder, "-f", "npz", "--detector", "none")
    assert result.exit_code == 0, result.stderr
    assert names(result) == ["a.npz", "b.npz"] and written(tmp_path) == ["a.npz", "b.npz"]
    assert Meshes.load(tmp_path / "out/a.npz").boxes.tolist() == [[0, 0, 300, 200]]


def test_threads_beside_the_network_change_neither_files_nor_what_is_said(infer, folder, tmp_path, photograph):
    """More photographs than are looked at ahead, of which one is broken, one empty and one cannot be written."""
    for number in range(6):
        cv2.imwrite(str(folder / f"c{number}.jpg"), cv2.resize(photograph[20 * number :], (300, 200)))
    (folder / "c1.jpg").write_bytes((folder / "c2.jpg").read_bytes()[:300])
    cv2.imwrite(str(folder / "c3.jpg"), np.full((200, 300, 3), 114, np.uint8))
    found = []
    for threads in (1, 3):
        (tmp_path / "out/c4.npz").mkdir(parents=True)  # in the way of a file
        result = infer(folder, "--threads", str(threads), "-f", "overlay", "-f", "npz")
        found.append((result.exit_code, result.stdout, result.stderr, written(tmp_path)))
        shutil.rmtree(tmp_path / "out/c4.npz")
        found[-1] += ([path.read_bytes() for path in sorted((tmp_path / "out").iterdir())],)
        shutil.rmtree(tmp_path / "out")
    assert found[0] == found[1]
    code, listed, said, files, _ = found[0]
    assert code and len(files) == len(listed.splitlines()) + 1 == 14
    assert all(text in said for text in ("c1.jpg:\n", "c3.jpg: nobody was found", "c4.jpg:\n"))


def test_boxes_file_gives_each_image_its_persons(infer, folder, tmp_path):
    table = tmp_path / "boxes.json"
    table.write_text(json.dumps({"a.JPG": [[10, 20, 100, 190], [150, 5, 290, 180]]}))
    result = infer(folder, "--boxes-file", table, "-f", "npz")
    assert result.exit_code == 0, result.stderr
    assert Meshes.load(tmp_path / "out/a.npz").boxes.tolist() == [[10, 20, 100, 190], [150, 5, 290, 180]]
    assert len(Meshes.load(tmp_path / "out/b.npz")) == 0  # not in the table: nobody there


def test_persons_are_found(infer, tmp_path):
    result = infer(PHOTO, "-f", "npz", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    (entry,) = document["images"]
    assert document["detector"] == "nanodet" and entry["persons"] == 2
    assert (overlaps([[639, 30, 955, 736], [313, 25, 577, 567]], entry["boxes"]).max(1) >= 0.9).all()
    assert len(entry["scores"]) == 2 and 1 > entry["scores"][0] > entry["scores"][1] > 0.4
    assert Meshes.load(tmp_path / "out/person.npz").boxes.tolist() == entry["boxes"]


@pytest.mark.parametrize("options", [["--detector-threshold", "0.8"], ["--max-persons", "1"]])
def test_fewer_persons_are_taken_where_that_is_asked(infer, options):
    entry = json.loads(infer(PHOTO, "-f", "npz", "--json", *options).stdout)["images"][0]
    assert entry["persons"] == 1 and entry["scores"][0] > 0.8


def test_nobody_found_is_said_and_no_failure(infer, folder, tmp_path):
    cv2.imwrite(str(folder / "aa.png"), np.full((200, 300, 3), 114, np.uint8))
    formats = [part for name in ("overlay", "glb", "obj", "ply", "npz", "json") for part in ("-f", name)]
    result = infer(folder / "aa.png", *formats, "--json")
    assert result.exit_code == 0 and "aa.png: nobody was found" in result.stderr
    (entry,) = json.loads(result.stdout)["images"]
    assert entry["persons"] == 0 and entry["boxes"] == entry["scores"] == [] and len(entry["files"]) == 6
    assert len(Meshes.load(tmp_path / "out/aa.npz")) == 0
    assert names(infer(folder, "-f", "npz")) == ["a.npz", "aa.npz", "b.npz"]


@pytest.mark.parametrize("as_file", [False, True])
def test_boxes_that_are_given_need_no_detector(infer, tmp_path, monkeypatch, as_file):
    monkeypatch.setattr(batch, "open_detector", lambda *_, **__: pytest.fail("a detector was opened"))
    (tmp_path / "boxes.json").write_text(json.dumps({PHOTO.name: [[639, 30, 955, 736]]}))
    options = ["--boxes-file", tmp_path / "boxes.json"] if as_file else BOXES[:2]
    document = json.loads(infer(PHOTO, *options, "-f", "npz", "--json").stdout)
    assert document["detector"] is None and document["images"][0]["scores"] is None
    assert document["images"][0]["boxes"] == [[639, 30, 955, 736]]


@pytest.mark.parametrize(
    "options, words",
    [
        ([*BOXES, "--detector", "nanodet"], ("--boxes", "--detector")),
        ([*BOXES, "--max-persons", "1"], ("--boxes", "--max-persons")),
        (["--boxes-file", "x.json", "--detector-threshold", "0.5"], ("--boxes-file", "--detector-threshold")),
        (["--detector", "none", "--detector-threshold", "0.5"], ("--detector-threshold", "--detector none")),
        (["--detector", "none", "--max-persons", "2"], ("--max-persons", "--detector none")),
        (["--detector", "yolo"], ("There is no detector 'yolo'", "nanodet")),
        (["--detector", "nothing.onnx"], ("nothing.onnx", "was not read")),
    ],
)
def test_options_of_detection_that_do_not_fit(infer, tmp_path, options, words):
    failed(infer(PHOTO, *options), InputError, *words)
    assert not (tmp_path / "out").exists()


def test_a_detector_of_ones_own(infer, tmp_path):
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [0, 107, 320, 533, 0.75, 0]  # the left half of a 3:2 picture in a square of 640
    model = constant_graph({"images": (FLOAT, [1, 3, 640, 640])}, {"output0": rows})
    (tmp_path / "mine.onnx").write_bytes(model.SerializeToString())
    document = json.loads(infer(PHOTO, "--detector", tmp_path / "mine.onnx", "-f", "npz", "--json").stdout)
    (entry,) = document["images"]
    assert document["detector"] == str(tmp_path / "mine.onnx") and entry["scores"] == [0.75]
    assert np.abs(np.subtract(entry["boxes"], [[0, 0, 600, 800]])).max() < 2  # px: a pixel of the square has 1.9


def test_json_on_stdout_lists_what_was_written(infer, shared_bundle, tmp_path):
    result = infer(PHOTO, *BOXES, "--json")
    document = json.loads(result.stdout)
    assert document["bundle"] == str(shared_bundle) and document["backend"] == "onnxruntime-cpu"
    (entry,) = document["images"]
    assert entry["image"] == str(PHOTO) and entry["persons"] == 2 and len(entry["confidence"]) == 2
    assert [Path(file).name for file in entry["files"]] == ["person.overlay.jpg", "person.glb", "person.npz"]
    assert all(Path(file).is_file() for file in entry["files"])


def test_a_broken_image_does_not_stop_the_others(infer, folder, tmp_path):
    (folder / "aa.png").write_bytes(b"\x89PNG but no more")
    result = infer(folder, "-f", "npz")
    failed(result, InputError, "aa.png", "is not an image", "what to do")
    assert names(result) == ["a.npz", "b.npz"] and written(tmp_path) == ["a.npz", "b.npz"]


def test_a_broken_image_is_in_the_json_document_too(infer, folder):
    (folder / "aa.png").write_bytes(b"")
    result = infer(folder, "-f", "npz", "--json")
    failed(result, InputError)
    document = json.loads(result.stdout)
    first, broken, last = document["images"]
    assert broken["image"].endswith("aa.png") and "files" not in broken
    assert broken["error"]["kind"] == "InputError" and broken["error"]["exit_code"] == 3 and broken["error"]["fix"]
    assert first["files"] and last["files"]


def test_files_that_were_written_before_one_failed_are_listed(infer, tmp_path):
    arguments = (PHOTO, "-f", "npz", "-f", "glb", "-f", "obj")
    folder = tmp_path / "in-the-way"
    (folder / PHOTO.with_suffix(".glb").name).mkdir(parents=True)
    result = infer(*arguments, output=folder)
    failed(result, OutputError, ".glb")
    assert names(result) == [PHOTO.with_suffix(".npz").name]
    (entry,) = json.loads(infer(*arguments, "--json", output=folder).stdout)["images"]
    assert [Path(file).suffix for file in entry["files"]] == [".npz"] and entry["error"]["kind"] == "OutputError"


def test_a_reader_who_has_read_enough_costs_no_file(infer, tmp_path, monkeypatch):
    def gone(_):
        raise BrokenPipeError

    monkeypatch.setattr(batch, "print_result", gone)
    infer(PHOTO, "-f", "npz", "-f", "obj")
    assert written(tmp_path) == [PHOTO.with_suffix(suffix).name for suffix in (".npz", ".obj")]


def test_boxes_outside_one_image_do_not_stop_the_others(infer, folder, tmp_path):
    table = tmp_path / "boxes.json"
    table.write_text(json.dumps({"a.JPG": [[900, 900, 1000, 1000]], "b.png": [[0, 0, 50, 60]]}))
    failed(infer(folder, "--boxes-file", table, "-f", "npz"), InputError, "a.JPG", "outside the 300 x 200 image")
    assert written(tmp_path) == ["b.npz"]


@pytest.mark.parametrize("backend", ["tensorflow", "onnxruntime"])
def test_unknown_backend(infer, backend):
    failed(infer(PHOTO, backend=backend), BackendError, repr(backend), "onnxruntime-cpu")


def test_missing_bundle(infer, tmp_path):
    failed(infer(PHOTO, bundle=tmp_path / "nowhere"), BundleError, "nowhere is not a bundle", "glnet-export")


def test_damaged_bundle_is_reported_as_json_too(infer, bundle):
    (bundle / "model.onnx").write_bytes(b"short")
    result = infer(PHOTO, "--json", bundle=bundle)
    failed(result, BundleError, "model.onnx")
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "BundleError" and error["exit_code"] == 4 and error["what"] and error["why"] and error["fix"]


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_output_that_cannot_be_a_directory(infer, tmp_path, where):
    (tmp_path / "file").write_text("in the way")
    failed(infer(PHOTO, output=tmp_path / where), OutputError, str(tmp_path / where), "-o")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_result_that_cannot_be_written_does_not_stop_other_images(infer, folder, tmp_path):
    (tmp_path / "out/a.npz").mkdir(parents=True)
    result = infer(folder, "-f", "npz")
    failed(result, OutputError, "a.npz")
    assert names(result) == ["b.npz"]


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "left,2,3,4", "", "1 2 3 4", "1;2;3;4"])
def test_boxes_that_are_no_four_numbers(infer, text):
    failed(infer(PHOTO, "--boxes", text), InputError, repr(text), "x1,y1,x2,y2")


@pytest.mark.parametrize("text", ["1,2,3", "f,2,3,4", "0,500,1,1", "nan,500,1,1"])
def test_intrinsics_that_are_no_camera(infer, text):
    failed(infer(PHOTO, "--intrinsics", text), InputError, "camera")


def test_boxes_twice(infer, tmp_path):
    (tmp_path / "boxes.json").write_text("{}")
    failed(infer(PHOTO, *BOXES, "--boxes-file", tmp_path / "boxes.json"), InputError, "--boxes", "--boxes-file")


def test_boxes_for_several_images(infer, folder):
    failed(infer(folder, *BOXES), InputError, "2 images", "--boxes-file")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"{", "was not read"),
        (b"\xff\xfe", "was not read"),
        (b"[[1, 2, 3, 4]]", "by file name"),
        (b'{"stranger.jpg": []}', "stranger.jpg"),
        (b'{"person.jpg": [1, 2, 3, 4]}', "(4,)"),
        (b'{"person.jpg": [["a", 2, 3, 4]]}', "not numbers"),
        (b'{"person.jpg": "1,2,3,4"}', "not numbers"),
    ],
)
def test_boxes_file_of_another_form(infer, tmp_path, content, words):
    (tmp_path / "boxes.json").write_bytes(content)
    failed(infer(PHOTO, "--boxes-file", tmp_path / "boxes.json"), InputError, words)


def test_missing_boxes_file(infer, tmp_path):
    failed(infer(PHOTO, "--boxes-file", tmp_path / "nothing.json"), InputError, "nothing.json")


def test_missing_image(infer):
    failed(infer("nothing.jpg"), InputError, "nothing.jpg")


def test_folder_without_images(infer, tmp_path):
    (tmp_path / "empty").mkdir()
    failed(infer(tmp_path / "empty"), InputError, "no images", ".jpg")


def test_unknown_format(infer, tmp_path):
    failed(infer(PHOTO, "-f", "fbx"), InputError, "'fbx'", "glb")
    assert not (tmp_path / "out").exists()


def test_images_whose_results_would_collide(infer, folder, tmp_path):
    shutil.copy(folder / "b.png", folder / "a.png")
    failed(infer(folder), InputError, "a.JPG", "a.png", "same files")
    assert not (tmp_path / "out").exists()
    assert len(names(infer(PHOTO, PHOTO))) == 3  # given twice, done once


def test_bundle_from_the_environment(shared_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("GLNET_BUNDLE", str(shared_bundle))
    result = CliRunner().invoke(infer_app, [str(PHOTO), "-o", str(tmp_path / "out"), "-f", "json"])
    assert result.exit_code == 0 and names(result) == ["person.json"]


@pytest.mark.parametrize("arguments", [[], ["photo.jpg"], ["photo.jpg", "-b", "x", "--threads", "0"], ["--nonsense"]])
def test_usage_errors_are_exit_code_2(arguments):
    result = CliRunner().invoke(infer_app, arguments)
    assert result.exit_code == 2 and not result.stdout and result.stderr


def test_the_installed_command_writes_only_results_to_stdout(shared_bundle, tmp_path):
    command = Path(sys.executable).with_name("glnet-infer")
    arguments = [PHOTO, tmp_path / "broken.jpg", "-b", shared_bundle, "-o", tmp_path / "out", "-f", "npz"]
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    result = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 3
    assert result.stdout == f"{tmp_path / 'out/person.npz'}\n"
    assert "broken.jpg is not an image" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["glnet-infer", "glnet-doctor"])
def test_installed_commands_explain_themselves(command):
    result = subprocess.run([Path(sys.executable).with_name(command), "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "Usage" in result.stdout and "--json" in result.stdout


def test_exit_codes_are_stable_and_their_own():
    codes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, GlnetError) and kind is not GlnetError
    }
    assert codes == {
        "InputError": 3,
        "BundleError": 4,
        "CheckpointError": 5,
        "BodyError": 6,
        "ExportError": 7,
        "BackendError": 8,
        "OutputError": 9,
        "TrainingError": 10,
    }
