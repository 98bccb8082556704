"""Motions and skins saved and loaded, and files of strangers refused."""

import contextlib
import dataclasses
import io
import json
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest

from glnet_infer import InputError, OutputError
from glnet_infer.archives import LONGEST_TEXT
from glnet_infer.results import motion_files
from glnet_infer.results.formats import write_npz
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import COLUMNS, RAW
from glnet_infer.results.skin import Skin


@pytest.fixture(scope="module")
def smoothed(motion):
    """With raw columns, a name that is not ASCII, and a camera with long decimals."""
    poses = {name: getattr(motion, name) for name in ("rotations", "betas", "translation")}
    moved = motion.smoothed("a tenth of a metre to the right, café", **poses | {"translation": poses["translation"] + 0.1})
    return dataclasses.replace(moved, rate=30000 / 1001)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".NPZ"])
@pytest.mark.parametrize("kind", ["plain", "smoothed", "empty"])
def test_what_is_saved_is_loaded(motion, smoothed, tmp_path, suffix, kind):
    given = {"plain": motion, "smoothed": smoothed, "empty": motion.of(99)}[kind]
    (path,) = given.save(tmp_path / f"clip{suffix}")
    loaded = Motion.load(path)
    for field in dataclasses.fields(Motion):
        expected, found = getattr(given, field.name), getattr(loaded, field.name)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype and np.array_equal(found, expected), field.name
        else:
            assert found == expected, field.name
    assert path.read_bytes() == loaded.save(tmp_path / f"again{suffix}")[0].read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_names_that_are_no_text_or_very_long_are_read_back(motion, tmp_path, suffix):
    # The body is named after its file, whose name is any bytes; a manifest may hold any text.
    given = dataclasses.replace(motion, body=os.fsdecode(b"Stra\xdfe"), bundle="n\ud800", backend="x" * 10_000)
    loaded = Motion.load(given.save(tmp_path / f"clip{suffix}")[0])
    assert np.array_equal(loaded.rotations, motion.rotations) and loaded.backend == "x" * LONGEST_TEXT
    if suffix == ".npz":
        assert (loaded.body, loaded.bundle) == (r"Stra\udcdfe", r"n\ud800")


def test_json_says_what_numbers_are(smoothed, tmp_path):
    (path,) = smoothed.save(tmp_path / "clip.json")
    document = json.loads(path.read_text())
    assert (document["kind"], document["version"], document["image_size"]) == ("motion", 1, [640, 480])
    assert document["frames"][1] == [1, 0.04] and len(document["joint_names"]) == 29
    row = document["rows"][5]
    assert set(row) == {*COLUMNS, "raw"} and {f"raw_{name}" for name in row["raw"]} == set(RAW)
    assert row["status"] in ("observed", "low confidence")


def test_text_that_would_not_be_read_back_is_not_written(motion, tmp_path, monkeypatch):
    monkeypatch.setattr(motion_files, "LARGEST_JSON", 100_000)
    with pytest.raises(OutputError, match=r"save it as \.npz"):
        motion.save(tmp_path / "clip.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["clip.fbx", "clip", ".npz", ".amass.npz", "clip.html"])
def test_an_unknown_suffix_lists_the_known_ones(motion, tmp_path, name):
    with pytest.raises(OutputError) as error:
        motion.save(tmp_path / name)
    assert all(suffix in error.value.fix for suffix in (".npz", ".json", ".glb", ".bvh", ".amass.npz", ".html"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".npz", ".json", ".glb", ".bvh", ".amass.npz"])
def test_a_file_that_cannot_be_written_is_said(motion, skin, tmp_path, suffix):
    with pytest.raises(OutputError, match="no directory"):
        motion.of(1).save(tmp_path / "gone" / f"clip{suffix}", skin=skin)


# Files of strangers


def saved_arrays(motion, tmp_path):
    (path,) = motion.save(tmp_path / "good.npz")
    with np.load(path) as archive:
        return dict(archive)


ARRAYS = {
    "missing": (lambda a: a.pop("betas"), "lacks betas"),
    "shape": (lambda a: a.update(betas=a["betas"][:, :9]), "betas is"),
    "rows": (lambda a: a.update(betas=a["betas"][:-1]), "betas is"),
    "type": (lambda a: a.update(betas=a["betas"].astype(np.float64)), "float64, not float32"),
    "nan": (lambda a: a.update(betas=a["betas"] * np.float32(np.nan)), "NaN"),
    "huge": (lambda a: a.update(translation=a["translation"] + np.float32(1e30)), "beyond"),
    "version": (lambda a: a.update(version=np.asarray(2)), "version 2"),
    "kind": (lambda a: a.update(kind=np.asarray("meshes")), "'meshes'"),
    "camera": (lambda a: a.update(intrinsics=-a["intrinsics"]), "camera"),
    "text": (lambda a: a.update(backend=np.asarray(7)), "not text"),
    "long text": (lambda a: a.update(backend=np.asarray("x" * 5000)), "not text"),
    "no text": (lambda a: a.update(backend=np.frombuffer(b"\xff" * 8, "<U2").reshape(())), "not text"),
    "surrogate": (lambda a: a.update(backend=np.frombuffer(b"\x00\xd8\0\0", "<U1").reshape(())), "not text"),
    "object": (lambda a: a.update(backend=np.asarray(None)), ""),
    "order": (lambda a: a.update(track=np.where(a["frame"] == 7, 4 - a["track"], a["track"])), "ordered"),
    "frames": (lambda a: a.update(frame=a["frame"] + 100), "not among"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_archive_that_is_no_motion_is_refused(motion, tmp_path, case):
    arrays = saved_arrays(motion, tmp_path)
    change, said = ARRAYS[case]
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match="does not hold a motion") as error:
        Motion.load(tmp_path / "bad.npz")
    assert said in error.value.why


def test_other_names_other_byte_orders_and_compression_are_read(motion, tmp_path):
    arrays = saved_arrays(motion, tmp_path)
    arrays["betas"] = np.asfortranarray(arrays["betas"]).astype(">f4")
    np.savez_compressed(tmp_path / "other.npz", **arrays, note=np.asarray("of a later version"))
    assert np.array_equal(Motion.load(tmp_path / "other.npz").betas, motion.betas)


def member(name: str, header: bytes, data: bytes = b"", method=zipfile.ZIP_STORED) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def header(shape, dtype="<f4") -> bytes:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


STRANGE = {
    "bomb": member("betas.npy", header((1 << 33, 10)), bytes(1 << 24), zipfile.ZIP_DEFLATED),
    "lie": member("betas.npy", header((1 << 20, 10)), bytes(40)),
    "more": member("betas.npy", header((69, 10)), bytes(1 << 20), zipfile.ZIP_DEFLATED),
    "negative": member("betas.npy", header((-1, 10))),
    "object": member("betas.npy", header((69, 10), "|O"), b"cos\nsystem\n(S'true'\ntR."),
    "code": member("betas.npy", b"__import__('os').abort()\n"),
    "nested": member("betas.npy", b"(" * 9000 + b"\n"),
    "lzma": member("betas.npy", header((69, 10)), bytes(2760), zipfile.ZIP_LZMA),
    "no array": (zipfile.ZipInfo("betas.npy"), b"hello"),
    "version 2": (zipfile.ZipInfo("betas.npy"), b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"x"),
    "empty": (zipfile.ZipInfo("betas.npy"), b""),
}


@pytest.mark.parametrize("case", STRANGE)
def test_an_array_that_is_none_is_refused_before_it_is_read(motion, tmp_path, case):
    arrays = saved_arrays(motion, tmp_path)
    arrays.pop("betas")
    path = tmp_path / "bad.npz"
    write_npz(path, arrays)
    info, content = STRANGE[case]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content, info.compress_type)
    with pytest.raises(InputError, match="does not hold a motion"):
        Motion.load(path)


def test_a_name_that_is_there_twice_is_refused(motion, tmp_path):
    (path,) = motion.save(tmp_path / "clip.npz")
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the name
        archive.writestr(*member("betas.npy", header((69, 10)), bytes(2760)))
    with pytest.raises(InputError, match="twice"):
        Motion.load(path)


def test_a_list_of_contents_without_end_is_refused(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(15_000):
            archive.writestr(f"{number:050}.npy", b"")
    (tmp_path / "bad.npz").write_bytes(content.getvalue())
    with pytest.raises(InputError, match="list of contents"):
        Motion.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["bad.npz", "bad.json"])
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        Motion.load(tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        Motion.load(tmp_path / f"no-{name}")


def test_every_cut_of_an_archive_is_refused(motion, tmp_path):
    (path,) = motion.at(7).save(tmp_path / "clip.npz")
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 97):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            Motion.load(path)


def test_changed_bytes_are_refused_or_harmless(motion, tmp_path):
    (path,) = motion.at(7).save(tmp_path / "clip.npz")
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in random.integers(0, len(content), 4):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(InputError):
            assert len(Motion.load(path)) == 2


DOCUMENTS = {
    "list": lambda d: [d],
    "version": lambda d: d | {"version": "1"},
    "no rows": lambda d: {key: value for key, value in d.items() if key != "rows"},
    "rows": lambda d: d | {"rows": 7},
    "row": lambda d: d | {"rows": [7]},
    "ragged": lambda d: d["rows"][0]["joints"].pop() and d,
    "text": lambda d: d["rows"][0].update(betas="long") or d,
    "fraction": lambda d: d["rows"][0].update(track=1.5) or d,
    "beyond": lambda d: d["rows"][0].update(frame=10**30) or d,
    "infinite": lambda d: d["rows"][0].update(time=1e999) or d,
    "large": lambda d: d["rows"][0]["translation"].__setitem__(0, 1e39) or d,
    "status": lambda d: d["rows"][0].update(status="fine") or d,
    "status type": lambda d: d["rows"][0].update(status=[]) or d,
    "half raw": lambda d: d["rows"][0].update(raw=None) or d,
    "frames": lambda d: d | {"frames": [[0, 0.0, 1]]},
    "no frames": lambda d: d | {"frames": []},
    "size": lambda d: d | {"image_size": [1e999, 1]},
    "camera": lambda d: d | {"intrinsics": {"fx": 0, "fy": 1, "cx": 1, "cy": 1}},
    "camera type": lambda d: d | {"intrinsics": [1, 2, 3]},
    "rate": lambda d: d | {"rate": 10**400},
    "rate type": lambda d: d | {"rate": []},
    "empty columns": lambda d: [row.update(betas=[]) for row in d["rows"]] and d,
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_document_that_is_no_motion_is_refused(motion, tmp_path, case):
    (path,) = motion.save(tmp_path / "clip.json")
    path.write_text(json.dumps(DOCUMENTS[case](json.loads(path.read_text()))))
    with pytest.raises(InputError, match="does not hold a motion"):
        Motion.load(path)


# Skins


def test_a_skin_is_loaded_from_its_file_its_bundle_and_its_content(skin, tmp_path):
    write_npz(tmp_path / "skin.npz", skin.arrays(), compress=True)
    for source in (tmp_path / "skin.npz", str(tmp_path), io.BytesIO((tmp_path / "skin.npz").read_bytes())):
        loaded = Skin.load(source)
        assert (loaded.body, loaded.license, loaded.poses) == ("demo", "CC0 1.0", None)
        assert all(np.array_equal(loaded.arrays()[name], array) for name, array in skin.arrays().items())


def test_a_skin_of_a_body_whose_name_is_no_text_is_loaded(skin, tmp_path):
    named = dataclasses.replace(skin, body="Stra\udcdfe", license="x" * 10_000)
    write_npz(tmp_path / "skin.npz", named.arrays())
    assert Skin.load(tmp_path / "skin.npz").body == r"Stra\udcdfe"


@pytest.mark.parametrize(
    "name, change",
    [
        ("weights", lambda w: w * 2),
        ("weights", lambda w: w[:, :23]),
        ("faces", lambda f: f - 1),
        ("faces", lambda f: f[:0]),
        ("template", lambda t: t[:-1]),
        ("template", lambda t: t * 1e6),
        ("version", lambda v: v + 1),
    ],
)
def test_what_is_no_skin_is_refused(skin, tmp_path, name, change):
    arrays = skin.arrays()
    np.savez(tmp_path / "skin.npz", **arrays | {name: change(arrays[name]).astype(arrays[name].dtype)})
    with pytest.raises(InputError, match=r"skin\.npz was not read"):
        Skin.load(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        Skin.load(tmp_path / "none")
