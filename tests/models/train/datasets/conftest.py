"""Fabricated miniatures that readers' tests share: a posed demo body whose truth is known, small JPEGs, hand-made JSON."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.body import Body
from glnet_infer.skeleton import JOINT_NAMES
from glnet_train.data import Annotation

WIDTH, HEIGHT = 320, 240
K = np.array([[300.0, 0, 165], [0, 310, 118], [0, 0, 1]])


@pytest.fixture(scope="session")
def intrinsics():
    """Intrinsics of every miniature."""
    return K


@pytest.fixture(scope="session")
def image_size():
    """Width and height of every miniature."""
    return WIDTH, HEIGHT


@pytest.fixture(scope="session")
def body(demo_body):
    """The demo body with its pelvis as far from the origin as SMPL's, where it matters what the root turns about."""
    data = demo_body.data
    return Body(dataclasses.replace(data, v_template=data.v_template + np.array([-0.01, -0.22, 0.03])))


@pytest.fixture(scope="session")
def matrices():
    """Makes n x 24 rotation matrices of axis-angle vectors."""

    def make(vectors):
        return Rotation.from_rotvec(np.reshape(vectors, (-1, 3))).as_matrix().reshape(-1, 24, 3, 3)

    return make


@pytest.fixture(scope="session")
def posed(matrices):
    """Makes vertices and joints of SMPL poses (n x 72), the root joint where it rests, n x V x 3 and n x 29 x 3."""

    def pose(body, vectors, betas):
        with torch.no_grad():
            result = body.pose(
                torch.tensor(matrices(vectors), dtype=torch.float32),
                torch.tensor(betas, dtype=torch.float32).expand(len(vectors), -1),
            )
        return result.vertices.double().numpy(), result.joints.double().numpy()

    return pose


@pytest.fixture(scope="session")
def write_image():
    """Writes noise that survives JPEG, with a white square of 40 pixels at x 100..140, y 60..100."""

    def write(path, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((HEIGHT, WIDTH, 3), (200, 40, 40 + seed), dtype=np.uint8)
        image[60:100, 100:140] = 255
        cv2.imwrite(str(path), image)

    return write


@pytest.fixture(scope="session")
def assert_explains():
    """Checks that an error says why or what to do, with the given words in its text."""

    def check(error, *words):
        assert error.what
        assert error.why or error.fix
        for word in words:
            assert word in str(error), str(error)

    return check


@pytest.fixture(scope="session")
def decoded_vertices():
    """Makes the vertices, in the camera, of a body that is posed as an annotation says."""

    def decode(body, annotation):
        with torch.no_grad():
            result = body.pose(torch.tensor(annotation.rotations)[None], torch.tensor(annotation.betas)[None])
        return result.vertices[0].numpy() + annotation.translation

    return decode


@pytest.fixture
def standing(body, rng, posed):
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
                "h36m_joints": (joints[:17] * 1000 + 5).ravel().tolist(),
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
def write_json(tmp_path, write_image):
    """Writes an annotation file and its images; returns (file, image folder)."""

    def write(content):
        (tmp_path / "set.json").write_text(json.dumps(content))
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for image in content.get("images", []) if isinstance(content, dict) else []:
            write_image(folder / image.get("sequence", "") / image.get("file_name", "unnamed.jpg"))
        return tmp_path / "set.json", folder

    return write


@pytest.fixture(scope="session")
def full_annotation(matrices):
    """Makes annotations with every label, at random."""

    def make(image, seed=0):
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

    return make
