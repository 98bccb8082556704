"""3DPW from its own files and from HybrIK's: bodies in the camera, hostile and damaged files."""

import os
import pickle
from datetime import date
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.config import GLNetConfig
from glnet.decoding import Decoder
from glnet.estimate import lift
from glnet_infer.contract import CropSpec
from glnet_infer.errors import InputError
from glnet_train.data import LabelMask, collate, read_3dpw, read_3dpw_json

MM = 1e-3
FRAMES = 2


@pytest.fixture
def sequence(body, rng, posed, intrinsics):
    """Two persons in two frames of a moving camera, and their true bodies in the camera: (content, truth)."""
    turns = Rotation.from_rotvec([[0.1, 2.9, 0.2], [0.3, -2.6, -0.1]])  # the camera looks back at the actors
    extrinsics = np.tile(np.eye(4), (FRAMES, 1, 1))
    extrinsics[:, :3, :3] = turns.as_matrix()
    content = {
        "sequence": "fabricated_00",
        "cam_intrinsics": intrinsics,
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
def write_3dpw(tmp_path, write_image):
    def write(content, split="train", protocol=2):
        folder = tmp_path / "3dpw" / "sequenceFiles" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{content['sequence']}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        for frame in range(FRAMES):
            write_image(tmp_path / "3dpw" / "imageFiles" / content["sequence"] / f"image_{frame:05d}.jpg")
        return tmp_path / "3dpw"

    return write


def test_3dpw_annotations_put_the_body_where_brute_force_puts_it(
    sequence, write_3dpw, body, decoded_vertices, intrinsics, image_size
):
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
        pixels = joints @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_allclose(annotation.keypoints_2d, pixels, atol=0.01)
        inside = np.clip(np.concatenate([pixels.min(0), pixels.max(0)]), 0, [*image_size, *image_size])
        np.testing.assert_allclose(annotation.box, inside, atol=0.01)
        assert annotation.image.name == f"image_{frame:05d}.jpg"
        assert annotation.image.is_file()
        assert annotation.twists is None
        np.testing.assert_allclose(annotation.intrinsics.matrix, intrinsics)
        np.testing.assert_allclose(annotation.betas, content["betas"][person][:10], rtol=1e-6)
        assert annotation.gender == ("male", "female")[person]


@pytest.mark.parametrize("genders", [[b"m", b"f"], ["male", "female"], None])
def test_3dpw_genders_are_read_however_they_are_written(sequence, write_3dpw, body, genders):
    content, _ = sequence
    content["genders"] = genders
    if genders is None:
        del content["genders"]
    found = [annotation.gender for annotation in read_3dpw(write_3dpw(content), "train", body)]
    assert found == ["male"] * 2 + ["female"] * 2 if genders else found == [None] * 4


def test_3dpw_unknown_genders_are_refused(sequence, write_3dpw, body):
    content, _ = sequence
    content["genders"] = ["m", "?"]
    with pytest.raises(InputError, match=r"'\?'"):
        read_3dpw(write_3dpw(content), "train", body)


def test_3dpw_without_joint_positions_uses_the_translation(sequence, write_3dpw, body):
    content, _ = sequence
    with_positions = list(read_3dpw(write_3dpw(content), "train", body))
    del content["jointPositions"]
    without = list(read_3dpw(write_3dpw(content), "train", body))
    for first, second in zip(with_positions, without, strict=True):
        np.testing.assert_allclose(first.translation, second.translation, atol=0.01 * MM)
        np.testing.assert_allclose(first.joints_3d, second.joints_3d, atol=0.01 * MM)


def test_3dpw_puts_the_neutral_pelvis_onto_the_actors_own(sequence, write_3dpw, body, decoded_vertices):
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


def test_3dpw_labels_of_invalid_frames_may_be_anything(sequence, write_3dpw, body):
    """They are left out; a frame that is valid for somebody is not."""
    content, _ = sequence
    for valid in content["campose_valid"]:
        valid[1] = 0
    expected = read_3dpw(write_3dpw(content), "train", body)
    content["cam_poses"][1] = np.nan
    for key in ("poses", "trans", "jointPositions", "poses2d"):
        for values in content[key]:
            values[1] = np.nan
    found = read_3dpw(write_3dpw(content), "train", body)
    assert [a.image.name for a in found] == ["image_00000.jpg"] * 2
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left.joints_3d, right.joints_3d)
    content["campose_valid"][1][1] = 1
    with pytest.raises(InputError, match="cam_poses are not all finite"):
        read_3dpw(write_3dpw(content), "train", body)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_3dpw_pickles_of_old_and_new_protocols_are_read(sequence, write_3dpw, body, protocol):
    assert len(read_3dpw(write_3dpw(sequence[0], protocol=protocol), "train", body)) == 4


class Calls:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_3dpw_pickle_that_would_run_code_is_refused(sequence, write_3dpw, body, tmp_path, assert_explains):
    content, _ = sequence
    content["extra"] = Calls(f"touch '{tmp_path / 'target'}'")
    root = write_3dpw(content)
    with pytest.raises(InputError, match="system") as caught:
        read_3dpw(root, "train", body)
    assert_explains(caught.value, "fabricated_00.pkl", "could run")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("written", [b"cchumpy.ch\nCh\n.", b"cchumpy.ch\nCh\n)R."])
def test_3dpw_pickle_of_one_of_the_body_files_classes_is_refused(sequence, write_3dpw, body, written):
    root = write_3dpw(sequence[0])
    (root / "sequenceFiles" / "train" / "fabricated_00.pkl").write_bytes(written)
    with pytest.raises(InputError, match=r"chumpy\.ch\.Ch, not a dictionary"):
        read_3dpw(root, "train", body)


@pytest.mark.parametrize("key", ["cam_poses", "poses", "betas", "trans", "campose_valid", "cam_intrinsics", "poses2d"])
def test_3dpw_missing_and_malformed_keys_are_named(sequence, write_3dpw, body, key, assert_explains):
    content, _ = sequence
    broken = {name: value for name, value in content.items() if name != key}
    with pytest.raises(InputError, match=f"lacks {key}") as caught:
        read_3dpw(write_3dpw(broken), "train", body)
    assert_explains(caught.value, "fabricated_00.pkl")
    with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
        read_3dpw(write_3dpw({**content, key: [np.zeros((1, 7))] * 2}), "train", body)
    with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
        read_3dpw(write_3dpw({**content, key: [np.array(["x"])] * 2}), "train", body)
    for none_at_all in (3, 0.5, True, None, np.float64(1)):
        with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
            read_3dpw(write_3dpw({**content, key: none_at_all}), "train", body)


def test_3dpw_missing_folders_images_and_splits_are_named(sequence, write_3dpw, body, tmp_path, assert_explains):
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
    assert_explains(caught.value, "No such file", "image_00000.jpg")
    (root / "sequenceFiles" / "train" / "fabricated_00.pkl").write_bytes(b"\x80\x02cut")
    with pytest.raises(InputError, match="was not read"):
        read_3dpw(root, "train", body)


def test_3dpw_json_equals_the_official_files(sequence, write_3dpw, write_json, body, intrinsics, image_size):
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
                "width": image_size[0],
                "height": image_size[1],
                "cam_param": {
                    "focal": [intrinsics[0, 0], intrinsics[1, 1]],
                    "princpt": [intrinsics[0, 2], intrinsics[1, 2]],
                },
            },
        )
        vectors = Rotation.from_matrix(annotation.rotations).as_rotvec()
        content["annotations"].append(
            {
                "image_id": number,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "smpl_param": {"pose": vectors.ravel().tolist(), "shape": annotation.betas.tolist()},
                "smpl_joint_cam": annotation.joints_3d[:24].ravel().tolist(),
                "h36m_joints": annotation.joints_3d[:17].ravel().tolist(),
            }
        )
    for ours, theirs in zip(official, read_3dpw_json(*write_json(content), body), strict=True):
        assert ours.image.name == theirs.image.name
        assert theirs.image.parent.name == "fabricated_00"
        np.testing.assert_allclose(theirs.h36m_joints, ours.joints_3d[:17])  # metres; the official files have none
        for name in ("box", "rotations", "betas", "translation", "keypoints_2d_weights", "joints_3d_weights"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4, err_msg=name)
        for name in ("keypoints_2d", "joints_3d"):
            np.testing.assert_allclose(getattr(ours, name)[:24], getattr(theirs, name)[:24], atol=1e-3, err_msg=name)


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


@pytest.mark.parametrize(
    "value", [b"]q\x00h\x00ah\x00a", b"](L" + b"9" * 400 + b"L\ne", b"ca.b\nC\n)R"], ids=["endless", "huge", "foreign"]
)
def test_3dpw_values_that_are_no_labels_are_refused_at_once(write_3dpw, sequence, body, value):
    root = write_3dpw(sequence[0])
    (root / "sequenceFiles" / "train" / "fabricated_00.pkl").write_bytes(b"}U\x05poses" + value + b"s.")
    with pytest.raises(InputError, match=r"fabricated_00\.pkl"):
        read_3dpw(root, "train", body)


def test_3dpw_objects_of_other_classes_are_left_aside(write_3dpw, sequence, body):
    content = {**sequence[0], "v_template_clothed": [Fraction(1, 2)], "made": date(2018, 9, 8)}
    assert len(read_3dpw(write_3dpw(content), "train", body)) == len(read_3dpw(write_3dpw(sequence[0]), "train", body))
