"""HybrIK's annotation files of Human3.6M, MPI-INF-3DHP and COCO."""

import copy

import numpy as np
import pytest

from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_infer.skeleton import JOINT_NAMES
from glnet_train.data import read_coco, read_h36m, read_mpi_inf_3dhp

MM = 1e-3


def test_h36m_has_every_label_in_our_units(h36m, standing, write_json, body, matrices, decoded_vertices, intrinsics):
    vectors, betas, vertices, joints = standing
    file, folder = write_json(h36m)
    (annotation,) = read_h36m(file, folder, body)
    assert annotation.image == folder / "s_01_act_02/s_01_act_02_000001.jpg"
    np.testing.assert_allclose(annotation.joints_3d, joints, atol=0.01 * MM)
    np.testing.assert_allclose(annotation.rotations, matrices(vectors)[0], atol=1e-6)
    np.testing.assert_allclose(annotation.betas, betas, atol=1e-6)
    np.testing.assert_allclose(decoded_vertices(body, annotation), vertices, atol=0.01 * MM)
    np.testing.assert_allclose(annotation.keypoints_2d, (joints @ intrinsics.T)[:, :2] / joints[:, 2:], atol=0.01)
    np.testing.assert_allclose(annotation.h36m_joints, joints[:17] + 5 * MM, atol=0.01 * MM)
    assert annotation.joints_3d_weights.tolist() == annotation.keypoints_2d_weights.tolist() == [1] * 29
    # HybrIK takes these boxes as the crop; padded by 1.25, ours have to be four fifths.
    np.testing.assert_allclose(annotation.box, [100, 40, 180, 200])
    (other,) = read_h36m(file, folder, body, spec=CropSpec(64, padding=1.6))
    np.testing.assert_allclose(other.box[2:] - other.box[:2], [100 / 1.6, 200 / 1.6])


def test_h36m_twists_of_minus_999_are_not_labels(h36m, write_json):
    (annotation,) = read_h36m(*write_json(h36m))
    angle = np.array(h36m["annotations"][0]["angle_twist"]["angle"])
    assert np.flatnonzero(annotation.twist_weights == 0).tolist() == [3, 7]
    known = annotation.twist_weights > 0
    np.testing.assert_allclose(annotation.twists[known], np.stack([np.cos(angle), np.sin(angle)], 1)[known], atol=1e-6)
    np.testing.assert_array_equal(annotation.twists[~known], [[1, 0]] * 2)
    assert annotation.translation is None  # no body was given


def test_h36m_with_24_joints_has_no_leaves_and_may_have_no_twists(h36m, write_json):
    record = h36m["annotations"][0]
    record["smpl_joints"] = record["smpl_joints"][:72]
    del record["angle_twist"]
    (annotation,) = read_h36m(*write_json(h36m))
    assert annotation.joints_3d_weights.tolist() == annotation.keypoints_2d_weights.tolist() == [1] * 24 + [0] * 5
    assert np.isfinite(annotation.keypoints_2d).all()
    assert annotation.twists is None


def test_h36m_poses_may_be_matrices(h36m, standing, write_json, matrices):
    h36m["annotations"][0]["thetas"] = matrices(standing[0])[0].tolist()
    (annotation,) = read_h36m(*write_json(h36m))
    np.testing.assert_allclose(annotation.rotations, matrices(standing[0])[0], atol=1e-6)


def test_h36m_flawed_recordings_and_empty_boxes_are_left_out(h36m, write_json):
    for name, box in (
        ("s_09_act_05_subact_02_ca_03/image.jpg", [90, 20, 100, 200]),
        ("off.jpg", [400, 20, 100, 200]),
        ("narrow.jpg", [317, 20, 100, 200]),
    ):
        h36m["images"].append({**h36m["images"][0], "file_name": name})
        h36m["annotations"].append({**h36m["annotations"][0], "bbox": box})
    assert len(read_h36m(*write_json(h36m))) == 1


def test_3dhp_has_keypoints_and_depths_of_matching_joints(mpi_inf_3dhp, standing, write_json, intrinsics):
    joints = standing[3]
    (annotation,) = read_mpi_inf_3dhp(*write_json(mpi_inf_3dhp))
    known = annotation.joints_3d_weights > 0
    assert known.sum() == 12
    assert not known[[1, 2]].any()  # hips
    np.testing.assert_allclose(annotation.joints_3d[known], joints[known], atol=0.01 * MM)
    np.testing.assert_allclose(
        annotation.keypoints_2d[known], ((joints @ intrinsics.T)[:, :2] / joints[:, 2:])[known], atol=0.01
    )
    np.testing.assert_array_equal(annotation.keypoints_2d_weights, annotation.joints_3d_weights)
    assert annotation.rotations is annotation.betas is annotation.twists is None


def test_coco_limbs_are_mapped_and_hips_dropped(coco, write_json):
    (annotation,) = read_coco(*write_json(coco))
    expected = {"left_shoulder": [120.5, 80.5], "left_wrist": [100.5, 130.5], "right_ankle": [110.5, 200.5]}
    assert {JOINT_NAMES[j] for j in np.flatnonzero(annotation.keypoints_2d_weights)} == set(expected)
    for name, point in expected.items():
        np.testing.assert_allclose(annotation.keypoints_2d[JOINT_NAMES.index(name)], point)
    np.testing.assert_allclose(annotation.box, [90, 20, 150, 220.5])
    assert annotation.area == 5000.5
    assert annotation.joints_3d is annotation.intrinsics is annotation.rotations is None


def test_coco_crowds_and_persons_without_limbs_are_left_out(coco, write_json):
    crowd, faceless, empty = (copy.deepcopy(coco["annotations"][0]) for _ in range(3))
    crowd["iscrowd"] = 1
    faceless["keypoints"] = [100, 100, 2] * 5 + [0, 0, 0] * 12
    empty["bbox"] = [90, 20, 0, 0]
    coco["annotations"] += [crowd, faceless, empty]
    assert len(read_coco(*write_json(coco))) == 1


READERS = {"h36m": read_h36m, "mpi_inf_3dhp": read_mpi_inf_3dhp, "coco": read_coco}


@pytest.mark.parametrize("name", READERS)
def test_annotation_files_say_what_is_wrong_with_them(name, request, write_json, tmp_path, assert_explains):
    content, read = request.getfixturevalue(name), READERS[name]
    file, folder = write_json(content)
    assert len(read(file, folder)) == 1
    with pytest.raises(InputError, match="no folder") as caught:
        read(file, tmp_path / "nothing")
    assert_explains(caught.value, "license")
    with pytest.raises(InputError, match="was not read"):
        read(tmp_path / "nothing.json", folder)
    for text in (
        "{",
        "[]",
        "{}",
        '{"images": []}',
        '{"images": [1], "annotations": []}',
        '{"images": {}, "annotations": 1}',
    ):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            read(file, folder)
        assert_explains(caught.value, "set.json")
    with pytest.raises(InputError, match="empty"):
        read(*write_json({"images": [], "annotations": []}))


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("h36m", "images", "cam_param"),
        ("h36m", "images", "file_name"),
        ("h36m", "annotations", "thetas"),
        ("h36m", "annotations", "smpl_joints"),
        ("h36m", "annotations", "bbox"),
        ("h36m", "annotations", "angle_twist"),
        ("mpi_inf_3dhp", "images", "cam_param"),
        ("mpi_inf_3dhp", "annotations", "keypoints_cam"),
        ("coco", "images", "width"),
        ("coco", "annotations", "keypoints"),
        ("coco", "annotations", "bbox"),
    ],
)
def test_missing_and_malformed_keys_of_annotation_files_are_named(name, part, key, request, write_json):
    content = request.getfixturevalue(name)
    broken = copy.deepcopy(content)
    del broken[part][0][key]
    if key != "angle_twist":
        with pytest.raises(InputError, match=f"lacks {key}"):
            READERS[name](*write_json(broken))
    if key != "file_name":
        broken[part][0][key] = {"angle": [1], "f": "x", "c": 2, "intrinsic_param": [1, 2]} if "_" in key else "x"
        with pytest.raises(InputError, match=r"set\.json"):
            READERS[name](*write_json(broken))


def test_lists_that_do_not_match_and_unknown_images_are_refused(h36m, coco, write_json):
    h36m["images"] *= 2
    with pytest.raises(InputError, match="2 images and 1 annotations"):
        read_h36m(*write_json(h36m))
    coco["annotations"][0]["image_id"] = 99
    with pytest.raises(InputError, match="99"):
        read_coco(*write_json(coco))


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_bodies_in_another_unit_are_noticed(h36m, write_json, factor):
    record = h36m["annotations"][0]
    record["smpl_joints"] = (np.array(record["smpl_joints"]) * factor).tolist()
    with pytest.raises(InputError, match="millimetres"):
        read_h36m(*write_json(h36m))


# Labels as joined, exported and damaged files have them


def test_coco_persons_without_keypoints_are_left_out_and_counted(coco, write_json):
    person = coco["annotations"][0]
    bare = {key: value for key, value in person.items() if key != "keypoints"}
    coco["annotations"] += [bare, {**bare, "keypoints": []}, {**bare, "keypoints": None}, {**person, "bbox": None}]
    found = read_coco(*write_json(coco))
    assert len(found) == 1
    assert found.left_out == {"no keypoints": 3, "no bbox": 1}


def test_a_coco_file_of_boxes_alone_is_told_what_it_lacks(coco, write_json):
    del coco["annotations"][0]["keypoints"]
    with pytest.raises(InputError, match="lacks keypoints"):
        read_coco(*write_json(coco))


def test_coco_areas_may_be_unknown(coco, write_json):
    coco["annotations"][0]["area"] = None
    (annotation,) = read_coco(*write_json(coco))
    assert annotation.area is None


@pytest.mark.parametrize("name, label", [("h36m", "thetas"), ("h36m", "bbox"), ("mpi_inf_3dhp", "keypoints_cam")])
def test_persons_whose_labels_are_null_are_left_out_and_counted(name, label, request, write_json):
    content = request.getfixturevalue(name)
    content["images"].append(content["images"][0])
    content["annotations"].append({**content["annotations"][0], label: None})
    found = READERS[name](*write_json(content))
    assert len(found) == 1
    assert found.left_out == {f"no {label}": 1}


@pytest.mark.parametrize("label", ["angle_twist", "h36m_joints"])
def test_labels_that_a_file_need_not_have_may_be_null(h36m, write_json, label):
    h36m["annotations"][0][label] = None
    (annotation,) = read_h36m(*write_json(h36m))
    assert (annotation.twists if label == "angle_twist" else annotation.h36m_joints) is None


HUGE = 10**400


@pytest.mark.parametrize(
    "name, part, key, value",
    [
        ("coco", "annotations", "area", [1, 2]),
        ("coco", "annotations", "area", "large"),
        ("coco", "annotations", "area", HUGE),
        ("coco", "annotations", "image_id", [1]),
        ("coco", "annotations", "image_id", {"a": 1}),
        ("coco", "annotations", "image_id", 1.5),
        ("coco", "annotations", "bbox", [HUGE, 0, 1, 1]),
        ("coco", "annotations", "keypoints", [1e300] * 51),
        ("coco", "annotations", "keypoints", [[[]]]),
        ("coco", "images", "id", [1]),
        ("coco", "images", "width", None),
        ("coco", "images", "height", HUGE),
        ("h36m", "annotations", "thetas", [[1, 2], [3]]),
        ("h36m", "annotations", "thetas", {"x": 1}),
        ("h36m", "annotations", "betas", [HUGE] * 10),
        ("h36m", "annotations", "smpl_joints", [1e300] * 87),
        ("h36m", "annotations", "angle_twist", 3),
        ("h36m", "annotations", "angle_twist", [1]),
        ("h36m", "images", "cam_param", 5),
        ("h36m", "images", "cam_param", ["f", "c"]),
        ("mpi_inf_3dhp", "images", "cam_param", None),
        ("mpi_inf_3dhp", "annotations", "keypoints_cam", [[HUGE]]),
    ],
    ids=lambda value: str(value)[:24],
)
def test_labels_of_any_other_kind_are_refused(name, part, key, value, request, write_json):
    content = request.getfixturevalue(name)
    content[part][0][key] = value
    with pytest.raises(InputError) as caught:
        READERS[name](*write_json(content))
    assert caught.value.why or caught.value.fix
