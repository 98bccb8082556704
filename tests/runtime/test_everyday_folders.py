"""Folders, boxes files and cameras as people have them, through glnet-infer: taken, told of, or refused."""

import json
import shutil
import unicodedata

import cv2
import numpy as np
import pytest
from command_runs import failed, names
from PIL import Image

from glnet_infer import InputError, Meshes
from glnet_infer.recoverer import MeshRecoverer

pytestmark = pytest.mark.usefixtures("plain_output_and_nobodys_files")
BOX = [[10, 20, 100, 190]]


@pytest.fixture
def picture(photograph):
    return cv2.resize(photograph, (300, 200), interpolation=cv2.INTER_AREA)


@pytest.fixture
def folder(tmp_path, picture):
    """Three photographs."""
    path = tmp_path / "photos"
    path.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        cv2.imwrite(str(path / name), picture)
    return path


def plainly(infer, *arguments):
    return infer(*arguments, "-f", "npz", "--detector", "none")


def with_boxes(infer, path, table, *arguments, encoding="utf-8"):
    file = path / "boxes.json"
    file.write_text(table if isinstance(table, str) else json.dumps(table, ensure_ascii=False), encoding=encoding)
    return infer(*arguments, "--boxes-file", file, "-f", "npz")


@pytest.mark.parametrize(
    "suffix, kind", [(".jfif", "JPEG"), (".gif", "GIF"), (".jp2", "JPEG2000"), (".avif", "AVIF"), ("", "PNG")]
)
def test_what_can_be_read_is_taken_from_a_folder(infer, tmp_path, picture, suffix, kind):
    (tmp_path / "photos").mkdir()
    Image.fromarray(picture[..., ::-1]).save(tmp_path / f"photos/only{suffix}", kind)
    result = plainly(infer, tmp_path / "photos")
    assert result.exit_code == 0, result.stderr
    assert names(result) == ["only.npz"] and "Left out" not in result.stderr


def test_what_is_left_out_of_a_folder_is_counted_and_named(infer, folder):
    for name in ("d.HEIC", "notes.txt", "LICENSE"):
        (folder / name).write_text("no image")
    (folder / "sub").mkdir()
    shutil.copy(folder / "a.jpg", folder / "sub/e.jpg")
    result = plainly(infer, folder)
    assert result.exit_code == 0 and names(result) == ["a.npz", "b.npz", "c.npz"]
    assert "4 others: LICENSE, d.HEIC, notes.txt, sub\n" in result.stderr
    document = json.loads(plainly(infer, folder, "--json").stdout)
    assert document["left_out"] == [str(folder / name) for name in ("LICENSE", "d.HEIC", "notes.txt", "sub")]


def test_many_that_are_left_out_are_not_all_named(infer, folder):
    for number in range(9):
        (folder / f"{number}.txt").touch()
    assert "9 others: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ..." in plainly(infer, folder).stderr


def test_hidden_files_and_our_own_overlays_are_left_out_without_a_word(infer, folder):
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    shutil.copy(folder / "a.jpg", folder / ".thumbnail.jpg")
    shutil.copy(folder / "a.jpg", folder / "z.overlay.jpg")
    result = plainly(infer, folder)
    assert result.exit_code == 0 and names(result) == ["a.npz", "b.npz", "c.npz"] and "Left out" not in result.stderr


def test_a_folder_without_images_says_what_is_in_it(infer, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.HEIC").touch()
    failed(plainly(infer, tmp_path / "photos"), InputError, "no images", "a.HEIC", ".avif")


def test_a_picture_of_a_telephone_that_is_named_is_refused_by_its_kind(infer, tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heic")
    failed(plainly(infer, tmp_path / "a.heic"), InputError, "HEIC", "convert it to JPEG")


def test_what_is_said_of_a_picture_is_in_its_entry_too(infer, tmp_path, picture):
    alpha = np.full((200, 300, 1), 255, np.uint8)
    alpha[:50] = 0
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([picture, alpha]))
    result = plainly(infer, tmp_path / "a.png", "--json")
    (entry,) = json.loads(result.stdout)["images"]
    assert entry["warnings"] == ["it is transparent in part, and was laid over grey"]
    assert f"{tmp_path / 'a.png'}: {entry['warnings'][0]}" in result.stderr


def test_a_picture_of_which_nothing_is_to_be_said_has_no_warnings(infer, folder):
    assert [each["warnings"] for each in json.loads(plainly(infer, folder, "--json").stdout)["images"]] == [[], [], []]


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("number", ["7" * 400, '"12"', "true", "null", "[1]", "1e999", "NaN"])
def test_a_number_that_is_none_is_one_pictures_failure(infer, folder, tmp_path, number, as_json):
    table = f'{{"a.jpg": {BOX}, "b.jpg": [[10, 20, 100, {number}]], "c.jpg": {BOX}}}'
    result = with_boxes(infer, tmp_path, table, folder, *as_json)
    failed(result, InputError, "b.jpg")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npz", "c.npz"]
    if as_json:
        assert ["error" in each for each in json.loads(result.stdout)["images"]] == [False, True, False]


def fails_for_one(monkeypatch, method, error, chosen):
    """Make a method of the recoverer fail where its argument is the chosen one."""
    original = getattr(MeshRecoverer, method)

    def failing(self, given, *arguments):
        if chosen(given):
            raise error
        return original(self, given, *arguments)

    monkeypatch.setattr(MeshRecoverer, method, failing)


@pytest.mark.parametrize("error", [ZeroDivisionError("by hand"), MemoryError(), RecursionError("deep"), OSError("odd")])
@pytest.mark.parametrize("method", ["prepare", "recover"])
def test_a_mistake_of_ours_is_one_pictures_failure(infer, folder, tmp_path, monkeypatch, picture, method, error):
    cv2.imwrite(str(folder / "b.jpg"), picture[:150])
    chosen = {
        "prepare": lambda image: image.shape[0] == 150,
        "recover": lambda images: any(each.image_size[1] == 150 for each in images),
    }
    fails_for_one(monkeypatch, method, error, chosen[method])
    result = plainly(infer, folder, "--json")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    document = json.loads(result.stdout)
    assert ["error" in each for each in document["images"]] == [False, True, False]
    assert document["images"][1]["error"]["exit_code"] == 1
    assert type(error).__name__ in document["images"][1]["error"]["why"]
    assert "Traceback" in result.stderr and "not foreseen" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npz", "c.npz"]


def test_a_mistake_of_ours_is_one_videos_failure(infer, tmp_path, rendered_clip, monkeypatch):
    from glnet_infer.commands import videos

    original = videos.open_source

    def failing(name, **options):
        if "first" in name:
            raise ZeroDivisionError("by hand")
        return original(name, **options)

    monkeypatch.setattr(videos, "open_source", failing)
    for name in ("first.mp4", "second.mp4"):
        shutil.copy(rendered_clip / "clip.mp4", tmp_path / name)
    videos_given = [tmp_path / "first.mp4", tmp_path / "second.mp4", "--every", "12"]
    result = infer(*videos_given, "-f", "npz", "--json", "--detector", "none")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["videos"]
    assert "ZeroDivisionError" in first["error"]["why"] and second["frames"] and "Traceback" in result.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("key", ["Käthe.jpg", "photos/Käthe.jpg", "/data/set one/Käthe.jpg", "C:\\pictures\\Käthe.jpg"])
@pytest.mark.parametrize("stored, written", [("NFD", "NFC"), ("NFC", "NFD")])
def test_boxes_are_found_by_the_name_as_people_see_it(infer, tmp_path, picture, stored, written, key, encoding):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / unicodedata.normalize(stored, "Käthe.jpg")), picture)
    table = {unicodedata.normalize(written, key): BOX}
    result = with_boxes(infer, tmp_path, table, tmp_path / "photos", encoding=encoding)
    assert result.exit_code == 0, result.stderr
    (file,) = (tmp_path / "out").iterdir()
    assert Meshes.load(file).boxes.tolist() == BOX


def test_a_name_with_a_backslash_is_found_by_itself(infer, tmp_path, picture):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a\\b.jpg"), picture)
    assert with_boxes(infer, tmp_path, {"a\\b.jpg": BOX}, tmp_path / "photos").exit_code == 0


@pytest.mark.parametrize(
    "table, words",
    [
        ({"gone/d.jpg": BOX}, "'gone/d.jpg', which is not among the images"),
        ({"x/a.jpg": BOX, "y/a.jpg": BOX}, "boxes for 'a.jpg' twice"),
        ({"a.jpg/": BOX}, "not among the images"),
        ({"": BOX}, "not among the images"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_boxes_file_that_does_not_fit_is_refused_at_once(infer, folder, tmp_path, table, words):
    failed(with_boxes(infer, tmp_path, table, folder), InputError, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("camera", ["1.25,1.25,0.5,0.5", "0.8,1.2,0.5,0.5", "29,29,150,100", "300,20,150,100"])
def test_a_camera_in_other_units_is_refused(infer, folder, tmp_path, camera):
    result = plainly(infer, folder / "a.jpg", "--intrinsics", camera)
    failed(result, InputError, "less than a tenth of the image", "give it in pixels")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("camera", ["31,31,150,100", "300,300,-900,4000", "90000,90000,150,100"])
def test_unusual_cameras_are_taken(infer, folder, camera):
    assert plainly(infer, folder / "a.jpg", "--intrinsics", camera).exit_code == 0


@pytest.mark.parametrize("camera", ["1e-300,500,1,1", "500,1e308,1,1", "500,500,1e300,1", "500,500,1,-1e7"])
def test_a_camera_beyond_all_cameras_is_refused(infer, folder, camera):
    failed(plainly(infer, folder / "a.jpg", "--intrinsics", camera), InputError, "camera is not valid")


def test_persons_behind_the_camera_are_said(infer, folder, monkeypatch):
    original = MeshRecoverer.recover

    def nearer(self, images):
        found = original(self, images)
        for meshes in found:
            meshes.vertices[..., 2] -= meshes.vertices[..., 2].max() + 0.1
        return found

    monkeypatch.setattr(MeshRecoverer, "recover", nearer)
    result = plainly(infer, folder / "a.jpg", "--json")
    (entry,) = json.loads(result.stdout)["images"]
    assert entry["warnings"] == ["1 of 1 persons reach behind the camera: its focal length may be in other units"]


def test_a_closed_recoverer_answers_nobody(shared_bundle, picture):
    from glnet_infer import BackendError

    recoverer = MeshRecoverer(shared_bundle, "onnxruntime-cpu")
    recoverer.close()
    for boxes in ([], BOX):
        with pytest.raises(BackendError, match="closed"):
            recoverer(picture, boxes)


@pytest.mark.parametrize("options", [{"threads": True}, {"batch_size": True}, {"threads": 1.0}, {"batch_size": "2"}])
def test_counts_that_are_no_whole_numbers_are_refused(shared_bundle, options):
    with pytest.raises(InputError, match=next(iter(options))):
        MeshRecoverer(shared_bundle, **options)


def test_no_bundle_at_all_is_refused_in_words():
    from glnet_infer import BundleError

    with pytest.raises(BundleError, match="NoneType"):
        MeshRecoverer(None)


def test_an_image_view_of_endless_height_is_refused(recoverer):
    row = np.zeros((1, 4, 3), np.uint8)
    with pytest.raises(InputError, match="sides of at most"):
        recoverer(np.broadcast_to(row, (1 << 31, 4, 3)), [[0, 0, 4, 4]])
