"""Written files, read back by trimesh (an independent reader) and by hand."""

import errno
import json
import os
import struct
import sys
from functools import partial

import numpy as np
import pytest
import trimesh

from glnet_infer import files
from glnet_infer.errors import InputError, OutputError
from glnet_infer.image_files import check_image_path, read_image, write_image
from glnet_infer.results.formats import write_glb, write_json, write_npz, write_obj, write_ply

SPHERE = trimesh.creation.icosphere(subdivisions=2)
FACES = np.asarray(SPHERE.faces, np.int64)
# Two persons in the camera's frame: y down, z forward.
VERTICES = np.stack([SPHERE.vertices * 0.5 + (0.3, -0.2, 3.0), SPHERE.vertices * 0.4 + (-0.7, 0.1, 4.0)]).astype(np.float32)
EXPECTED = VERTICES * np.array([1, -1, -1], np.float32)
NONE = np.zeros((0, len(SPHERE.vertices), 3), np.float32)

WRITERS = {
    "obj": partial(write_obj, vertices=VERTICES, faces=FACES),
    "ply": partial(write_ply, vertices=VERTICES, faces=FACES),
    "glb": partial(write_glb, vertices=VERTICES, faces=FACES),
    "npz": partial(write_npz, arrays={"vertices": VERTICES}),
    "json": partial(write_json, document={"a": 1}),
}
every_writer = pytest.mark.parametrize("kind", WRITERS)


def glb_chunks(path):
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    chunks, at = [], 12
    while at < len(data):
        size, kind = struct.unpack("<I4s", data[at : at + 8])
        assert size % 4 == 0
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    assert at == len(data)
    return chunks


def accessor(document, binary, index):
    entry = document["accessors"][index]
    view = document["bufferViews"][entry["bufferView"]]
    assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(binary)
    dtype = {5126: "<f4", 5125: "<u4"}[entry["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3}[entry["type"]]
    array = np.frombuffer(binary, dtype, entry["count"] * width, view["byteOffset"]).reshape(-1, width)
    assert array.nbytes == view["byteLength"]
    return array, entry


def test_obj(tmp_path):
    path = tmp_path / "two.obj"
    write_obj(path, VERTICES, FACES)
    sections = path.read_text().split("o person_")[1:]
    for i, section in enumerate(sections):
        kinds = [line.partition(" ")[0] for line in section.splitlines()[1:]]
        assert section.startswith(f"{i}\n")
        assert (kinds.count("v"), kinds.count("f")) == (VERTICES.shape[1], len(FACES))
    assert len(sections) == 2
    mesh = trimesh.load(path, process=False, force="mesh")
    # Readers may renumber vertices; the triangles' corners, in order, are the mesh.
    assert np.abs(mesh.triangles - EXPECTED[:, FACES].reshape(-1, 3, 3)).max() <= 1e-6
    assert mesh.volume > 0


def test_ply(tmp_path):
    path = tmp_path / "two.ply"
    write_ply(path, VERTICES, FACES)
    mesh = trimesh.load(path, process=False)
    assert np.array_equal(mesh.vertices.astype(np.float32), EXPECTED.reshape(-1, 3))
    assert np.array_equal(mesh.faces, np.concatenate([FACES, FACES + VERTICES.shape[1]]))
    person = mesh.metadata["_ply_raw"]["vertex"]["data"]["person"]
    assert np.array_equal(np.ravel(person), np.repeat([0, 1], VERTICES.shape[1]))
    assert mesh.volume > 0


def test_glb(tmp_path):
    path = tmp_path / "two.glb"
    write_glb(path, VERTICES, FACES)
    scene = trimesh.load(path, process=False)
    assert sorted(scene.geometry) == ["person_0", "person_1"]
    assert sorted(scene.graph.nodes_geometry) == ["person_0", "person_1"]
    for i in range(2):
        mesh = scene.geometry[f"person_{i}"]
        assert np.array_equal(mesh.vertices.astype(np.float32), EXPECTED[i])
        assert np.array_equal(mesh.faces, FACES)
        assert mesh.volume > 0
        assert not mesh.visual.material.doubleSided


def test_glb_structure(tmp_path):
    path = tmp_path / "two.glb"
    write_glb(path, VERTICES, FACES)
    (json_kind, text), (bin_kind, binary) = glb_chunks(path)
    assert (json_kind, bin_kind) == (b"JSON", b"BIN\0")
    document = json.loads(text)
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"] == [{"byteLength": len(binary)}]
    assert [node["name"] for node in document["nodes"]] == ["person_0", "person_1"]
    assert document["scenes"][document["scene"]]["nodes"] == [0, 1]
    primitives = [mesh["primitives"][0] for mesh in document["meshes"]]
    assert len({primitive["indices"] for primitive in primitives}) == 1  # shared
    assert len(document["accessors"]) == 5
    indices, _ = accessor(document, binary, primitives[0]["indices"])
    assert indices.dtype == np.uint32 and np.array_equal(indices.reshape(-1, 3), FACES)
    for i, primitive in enumerate(primitives):
        position, entry = accessor(document, binary, primitive["attributes"]["POSITION"])
        assert np.array_equal(np.float32(entry["min"]), position.min(axis=0))
        assert np.array_equal(np.float32(entry["max"]), position.max(axis=0))
        normal, _ = accessor(document, binary, primitive["attributes"]["NORMAL"])
        assert np.linalg.norm(normal, axis=1) == pytest.approx(1.0, abs=1e-5)
        outward = position - position.mean(axis=0)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        assert (normal * outward).sum(axis=1).min() > 0.99
        material = document["materials"][primitive["material"]]
        assert material["doubleSided"] is False
        assert all(0 < value <= 1 for value in material["pbrMetallicRoughness"]["baseColorFactor"])
        assert primitive["material"] == i


def test_glb_with_more_persons_than_colours(tmp_path):
    path = tmp_path / "many.glb"
    write_glb(path, np.repeat(VERTICES[:1], 11, axis=0), FACES)
    scene = trimesh.load(path, process=False)
    assert len(scene.geometry) == 11


@pytest.mark.parametrize("writer", [write_obj, write_ply, write_glb])
def test_axes_are_gltf_s(tmp_path, writer):
    # A point to the right of, above and in front of the camera: x > 0, y < 0, z > 0 in the camera's frame.
    path = tmp_path / f"axes.{writer.__name__.removeprefix('write_')}"
    corner = np.array([[[1.0, -2.0, 3.0], [1.0, -2.1, 3.0], [1.1, -2.0, 3.0]]])
    writer(path, corner, np.array([[0, 1, 2]]))
    first = trimesh.load(path, process=False, force="mesh").triangles[0, 0]
    assert first == pytest.approx([1.0, 2.0, -3.0], abs=1e-6)


def test_no_person_gives_valid_files(tmp_path):
    write_obj(tmp_path / "none.obj", NONE, FACES)
    assert not [line for line in (tmp_path / "none.obj").read_text().splitlines() if line[:2] in ("o ", "v ", "f ")]
    write_ply(tmp_path / "none.ply", NONE, FACES)
    header = (tmp_path / "none.ply").read_bytes()
    assert b"element vertex 0\n" in header and b"element face 0\n" in header and header.endswith(b"end_header\n")
    write_glb(tmp_path / "none.glb", NONE, FACES)
    ((kind, text),) = glb_chunks(tmp_path / "none.glb")
    assert kind == b"JSON"
    document = json.loads(text)
    # The specification allows no empty list.
    assert document == {"asset": document["asset"], "scene": 0, "scenes": [{}]}


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (VERTICES[0], FACES),
        (VERTICES, FACES.ravel()),
        (VERTICES, FACES + len(SPHERE.vertices)),
        (VERTICES, FACES - 1),
        (VERTICES, FACES[:0]),
        (VERTICES, FACES.astype(float)),
        (VERTICES * np.float32(np.nan), FACES),
    ],
)
@pytest.mark.parametrize("writer", [write_obj, write_ply, write_glb])
def test_bad_meshes_are_refused(tmp_path, writer, vertices, faces):
    with pytest.raises(InputError):
        writer(tmp_path / "bad", vertices, faces)
    assert not list(tmp_path.iterdir())


def test_npz_round_trip(tmp_path):
    # "file" is what numpy.savez itself would trip over.
    arrays = {
        "vertices": VERTICES,
        "file": np.arange(3),
        "empty": np.zeros((0, 24, 3, 3)),
        "name": np.array("smpl"),
        "s": 2.5,
    }
    write_npz(tmp_path / "a.npz", arrays)
    write_npz(tmp_path / "b.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert sorted(loaded.files) == sorted(arrays)
        for name, array in arrays.items():
            assert loaded[name].dtype == np.asarray(array).dtype and np.array_equal(loaded[name], array)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(InputError):
        write_npz(tmp_path / "c.npz", {"x": np.array([None])})
    assert not (tmp_path / "c.npz").exists()


def test_json_round_trip(tmp_path):
    document = {"name": "Jörg", "boxes": [[1, 2.5, 3, 4]], "none": None}
    write_json(tmp_path / "a.json", document)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == document
    write_json(tmp_path / "b.json", {"v": np.float32([[0.5, 1.0]]), "n": np.int64(3)})
    assert json.loads((tmp_path / "b.json").read_text()) == {"v": [[0.5, 1.0]], "n": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.array([np.nan]), np.float32("nan"), object(), {1, 2}])
def test_json_refuses_what_json_does_not_have(tmp_path, value):
    with pytest.raises(InputError):
        write_json(tmp_path / "a.json", {"x": [value]})
    assert not list(tmp_path.iterdir())


@every_writer
def test_writes_and_replaces_and_leaves_nothing_else(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_text("old")
    WRITERS[kind](str(path))
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


@every_writer
@pytest.mark.parametrize("parent", ["missing", "a-file"])
def test_no_such_directory(tmp_path, kind, parent):
    (tmp_path / "a-file").write_text("kept")
    with pytest.raises(OutputError) as caught:
        WRITERS[kind](tmp_path / parent / "out")
    assert str(tmp_path / parent) in str(caught.value)
    assert caught.value.why and caught.value.fix
    assert [entry.name for entry in tmp_path.iterdir()] == ["a-file"]
    assert (tmp_path / "a-file").read_text() == "kept"


@every_writer
def test_a_directory_that_takes_no_files_is_not_called_missing(tmp_path, kind, monkeypatch):
    """/proc says of every new file that it is not there."""

    def refuse(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(files, "claimed_file", refuse)
    with pytest.raises(OutputError) as caught:
        WRITERS[kind](tmp_path / "out")
    assert "does not exist" not in caught.value.why and "mkdir" not in caught.value.fix


def test_a_picture_that_cannot_be_written_is_known_before_it_is_made(tmp_path, monkeypatch):
    check_image_path(tmp_path / "sheet.png")
    for path in (tmp_path / "missing/sheet.png", tmp_path / "sheet.foo"):
        with pytest.raises(OutputError):
            check_image_path(path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path or mode != os.W_OK)
    with pytest.raises(OutputError, match="nothing can be written"):
        check_image_path(tmp_path / "sheet.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", [b"a.p\xffng", b"a.\xff", b"\xfe.png"])
def test_a_picture_may_have_a_name_that_is_no_text_and_its_suffix_may_not(tmp_path, name):
    path, image = tmp_path / os.fsdecode(name), np.zeros((4, 4, 3), np.uint8)  # OpenCV crashes on such text
    if path.suffix == ".png":
        check_image_path(path)
        write_image(path, image)
        assert read_image(path).shape == image.shape
        return
    for write in (check_image_path, lambda path: write_image(path, image)):
        with pytest.raises(OutputError, match="no image format"):
            write(path)
    assert not list(tmp_path.iterdir())


@every_writer
def test_target_is_a_directory(tmp_path, kind):
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(OutputError, match="directory"):
        WRITERS[kind](target)
    assert list(tmp_path.iterdir()) == [target] and not list(target.iterdir())


@every_writer
@pytest.mark.parametrize("stage", ["write", "rename"])
def test_failure_half_way_keeps_the_old_file(tmp_path, kind, stage, monkeypatch):
    path = tmp_path / "out"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if stage == "rename":
        monkeypatch.setattr(type(path), "replace", full)
    else:
        make = files.claimed_file

        def open_then_fail(path):
            file = make(path)
            file.write(b"half")
            file.close()
            return Broken()

        class Broken:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

            def __getattr__(self, _):
                return full

        monkeypatch.setattr(files, "claimed_file", open_then_fail)
    with pytest.raises(OutputError, match="No space left") as caught:
        WRITERS[kind](path)
    monkeypatch.undo()
    assert "space" in caught.value.fix
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_umask_and_links_are_respected(tmp_path):
    previous = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(previous)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "a.json")
    write_json(link, {"new": 1})
    assert link.is_symlink() and json.loads((tmp_path / "a.json").read_text()) == {"new": 1}
    with pytest.raises(OutputError):
        write_json("/dev/null", {})
