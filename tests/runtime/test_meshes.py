"""Results: saved, loaded, drawn and described."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from glnet_infer import InputError, Meshes, OutputError
from glnet_infer.skeleton import JOINT_NAMES


@pytest.fixture
def picture(meshes) -> np.ndarray:
    width, height = meshes.image_size
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def saved(meshes, tmp_path):
    return meshes.save(tmp_path / "two.npz")


def no_numbers_but_finite(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_mesh_files_hold_both_persons_turned_upright(meshes, tmp_path, suffix):
    path = meshes.save(tmp_path / f"two.{suffix}")
    loaded = trimesh.load(path, force="scene", process=False).to_geometry()
    turned = meshes.vertices.reshape(-1, 3) * [1, -1, -1]  # y up, z towards the viewer
    assert loaded.vertices.shape == turned.shape
    # Readers may reorder persons and vertices: each finds its partner. 2e-6 m: OBJ has six digits.
    distances, partners = cKDTree(turned).query(loaded.vertices)
    assert distances.max() < 2e-6 and len(set(partners)) == len(turned)
    assert len(loaded.faces) == 2 * len(meshes.faces)
    assert loaded.volume == pytest.approx(2 * 4 / 3 * np.pi * 0.3**3, rel=0.02)  # positive: still outside out


def test_save_returns_the_path_and_takes_strings_and_capitals(meshes, tmp_path):
    path = tmp_path / "A.GLB"
    assert meshes.save(str(path)) == path
    assert path.read_bytes()[:4] == b"glTF"


@pytest.mark.parametrize("name", ["two.fbx", "two", "two.glb.gz", ".glb"])
def test_unknown_suffix_lists_the_known_ones_and_writes_nothing(meshes, tmp_path, name):
    with pytest.raises(OutputError) as error:
        meshes.save(tmp_path / name)
    assert all(suffix in error.value.fix for suffix in (".glb", ".obj", ".ply", ".npz", ".json"))
    assert not list(tmp_path.iterdir())


def test_a_directory_that_does_not_exist_is_named(meshes, tmp_path):
    with pytest.raises(OutputError, match="there is no directory"):
        meshes.save(tmp_path / "missing" / "two.npz")


def test_npz_and_back_is_the_same(meshes, saved):
    loaded = Meshes.load(saved)
    for field in dataclasses.fields(Meshes):
        before, after = getattr(meshes, field.name), getattr(loaded, field.name)
        if isinstance(before, np.ndarray):
            assert after.dtype == before.dtype and np.array_equal(after, before), field.name
        else:
            assert after == before and type(after) is type(before), field.name
    assert repr(loaded) == repr(meshes)
    assert all(type(side) is int for side in loaded.image_size)


def test_npz_is_read_by_numpy_alone(meshes, saved):
    with np.load(saved, allow_pickle=False) as archive:
        assert archive["intrinsics"].tolist() == [[300, 0, 155], [0, 310, 125], [0, 0, 1]]
        assert archive["image_size"].tolist() == [320, 240]
        assert int(archive["version"]) == 1
        assert np.array_equal(archive["vertices"], meshes.vertices)


def damage_by_truncation(data):
    return data[: len(data) // 2]


def damage_by_a_changed_byte(data):
    return data[:5000] + bytes([data[5000] ^ 255]) + data[5001:]


@pytest.mark.parametrize(
    "damage",
    [
        damage_by_truncation,
        damage_by_a_changed_byte,
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"not an archive", id="text"),
        pytest.param(lambda data: data[:4], id="four bytes"),
    ],
)
def test_damaged_npz_is_refused(saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(InputError, match="does not hold meshes") as error:
        Meshes.load(saved)
    assert str(saved) in str(error.value) and error.value.why and "Meshes.save" in error.value.fix


def test_missing_npz_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.npz does not hold meshes"):
        Meshes.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize("write", [lambda path: np.savez(path, a=np.arange(3)), lambda path: np.save(path, np.arange(3))])
def test_other_numpy_files_are_refused(tmp_path, write):
    path = tmp_path / "other.npz"
    with path.open("wb") as file:
        write(file)
    with pytest.raises(InputError, match="does not hold meshes"):
        Meshes.load(path)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda arrays: arrays.update(version=np.asarray(2)), id="newer version"),
        pytest.param(lambda arrays: arrays.pop("joints"), id="array missing"),
        pytest.param(lambda arrays: arrays.update(vertices=arrays["vertices"].astype(np.float64)), id="another type"),
        pytest.param(lambda arrays: arrays.update(vertices=arrays["vertices"].astype(complex)), id="complex numbers"),
        pytest.param(lambda arrays: arrays.update(joints=arrays["joints"][:, :28]), id="a joint less"),
        pytest.param(lambda arrays: arrays.update(betas=arrays["betas"][:1]), id="a person less"),
        pytest.param(lambda arrays: arrays.update(boxes=arrays["boxes"][0]), id="a dimension less"),
        pytest.param(lambda arrays: arrays.update(translation=np.full((2, 3), np.nan, np.float32)), id="NaN"),
        pytest.param(lambda arrays: arrays.update(vertices=arrays["vertices"] * np.float32(1e30)), id="too far"),
        pytest.param(lambda arrays: arrays.update(confidence=np.array([-1, 1], np.float32)), id="no confidence"),
        pytest.param(lambda arrays: arrays.update(faces=arrays["faces"] + 10**6), id="faces of other vertices"),
        pytest.param(lambda arrays: arrays.update(faces=arrays["faces"] - 1), id="negative faces"),
        pytest.param(lambda arrays: arrays.update(image_size=np.array([0, 240])), id="no width"),
        pytest.param(lambda arrays: arrays.update(image_size=np.array([1 << 40, 240])), id="endless width"),
        pytest.param(
            lambda arrays: arrays.update(image_size=np.zeros((10**9, 0), np.int64)), id="an image of many nothings"
        ),
        pytest.param(lambda arrays: arrays.update(backend=np.asarray(7)), id="a backend that is no text"),
        pytest.param(lambda arrays: arrays.update(version=np.asarray([1, 1])), id="two versions"),
        pytest.param(lambda arrays: arrays.update(intrinsics=np.zeros((3, 3))), id="no camera"),
        pytest.param(lambda arrays: arrays.update(image_size=np.arange(3)), id="image of three sides"),
    ],
)
def test_npz_of_another_form_is_refused(saved, change):
    with np.load(saved) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(saved, **arrays)
    with pytest.raises(InputError, match="does not hold meshes"):
        Meshes.load(saved)


def test_what_else_an_npz_holds_is_left_aside(meshes, saved):
    with np.load(saved) as archive:
        arrays = dict(archive)
    np.savez(saved, **arrays, mine=np.array([{}], dtype=object))
    assert np.array_equal(Meshes.load(saved).vertices, meshes.vertices)


def test_nobody_is_saved_and_loaded(meshes, tmp_path):
    nobody = Meshes.load(meshes.select([]).save(tmp_path / "nobody.npz"))
    assert len(nobody) == 0 and nobody.vertices.shape == (0, meshes.vertices.shape[1], 3)


def test_arrays_of_other_types_are_saved_as_what_is_promised(meshes, tmp_path):
    # A backend of another package may give others.
    wider = dataclasses.replace(meshes, vertices=meshes.vertices.astype(np.float64), backend="b" * 10_000)
    loaded = Meshes.load(wider.save(tmp_path / "wider.npz"))
    assert np.array_equal(loaded.vertices, meshes.vertices) and loaded.vertices.dtype == np.float32


def test_what_is_loaded_can_be_written_and_drawn(meshes, saved, tmp_path):
    # Whatever is accepted: bytes are changed, and the checksums of the archive put right.
    generator = np.random.default_rng(8)
    with np.load(saved) as archive:
        arrays = dict(archive)
    accepted = 0
    for _ in range(150):
        changed = {name: array.copy() for name, array in arrays.items()}
        name = generator.choice([name for name in changed if name != "backend"])
        place = changed[name].reshape(-1).view(np.uint8)
        place[generator.integers(0, place.size)] ^= 1 << generator.integers(0, 8)
        np.savez(saved, **changed)
        try:
            loaded = Meshes.load(saved)
        except InputError:
            continue
        accepted += 1
        repr(loaded), loaded.projected_joints
        for suffix in (".json", ".obj", ".glb"):
            loaded.save(tmp_path / f"again{suffix}")
    assert accepted > 50


def test_npz_with_pickled_objects_is_refused_unread(tmp_path):
    np.savez(tmp_path / "evil.npz", version=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="does not hold meshes"):
        Meshes.load(tmp_path / "evil.npz")


def test_json_document_has_the_documented_form(meshes, tmp_path):
    document = no_numbers_but_finite(meshes.save(tmp_path / "two.json").read_text())
    assert set(document) == {"version", "units", "image_size", "intrinsics", "joint_names", "backend", "persons"}
    assert document["version"] == 1 and document["backend"] == "by-hand"
    assert document["units"] == {"length": "metre", "image": "pixel", "axes": "x right, y down, z forward"}
    assert document["image_size"] == [320, 240]
    assert document["intrinsics"] == {"fx": 300.0, "fy": 310.0, "cx": 155.0, "cy": 125.0}
    assert document["joint_names"] == list(JOINT_NAMES) and len(document["joint_names"]) == 29
    assert len(document["persons"]) == 2
    shapes = {
        "box": (4,),
        "confidence": (),
        "reference_point": (2,),
        "translation": (3,),
        "betas": (10,),
        "rotations": (24, 3, 3),
        "joints": (29, 3),
        "keypoints_2d": (31, 2),
    }
    for i, person in enumerate(document["persons"]):
        assert {key: np.shape(value) for key, value in person.items()} == shapes
        assert person["confidence"] == [0.25, 0.75][i]
        for key, field in {"box": "boxes", "reference_point": "reference_points"}.items():
            assert np.array_equal(person[key], getattr(meshes, field)[i])
        for key in ("translation", "betas", "rotations", "joints", "keypoints_2d"):
            assert np.array_equal(np.float32(person[key]), getattr(meshes, key)[i]), key


def test_nan_is_not_written_as_json(meshes, tmp_path):
    broken = dataclasses.replace(meshes, betas=np.full((2, 10), np.nan, np.float32))
    with pytest.raises(InputError):
        broken.save(tmp_path / "two.json")
    assert not list(tmp_path.iterdir())


def silhouette(meshes):
    """Where the spheres' vertices project to, filled: convex, so the hull is the outline. By OpenCV's camera."""
    width, height = meshes.image_size
    mask = np.zeros((height, width), np.uint8)
    for person in meshes.vertices.astype(np.float64):
        pixels = cv2.projectPoints(person, np.zeros(3), np.zeros(3), meshes.intrinsics.matrix, None)[0]
        hull = cv2.convexHull((pixels - 0.5).round().astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
    return mask


def test_overlay_changes_the_pixels_of_the_meshes_and_no_others(meshes, picture):
    before = picture.copy()
    drawn = meshes.overlay(picture)
    assert np.array_equal(picture, before) and drawn.shape == picture.shape and drawn.dtype == np.uint8
    changed = (drawn != picture).any(2)
    mask, ring = silhouette(meshes), np.ones((5, 5), np.uint8)
    assert mask.sum() > 3000
    assert changed[cv2.erode(mask, ring) == 1].mean() > 0.99  # noise may happen to have the mesh's colour
    assert not changed[cv2.dilate(mask, ring) == 0].any()


def test_opacity_zero_draws_nothing_and_one_hides_the_image(meshes, picture):
    assert np.array_equal(meshes.overlay(picture, opacity=0.0), picture)
    inside = cv2.erode(silhouette(meshes), np.ones((7, 7), np.uint8)) == 1
    drawn = meshes.overlay(picture, opacity=1.0)
    assert np.array_equal(drawn[inside], meshes.overlay(255 - picture, opacity=1.0)[inside])


def test_overlay_on_an_image_of_another_size_names_both_sizes(meshes, picture):
    for other in (picture[:-1], picture[:, :-1], picture.transpose(1, 0, 2)):
        with pytest.raises(InputError, match="320 x 240") as error:
            meshes.overlay(other)
        assert f"{other.shape[1]} x {other.shape[0]}" in error.value.what and error.value.fix


def test_overlay_on_what_is_no_image_is_refused(meshes):
    with pytest.raises(InputError, match="grey"):
        meshes.overlay(np.zeros((240, 320), np.uint8))


def test_length_repr_and_focal_length(meshes):
    assert len(meshes) == 2 and meshes.focal_length == (300.0, 310.0)
    assert repr(meshes) == "Meshes(2 persons, 642 vertices each, backend='by-hand')"


def test_projected_joints_are_opencvs(meshes):
    for joints, projected in zip(meshes.joints.astype(np.float64), meshes.projected_joints, strict=True):
        expected = cv2.projectPoints(joints, np.zeros(3), np.zeros(3), meshes.intrinsics.matrix, None)[0][:, 0]
        assert np.abs(projected - expected).max() < 1e-9  # px, float64


def test_fields_cannot_be_reassigned(meshes):
    with pytest.raises(dataclasses.FrozenInstanceError):
        meshes.vertices = meshes.joints
