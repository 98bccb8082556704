"""Dataset readers on fabricated miniatures: a posed demo body whose truth is known, small JPEGs, hand-made JSON."""

import copy
import dataclasses
import json
import os
import pickle

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.body import Body
from glnet.config import GLNetConfig
from glnet.estimate import DEFAULT_CAMERA, lift
from glnet.recovery import Decoder
from glnet.training.datasets import (
    HYBRIK_RATIOS,
    LABEL_MASKS,
    AnnotatedImages,
    Annotation,
    LabelMask,
    Mixture,
    collate,
    read_3dpw,
    read_3dpw_json,
    read_coco,
    read_h36m,
    read_mpi_inf_3dhp,
)
from glnet.training.targets import UNKNOWN
from glnet_infer.errors import InputError
from glnet_infer.manifest import CropSpec
from glnet_infer.skeleton import JOINT_NAMES

MM = 1e-3
WIDTH, HEIGHT = 320, 240
K = np.array([[300.0, 0, 165], [0, 310, 118], [0, 0, 1]])
FRAMES = 2
IMAGE_FOLDERS = {"h36m": "images", "3dhp": "mpi_inf_3dhp_train_set", "coco": "train2017"}


@pytest.fixture(scope="session")
def body(demo_body):
    """The demo body with its pelvis as far from the origin as SMPL's, where it matters what the root turns about."""
    data = demo_body.data
    return Body(dataclasses.replace(data, v_template=data.v_template + np.array([-0.01, -0.22, 0.03])))


def matrices(vectors):
    return Rotation.from_rotvec(np.reshape(vectors, (-1, 3))).as_matrix().reshape(-1, 24, 3, 3)


def posed(body, vectors, betas):
    """Vertices and joints of SMPL poses (n x 72), the root joint where it rests, n x V x 3 and n x 29 x 3."""
    with torch.no_grad():
        result = body.pose(
            torch.tensor(matrices(vectors), dtype=torch.float32),
            torch.tensor(betas, dtype=torch.float32).expand(len(vectors), -1),
        )
    return result.vertices.double().numpy(), result.joints.double().numpy()


def write_image(path, seed=0):
    """Noise that survives JPEG, with a white square of 40 pixels at x 100..140, y 60..100."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((HEIGHT, WIDTH, 3), (200, 40, 40 + seed), dtype=np.uint8)
    image[60:100, 100:140] = 255
    cv2.imwrite(str(path), image)


def assert_explains(error, *words):
    assert error.what
    assert error.why or error.fix
    for word in words:
        assert word in str(error), str(error)


# 3DPW


@pytest.fixture
def sequence(body, rng):
    """Two persons in two frames of a moving camera, and their true bodies in the camera: (content, truth)."""
    turns = Rotation.from_rotvec([[0.1, 2.9, 0.2], [0.3, -2.6, -0.1]])  # the camera looks back at the actors
    extrinsics = np.tile(np.eye(4), (FRAMES, 1, 1))
    extrinsics[:, :3, :3] = turns.as_matrix()
    content = {
        "sequence": "fabricated_00",
        "cam_intrinsics": K,
        "cam_poses": extrinsics,
        "genders": ["m", "f"],
        "img_frame_ids": np.array([0, 2]),
        "poses": [],
        "betas": [],
        "trans": [],
        "poses2d": [],
        "campose_valid": [],
        "jointPositions": [],
    }
    truth = []
    wanted = np.array([[[-0.4, 0.1, 3.5], [-0.3, 0, 3.6]], [[0.5, 0.1, 4.2], [0.6, -0.1, 4.0]]])  # persons in the camera
    for person in range(2):
        poses = rng.normal(scale=0.3, size=(FRAMES, 72))
        upright = turns.inv() * Rotation.from_euler("x", 180, degrees=True)
        poses[:, :3] = (upright * Rotation.random(2, rng) ** 0.2).as_rotvec()
        betas = rng.normal(size=300 if person else 10)
        vertices, joints = posed(body, poses, betas[:10])
        extrinsics[:, :3, 3] = [0.2, 0.3, 1.0]
        trans = turns.inv().apply(wanted[person] - extrinsics[:, :3, 3]) - joints[:, 0]

        def to_camera(points, trans=trans):
            return (points + trans[:, None]) @ extrinsics[:, :3, :3].transpose(0, 2, 1) + extrinsics[:, None, :3, 3]

        content["poses"].append(poses)
        content["betas"].append(betas)
        content["trans"].append(trans)
        content["poses2d"].append(np.full((FRAMES, 3, 18), 0.5))
        content["campose_valid"].append(np.ones(FRAMES, dtype=int))
        content["jointPositions"].append((joints[:, :24] + trans[:, None]).reshape(FRAMES, 72))
        truth.append((to_camera(vertices), to_camera(joints)))
    return content, truth


@pytest.fixture
def write_3dpw(tmp_path):
    def write(content, split="train", protocol=2):
        folder = tmp_path / "3dpw" / "sequenceFiles" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{content['sequence']}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        for frame in range(FRAMES):
            write_image(tmp_path / "3dpw" / "imageFiles" / content["sequence"] / f"image_{frame:05d}.jpg")
        return tmp_path / "3dpw"

    return write


def decoded_vertices(body, annotation):
    with torch.no_grad():
        result = body.pose(torch.tensor(annotation.rotations)[None], torch.tensor(annotation.betas)[None])
    return result.vertices[0].numpy() + annotation.translation


def test_3dpw_annotations_put_the_body_where_brute_force_puts_it(sequence, write_3dpw, body):
    """World to camera of posed vertices, against SMPL posed with the annotation's own rotations and translation."""
    content, truth = sequence
    dataset = read_3dpw(write_3dpw(content), "train", body)
    assert len(dataset) == 4
    for index, annotation in enumerate(dataset):
        person, frame = divmod(index, FRAMES)
        vertices, joints = (array[frame] for array in truth[person])
        np.testing.assert_allclose(decoded_vertices(body, annotation), vertices, atol=0.01 * MM)
        np.testing.assert_allclose(annotation.joints_3d, joints, atol=0.01 * MM)
        np.testing.assert_array_equal(annotation.joints_3d_weights, [1] * 24 + [0] * 5)
        pixels = joints @ K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_allclose(annotation.keypoints_2d, pixels, atol=0.01)
        inside = np.clip(np.concatenate([pixels.min(0), pixels.max(0)]), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        np.testing.assert_allclose(annotation.box, inside, atol=0.01)
        assert annotation.image.name == f"image_{frame:05d}.jpg"
        assert annotation.image.is_file()
        assert annotation.twists is None
        np.testing.assert_allclose(annotation.intrinsics.matrix, K)
        np.testing.assert_allclose(annotation.betas, content["betas"][person][:10], rtol=1e-6)


def test_3dpw_without_joint_positions_uses_the_translation(sequence, write_3dpw, body):
    content, _ = sequence
    with_positions = list(read_3dpw(write_3dpw(content), "train", body))
    del content["jointPositions"]
    without = list(read_3dpw(write_3dpw(content), "train", body))
    for first, second in zip(with_positions, without, strict=True):
        np.testing.assert_allclose(first.translation, second.translation, atol=0.01 * MM)
        np.testing.assert_allclose(first.joints_3d, second.joints_3d, atol=0.01 * MM)


def test_3dpw_puts_the_neutral_pelvis_onto_the_actors_own(sequence, write_3dpw, body):
    """Gendered bodies have another pelvis for the same betas: where the file says so, the image decides."""
    content, truth = sequence
    for positions in content["jointPositions"]:
        positions += np.tile([0.02, -0.01, 0.03], 24)
    for index, annotation in enumerate(read_3dpw(write_3dpw(content), "train", body)):
        person, frame = divmod(index, FRAMES)
        moved = content["cam_poses"][frame, :3, :3] @ [0.02, -0.01, 0.03]
        np.testing.assert_allclose(annotation.joints_3d[:24], truth[person][1][frame, :24] + moved, atol=0.01 * MM)
        np.testing.assert_allclose(decoded_vertices(body, annotation), truth[person][0][frame] + moved, atol=0.01 * MM)


def test_3dpw_pelvis_offset_matters(sequence, write_3dpw, body):
    """Rotating trans alone, a usual mistake, is wrong by centimetres here: the test above can fail."""
    content, _ = sequence
    annotation = read_3dpw(write_3dpw(content), "train", body)[0]
    naive = content["cam_poses"][0, :3, :3] @ content["trans"][0][0] + content["cam_poses"][0, :3, 3]
    assert np.linalg.norm(naive - annotation.translation) > 0.05


def test_3dpw_leaves_out_invalid_undetected_and_unseen_persons(sequence, write_3dpw, body):
    content, _ = sequence
    content["campose_valid"][0][1] = 0
    content["poses2d"][1][0] = 0
    dataset = read_3dpw(write_3dpw(content), "train", body)
    assert [a.image.name for a in dataset] == ["image_00000.jpg", "image_00001.jpg"]
    assert len(read_3dpw(write_3dpw(content), "train", body, detected_only=False)) == 3
    assert len(read_3dpw(write_3dpw(content), "train", body, stride=2)) == 1
    content["jointPositions"][0] += np.tile(content["cam_poses"][0, :3, :3].T @ [0, 0, -10.0], 24)  # behind the camera
    assert len(read_3dpw(write_3dpw(content), "train", body)) == 1
    content["jointPositions"][1] += np.tile(content["cam_poses"][1, :3, :3].T @ [10.0, 0, 0], 24)  # beside the image
    with pytest.raises(InputError, match="empty"):
        read_3dpw(write_3dpw(content), "train", body)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_3dpw_pickles_of_old_and_new_protocols_are_read(sequence, write_3dpw, body, protocol):
    assert len(read_3dpw(write_3dpw(sequence[0], protocol=protocol), "train", body)) == 4


class Calls:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_3dpw_pickle_that_would_run_code_is_refused(sequence, write_3dpw, body, tmp_path):
    content, _ = sequence
    content["extra"] = Calls(f"touch '{tmp_path / 'target'}'")
    root = write_3dpw(content)
    with pytest.raises(InputError, match="system") as caught:
        read_3dpw(root, "train", body)
    assert_explains(caught.value, "fabricated_00.pkl", "could run")
    assert not (tmp_path / "target").exists()


def test_3dpw_pickle_may_not_name_the_body_files_classes(sequence, write_3dpw, body):
    root = write_3dpw(sequence[0])
    (root / "sequenceFiles" / "train" / "fabricated_00.pkl").write_bytes(b"cchumpy.ch\nCh\n.")
    with pytest.raises(InputError, match="no annotation file contains"):
        read_3dpw(root, "train", body)


@pytest.mark.parametrize("key", ["cam_poses", "poses", "betas", "trans", "campose_valid", "cam_intrinsics", "poses2d"])
def test_3dpw_missing_and_malformed_keys_are_named(sequence, write_3dpw, body, key):
    content, _ = sequence
    broken = {name: value for name, value in content.items() if name != key}
    with pytest.raises(InputError, match=f"lacks {key}") as caught:
        read_3dpw(write_3dpw(broken), "train", body)
    assert_explains(caught.value, "fabricated_00.pkl")
    with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
        read_3dpw(write_3dpw({**content, key: [np.zeros((1, 7))] * 2}), "train", body)
    with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
        read_3dpw(write_3dpw({**content, key: [np.array(["x"])] * 2}), "train", body)


def test_3dpw_missing_folders_images_and_splits_are_named(sequence, write_3dpw, body, tmp_path):
    with pytest.raises(InputError, match="no folder") as caught:
        read_3dpw(tmp_path / "nothing", "train", body)
    assert_explains(caught.value, "sequenceFiles", "license")
    root = write_3dpw(sequence[0])
    with pytest.raises(InputError, match="no split"):
        read_3dpw(root, "val", body)
    with pytest.raises(InputError, match="no folder"):
        read_3dpw(root, "test", body)
    for image in (root / "imageFiles" / "fabricated_00").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="was not read") as caught:
        read_3dpw(root, "train", body)
    assert_explains(caught.value, "no such file", "image_00000.jpg")
    (root / "sequenceFiles" / "train" / "fabricated_00.pkl").write_bytes(b"\x80\x02cut")
    with pytest.raises(InputError, match="was not read"):
        read_3dpw(root, "train", body)


# HybrIK's annotation files


@pytest.fixture
def standing(body, rng):
    """A body in the camera: pose vectors 24 x 3, betas, vertices, joints."""
    vectors = rng.normal(scale=0.2, size=(1, 72))
    vectors[0, :3] = [np.pi - 0.2, 0.1, 0.3]
    betas = rng.normal(size=10)
    vertices, joints = posed(body, vectors, betas)
    shift = np.array([0.1, 0.2, 4.0]) - joints[0, 0]
    return vectors.reshape(24, 3), betas, vertices[0] + shift, joints[0] + shift


@pytest.fixture
def h36m(standing, rng):
    vectors, betas, _, joints = standing
    angle = rng.uniform(-2, 2, 23)
    angle[[3, 7]] = -999
    return {
        "images": [
            {
                "id": 77,
                "file_name": "s_01_act_02/s_01_act_02_000001.jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "cam_param": {"f": [300.0, 310.0], "c": [165.0, 118.0]},
            }
        ],
        "annotations": [
            {
                "id": 3,
                "image_id": 77,
                "bbox": [90.0, 20.0, 100.0, 200.0],
                "thetas": vectors.ravel().tolist(),
                "betas": betas.tolist(),
                "smpl_joints": (joints * 1000).ravel().tolist(),
                "h36m_joints": [0.0] * 51,
                "angle_twist": {
                    "angle": angle.tolist(),
                    "cos": np.cos(angle).tolist(),
                    "sin": np.sin(angle).tolist(),
                },
            }
        ],
    }


@pytest.fixture
def mpi_inf_3dhp(standing, rng):
    joints = standing[3]
    theirs = rng.normal(size=(28, 3)) * 1000
    # Their numbers for pelvis, neck, left shoulder and so on, from their list of names.
    names = ["pelvis", "neck", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"]
    names += ["left_knee", "left_ankle", "right_knee", "right_ankle"]
    for name, number in zip(names, (4, 5, 9, 10, 11, 14, 15, 16, 19, 20, 24, 25), strict=True):
        theirs[number] = joints[JOINT_NAMES.index(name)] * 1000
    matrix = np.eye(4)
    matrix[:3, :3] = K
    return {
        "images": [
            {
                "file_name": "S1_Seq1_V0_000001.jpg",
                "width": WIDTH,
                "height": HEIGHT,
                "cam_param": {"intrinsic_param": matrix[:3].tolist()},
            }
        ],
        "annotations": [{"image_id": 0, "bbox": [90, 20, 100, 200], "keypoints_cam": theirs.tolist()}],
    }


@pytest.fixture
def coco():
    keypoints = np.zeros((17, 3), dtype=int)
    keypoints[[5, 9, 11, 16]] = [[120, 80, 2], [100, 130, 1], [115, 140, 2], [110, 200, 2]]
    annotation = {
        "id": 1,
        "image_id": 5,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [90, 20, 60, 200.5],
        "area": 5000.5,
        "num_keypoints": 4,
        "keypoints": keypoints.ravel().tolist(),
    }
    return {
        "images": [{"id": 5, "file_name": "000000000005.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [annotation],
    }


@pytest.fixture
def write_json(tmp_path):
    """Writes an annotation file and its images; returns (file, image folder)."""

    def write(content):
        (tmp_path / "set.json").write_text(json.dumps(content))
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for image in content.get("images", []) if isinstance(content, dict) else []:
            write_image(folder / image.get("sequence", "") / image.get("file_name", "unnamed.jpg"))
        return tmp_path / "set.json", folder

    return write


def test_h36m_has_every_label_in_our_units(h36m, standing, write_json, body):
    vectors, betas, vertices, joints = standing
    file, folder = write_json(h36m)
    (annotation,) = read_h36m(file, folder, body)
    assert annotation.image == folder / "s_01_act_02/s_01_act_02_000001.jpg"
    np.testing.assert_allclose(annotation.joints_3d, joints, atol=0.01 * MM)
    np.testing.assert_allclose(annotation.rotations, matrices(vectors)[0], atol=1e-6)
    np.testing.assert_allclose(annotation.betas, betas, atol=1e-6)
    np.testing.assert_allclose(decoded_vertices(body, annotation), vertices, atol=0.01 * MM)
    np.testing.assert_allclose(annotation.keypoints_2d, (joints @ K.T)[:, :2] / joints[:, 2:], atol=0.01)
    assert annotation.joints_3d_weights.tolist() == annotation.keypoints_2d_weights.tolist() == [1] * 29
    # HybrIK takes these boxes as the crop; padded by 1.25, ours have to be four fifths.
    np.testing.assert_allclose(annotation.box, [100, 40, 180, 200])


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


def test_h36m_poses_may_be_matrices(h36m, standing, write_json):
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


def test_3dhp_has_keypoints_and_depths_of_matching_joints(mpi_inf_3dhp, standing, write_json):
    joints = standing[3]
    (annotation,) = read_mpi_inf_3dhp(*write_json(mpi_inf_3dhp))
    known = annotation.joints_3d_weights > 0
    assert known.sum() == 12
    assert not known[[1, 2]].any()  # hips
    np.testing.assert_allclose(annotation.joints_3d[known], joints[known], atol=0.01 * MM)
    np.testing.assert_allclose(annotation.keypoints_2d[known], ((joints @ K.T)[:, :2] / joints[:, 2:])[known], atol=0.01)
    np.testing.assert_array_equal(annotation.keypoints_2d_weights, annotation.joints_3d_weights)
    assert annotation.rotations is annotation.betas is annotation.twists is None


def test_3dpw_json_equals_the_official_files(sequence, write_3dpw, write_json, body):
    official = list(read_3dpw(write_3dpw(sequence[0]), "train", body))
    content = {"images": [], "annotations": []}
    for number, annotation in enumerate(official):
        x1, y1, x2, y2 = annotation.box
        content["images"].insert(
            0,  # in another order: they are found by their ids
            {
                "id": number,
                "sequence": "fabricated_00",
                "file_name": annotation.image.name,
                "width": WIDTH,
                "height": HEIGHT,
                "cam_param": {"focal": [K[0, 0], K[1, 1]], "princpt": [K[0, 2], K[1, 2]]},
            },
        )
        vectors = Rotation.from_matrix(annotation.rotations).as_rotvec()
        content["annotations"].append(
            {
                "image_id": number,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "smpl_param": {"pose": vectors.ravel().tolist(), "shape": annotation.betas.tolist()},
                "smpl_joint_cam": annotation.joints_3d[:24].ravel().tolist(),
            }
        )
    for ours, theirs in zip(official, read_3dpw_json(*write_json(content), body), strict=True):
        assert ours.image.name == theirs.image.name
        assert theirs.image.parent.name == "fabricated_00"
        for name in ("box", "rotations", "betas", "translation", "keypoints_2d_weights", "joints_3d_weights"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4, err_msg=name)
        for name in ("keypoints_2d", "joints_3d"):
            np.testing.assert_allclose(getattr(ours, name)[:24], getattr(theirs, name)[:24], atol=1e-3, err_msg=name)


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
def test_annotation_files_say_what_is_wrong_with_them(name, request, write_json, tmp_path):
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


# Labels


def full_annotation(image, seed=0):
    rng = np.random.default_rng(seed)
    joints = rng.normal(scale=0.3, size=(29, 3)).astype(np.float32) + np.array([0, 0, 4], dtype=np.float32)
    ones = np.ones(29, dtype=np.float32)
    return Annotation(
        image=image,
        box=np.array([100.0, 60, 140, 100]),
        rotations=matrices(rng.normal(size=(1, 72)))[0].astype(np.float32),
        betas=rng.normal(size=10).astype(np.float32),
        translation=rng.normal(size=3).astype(np.float32),
        joints_3d=joints,
        joints_3d_weights=ones,
        keypoints_2d=rng.uniform(60, 140, (29, 2)).astype(np.float32),
        keypoints_2d_weights=ones,
        twists=rng.normal(size=(23, 2)).astype(np.float32),
        twist_weights=np.ones(23, dtype=np.float32),
    )


def test_label_masks_are_hybriks(tmp_path):
    annotation = full_annotation(tmp_path / "image.jpg")
    assert LABEL_MASKS["h36m"].apply(annotation) is annotation
    coco, mpi, pw3d = (LABEL_MASKS[name].apply(annotation) for name in ("coco", "3dhp", "3dpw"))
    assert (
        coco.joints_3d is coco.joints_3d_weights is coco.rotations is coco.betas is coco.twists is coco.translation is None
    )
    assert mpi.rotations is mpi.betas is mpi.twists is mpi.twist_weights is None
    assert mpi.joints_3d is not None
    assert pw3d.twists is None
    assert pw3d.rotations is not None
    assert pw3d.betas is not None
    for masked in (coco, mpi, pw3d):
        assert masked.keypoints_2d_weights.tolist() == [1] * 24 + [0] * 5
    assert pw3d.joints_3d_weights.tolist() == [1] * 24 + [0] * 5
    assert annotation.joints_3d_weights.all()  # the original is as it was


def test_annotations_refuse_wrong_shapes_and_halves(tmp_path):
    annotation = full_annotation(tmp_path / "image.jpg")
    with pytest.raises(ValueError, match="betas"):
        dataclasses.replace(annotation, betas=np.zeros(11))
    with pytest.raises(ValueError, match="come together"):
        dataclasses.replace(annotation, twists=None)


# Crops


def test_crop_shows_the_box_and_keypoints_lie_on_it(tmp_path):
    """A white square as the person: its corners are where the keypoints say."""
    write_image(tmp_path / "image.jpg")
    corners = np.array([[100, 60], [140, 60], [140, 100], [100, 100]])
    annotation = full_annotation(tmp_path / "image.jpg")
    annotation.keypoints_2d[:4] = corners
    dataset = AnnotatedImages("set", [annotation], spec=CropSpec(size=100))
    sample = dataset.load(0)
    assert sample.crop.shape == (100, 100, 3)
    assert sample.crop.dtype == np.uint8
    np.testing.assert_allclose(sample.keypoints[:4], [[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]], atol=1e-6)
    assert (sample.crop[13:87, 13:87] > 240).all()
    ring = np.concatenate([sample.crop[:8].reshape(-1, 3), sample.crop[92:].reshape(-1, 3)])
    assert (np.abs(ring.astype(int) - [40, 40, 200]) < 30).all()  # RGB
    np.testing.assert_array_equal(sample.camera, np.float32(DEFAULT_CAMERA))
    assert sample.camera_weight == 0


def test_boxes_are_cut_off_at_the_image_as_detectors_do(tmp_path):
    write_image(tmp_path / "image.jpg")
    annotation = full_annotation(tmp_path / "image.jpg")
    inside, beyond = (
        AnnotatedImages("set", [dataclasses.replace(annotation, box=np.array(box))]).load(0)
        for box in ([0.0, 50, 120, 240], [-80.0, 50, 120, 300])
    )
    np.testing.assert_array_equal(inside.crop, beyond.crop)
    np.testing.assert_array_equal(inside.keypoints, beyond.keypoints)


def test_another_box_may_be_given(tmp_path):
    write_image(tmp_path / "image.jpg")
    dataset = AnnotatedImages("set", [full_annotation(tmp_path / "image.jpg")])
    moved = dataset.load(0, np.array([110.0, 60, 150, 100]))
    np.testing.assert_allclose(moved.keypoints[:, 0], dataset.load(0).keypoints[:, 0] - 10 / 50, atol=1e-6)


def test_missing_and_damaged_images_are_named(tmp_path):
    dataset = AnnotatedImages("set", [full_annotation(tmp_path / "image.jpg")])
    with pytest.raises(InputError, match="no such file"):
        dataset.load(0)
    (tmp_path / "image.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="damaged"):
        dataset.load(0)
    write_image(tmp_path / "image.jpg")
    outside = dataclasses.replace(dataset[0], box=np.array([400.0, 0, 500, 100]))
    with pytest.raises(InputError, match="outside"):
        AnnotatedImages("set", [outside]).load(0)


def test_datasets_are_sequences(tmp_path):
    annotations = [full_annotation(tmp_path / f"{i}.jpg", i) for i in range(3)]
    dataset = AnnotatedImages("set", iter(annotations))
    assert len(dataset) == 3
    assert list(dataset) == annotations
    assert dataset[1:] == annotations[1:]
    assert "3 persons" in repr(dataset)
    with pytest.raises(IndexError):
        dataset[3]
    with pytest.raises(InputError, match="empty"):
        AnnotatedImages("set", [])


# Batches


def test_targets_decode_to_the_labelled_body(sequence, write_3dpw, body):
    """What a perfect network would say of a 3DPW crop lies on the true skeleton in the camera."""
    content, truth = sequence
    dataset = read_3dpw(write_3dpw(content), "train", body, mask=LabelMask(), spec=CropSpec(size=64))
    config = GLNetConfig(keypoints=31, crop=CropSpec(size=64))
    crops, targets = collate([dataset.load(index) for index in range(4)], config)
    assert crops.shape == (4, 64, 64, 3)
    assert crops.dtype == torch.uint8
    assert targets.estimate.keypoints.shape == (4, 31, 2)
    assert targets.keypoint_weights.tolist() == [[1.0] * 29 + [0.0] * 2] * 4
    joints = np.concatenate([person[1] for person in truth])
    lifted = lift(targets.estimate, targets.cameras, config.depth_range)[:, :29]
    np.testing.assert_allclose(lifted, joints, atol=0.1 * MM)
    # Everything with known twists: the decoder gives back vertices.
    labels = Decoder(config, body).encode(
        targets.rotations,
        targets.estimate.betas,
        torch.from_numpy(np.stack([a.translation for a in dataset])),
        targets.cameras,
    )
    torch.testing.assert_close(targets.estimate.keypoints[:, :29], labels.keypoints, atol=1e-4, rtol=0)
    torch.testing.assert_close(targets.estimate.depths[:, :29], labels.depths, atol=1e-4, rtol=0)
    torch.testing.assert_close(targets.estimate.scale, labels.scale, atol=1e-4, rtol=0)


def test_unknown_labels_have_no_weight_and_finite_values(coco, mpi_inf_3dhp, h36m, write_json):
    samples = []
    for content, read in ((coco, read_coco), (mpi_inf_3dhp, read_mpi_inf_3dhp), (h36m, read_h36m)):
        samples.append(read(*write_json(content)).load(0))
    _, targets = collate(samples, GLNetConfig())
    assert (targets.segments == UNKNOWN).all() and targets.segments.shape == targets.places.shape[:3] == (3, 64, 64)
    for part in (*targets.estimate, *targets._replace(segments=targets.places)[1:]):
        assert part.isfinite().all()
        assert part.dtype == torch.float32
    assert targets.keypoint_weights.sum(1).tolist() == [3, 12, 29]
    assert targets.depth_weights.sum(1).tolist() == [0, 12, 29]
    assert targets.rotation_weights.sum(1).tolist() == [0, 0, 21]
    assert targets.shape_weights.flatten().tolist() == [0, 0, 1]
    assert targets.scale_weights.flatten().tolist() == [0, 1, 1]
    assert targets.pose_weights.sum(1).tolist() == [0, 0, 24]
    assert targets.estimate.depths[:, 0].tolist() == [0, 0, 0]


def test_networks_without_swing_twist_get_6d_rotations(h36m, coco, write_json):
    samples = [read_h36m(*write_json(h36m)).load(0), read_coco(*write_json(coco)).load(0)]
    _, targets = collate(samples, GLNetConfig(swing_twist=False))
    assert targets.estimate.rotation.shape == (2, 24, 6)
    assert targets.rotation_weights.sum(1).tolist() == [24, 0]
    torch.testing.assert_close(targets.estimate.rotation[0, :, :3], targets.rotations[0, :, :, 0])


# Mixtures


@pytest.fixture
def sets(tmp_path):
    """Four sets of 7, 50, 20 and 11 persons under HybrIK's names."""
    return {
        name: AnnotatedImages(name, [full_annotation(tmp_path / f"{name}{i}.jpg", i) for i in range(size)])
        for name, size in zip(("h36m", "coco", "3dhp", "3dpw"), (7, 50, 20, 11), strict=True)
    }


def test_mixture_draws_in_exact_proportion_each_epoch(sets):
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=1)
    assert len(mixture) == 100
    assert sum(HYBRIK_RATIOS.values()) == pytest.approx(1)
    for epoch in range(3):
        picks = [mixture.pick(epoch * 100 + i) for i in range(100)]
        assert np.bincount([dataset for dataset, _ in picks]).tolist() == [30, 40, 10, 20]
        first_half = np.bincount([dataset for dataset, _ in picks[:50]], minlength=4)
        assert (np.abs(first_half - [15, 20, 5, 10]) < 10).all()  # shuffled, not in blocks


def test_nobody_comes_twice_before_everybody_came_once(sets):
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=2)
    picks = [mixture.pick(i) for i in range(500)]
    for dataset, members in enumerate(sets.values()):
        counts = np.bincount([person for d, person in picks if d == dataset], minlength=len(members))
        assert counts.max() - counts.min() <= 1


def test_draws_depend_on_seed_and_number_alone(sets):
    forwards = [Mixture(sets, HYBRIK_RATIOS, seed=3).pick(i) for i in range(300)]
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=3)
    assert [mixture.pick(i) for i in reversed(range(300))] == forwards[::-1]
    assert [Mixture(list(sets.values()), [3, 4, 1, 2], seed=3).pick(i) for i in range(50)] == forwards[:50]
    assert [Mixture(sets, HYBRIK_RATIOS, seed=4).pick(i) for i in range(300)] != forwards
    assert forwards[:100] != forwards[100:200]


def test_mixture_loads_what_it_picks(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.jpg")
    first, second = (AnnotatedImages(n, [full_annotation(tmp_path / f"{n}.jpg", i)]) for i, n in enumerate("ab"))
    mixture = Mixture([first, second], [1, 1], length=4)
    samples = list(mixture)
    assert len(samples) == 4
    for number, sample in enumerate(samples):
        dataset, person = mixture.pick(number)
        np.testing.assert_array_equal(sample.betas, (first, second)[dataset][person].betas)
    with pytest.raises(IndexError):
        mixture.pick(-1)


def test_shares_that_do_not_divide_and_sets_left_out(sets):
    mixture = Mixture(list(sets.values()), [1, 1, 1, 0], length=10)
    picks = [mixture.pick(i) for i in range(30)]
    counts = np.bincount([dataset for dataset, _ in picks], minlength=4)
    assert counts.sum() == 30
    assert counts[3] == 0
    assert (np.abs(counts[:3] - 10) <= 3).all()


@pytest.mark.parametrize("ratios", [[1, 2], [1, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, np.nan], {"h36m": 1}])
def test_ratios_that_do_not_fit_are_refused(sets, ratios):
    with pytest.raises(InputError, match="ratio"):
        Mixture(sets, ratios)
