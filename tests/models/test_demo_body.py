"""The demo body: facts that hold for any SMPL-format body, and smplx as the independent reader of its file."""

from pathlib import Path

import numpy as np
import pytest

from glnet_infer.skeleton import BODY_JOINTS, JOINT_NAMES, MIRROR_PAIRS, PARENTS

BODY = Path(__file__).parents[2] / "models/demo/body.npz"
MM = 1e-3
FLIP = np.array([-1.0, 1.0, 1.0])
JOINT = {name: i for i, name in enumerate(JOINT_NAMES[:BODY_JOINTS])}
SWAP = np.arange(BODY_JOINTS)
for left, right in MIRROR_PAIRS:
    if right < BODY_JOINTS:
        SWAP[[left, right]] = right, left


@pytest.fixture(scope="module")
def body() -> dict[str, np.ndarray]:
    with np.load(BODY) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module")
def joints(body):
    return body["J_regressor"] @ body["v_template"]


def shaped(body, component, value):
    return body["v_template"] + value * body["shapedirs"][:, :, component]


def volume(vertices, faces):
    """Cubic metres inside a closed surface, by the divergence theorem; negative when it is inside out."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0


def smplx_model(body):
    smplx = pytest.importorskip("smplx")
    return smplx.SMPL("", data_struct=smplx.utils.Struct(**body), num_betas=10)


def posed(body, betas=None, **degrees):
    """Vertices and joints by smplx; each keyword is a joint and its rotation vector in degrees."""
    torch = pytest.importorskip("torch")
    pose = torch.zeros(1, BODY_JOINTS, 3)
    for name, vector in degrees.items():
        pose[0, JOINT[name]] = torch.deg2rad(torch.tensor(vector, dtype=torch.float32))
    betas = torch.zeros(1, 10) if betas is None else torch.tensor(betas, dtype=torch.float32).reshape(1, 10)
    with torch.no_grad():
        out = smplx_model(body)(betas=betas, body_pose=pose[:, 1:].reshape(1, -1), global_orient=pose[:, 0])
    return out.vertices[0].numpy(), out.joints[0, :BODY_JOINTS].numpy()


# The file


def test_file_has_smpls_keys_and_shapes(body):
    count, triangles = len(body["v_template"]), len(body["f"])
    assert (count, triangles) == (12408, 24812)
    assert {key: value.shape for key, value in body.items()} == {
        "v_template": (count, 3),
        "shapedirs": (count, 3, 10),
        "posedirs": (count, 3, 207),
        "J_regressor": (24, count),
        "weights": (count, 24),
        "kintree_table": (2, 24),
        "f": (triangles, 3),
        "leaf_vertices": (5,),
    }
    assert body["f"].dtype == body["kintree_table"].dtype == np.uint32
    assert not body["posedirs"].any()
    assert all(np.isfinite(value).all() for value in body.values())
    assert BODY.stat().st_size < 3e6


def test_tree_is_smpls(body):
    parents, children = body["kintree_table"]
    assert parents[0] == 2**32 - 1
    assert parents[1:].tolist() == list(PARENTS[1:BODY_JOINTS])
    assert children.tolist() == list(range(BODY_JOINTS))


@pytest.mark.parametrize(("key", "axis", "most"), [("weights", 1, 8), ("J_regressor", 1, 40)])
def test_weights_and_regressor_are_sparse_convex_rows(body, key, axis, most):
    rows = body[key]
    assert rows.min() >= 0
    np.testing.assert_allclose(rows.sum(axis=axis), 1.0, atol=1e-5)
    assert np.count_nonzero(rows, axis=axis).max() <= most


def test_every_joint_moves_some_vertices(body):
    most = body["weights"].max(axis=0)
    collars = [JOINT["left_collar"], JOINT["right_collar"]]  # MakeHuman's rig lets the chest and arms move that skin
    assert (np.delete(most, collars) > 0.5).all()
    assert (most[collars] > 0.3).all()


# The surface


def test_mesh_is_one_closed_surface_of_genus_zero(body):
    faces = body["f"].astype(np.int64)
    count = len(body["v_template"])
    assert np.array_equal(np.unique(faces), np.arange(count))
    half_edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward = half_edges[:, 0] * count + half_edges[:, 1]
    backward = half_edges[:, 1] * count + half_edges[:, 0]
    assert len(np.unique(forward)) == len(forward)  # no edge twice in one direction
    assert np.array_equal(np.sort(forward), np.sort(backward))  # and each once in the other
    assert count - len(forward) // 2 + len(faces) == 2  # Euler's number of a sphere

    label = np.arange(count)
    while True:  # the smallest label of the neighbourhood spreads over a connected mesh
        spread = label.copy()
        np.minimum.at(spread, half_edges[:, 0], label[half_edges[:, 1]])
        spread = spread[spread]
        if np.array_equal(spread, label):
            break
        label = spread
    assert not label.any()


def test_triangles_are_not_degenerate(body):
    a, b, c = (body["v_template"][body["f"][:, i]] for i in range(3))
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() / 2 > 1e-8  # square metres


@pytest.mark.parametrize("component", range(10))
@pytest.mark.parametrize("value", [-2.0, 0.0, 2.0])
def test_people_are_of_human_size_and_right_side_out(body, component, value):
    vertices = shaped(body, component, value)
    assert 1.4 < np.ptp(vertices[:, 1]) < 2.1
    assert 0.040 < volume(vertices, body["f"]) < 0.120


def test_random_people_are_of_human_size(body):
    betas = np.random.default_rng(0).normal(size=(50, 10))
    vertices = body["v_template"] + np.einsum("vcb,nb->nvc", body["shapedirs"], betas)
    heights = np.ptp(vertices[..., 1], axis=1)
    assert heights.min() > 1.35
    assert heights.max() < 2.1
    assert 0.06 < heights.std() < 0.13


# The T-pose


def test_pelvis_is_the_origin(joints):
    np.testing.assert_allclose(joints[JOINT["pelvis"]], 0.0, atol=0.5 * MM)


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_arms_lie_along_x(joints, side, sign):
    shoulder, elbow, wrist, hand = (joints[JOINT[f"{side}_{part}"]] for part in ("shoulder", "elbow", "wrist", "hand"))
    assert 0 < sign * shoulder[0] < sign * elbow[0] < sign * wrist[0] < sign * hand[0]
    for joint in (elbow, wrist):
        np.testing.assert_allclose(joint[1:], shoulder[1:], atol=2 * MM)
    np.testing.assert_allclose(hand[1:], shoulder[1:], atol=25 * MM)


@pytest.mark.parametrize("component", range(10))
@pytest.mark.parametrize("value", [-2.0, 2.0])
def test_arms_stay_horizontal_over_shapes(body, component, value):
    joints = body["J_regressor"] @ shaped(body, component, value)
    for side in ("left", "right"):
        arm = joints[[JOINT[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist")], 1:]
        assert np.ptp(arm, axis=0).max() < 10 * MM


def test_person_stands_and_faces_forward(body, joints):
    vertices = body["v_template"]
    up = [JOINT[name] for name in ("left_foot", "left_ankle", "left_knee", "left_hip", "pelvis", "spine1", "spine2",
                                   "spine3", "neck", "head")]  # fmt: skip
    assert (np.diff(joints[up, 1]) > 0).all()
    assert joints[JOINT["left_foot"], 2] > joints[JOINT["left_ankle"], 2] + 0.08
    midline = np.abs(vertices[:, 0]) < 1 * MM
    face = midline & (vertices[:, 1] > joints[JOINT["head"], 1])
    nose = vertices[face][vertices[face, 2].argmax()]
    assert nose[2] - joints[JOINT["head"], 2] > 0.08


def test_legs_are_slightly_apart(joints):
    hip, ankle = joints[JOINT["left_hip"]], joints[JOINT["left_ankle"]]
    assert np.degrees(np.arctan2(ankle[0] - hip[0], hip[1] - ankle[1])) == pytest.approx(2.0, abs=0.5)


def test_leaf_vertices_are_the_ends(body, joints):
    vertices = body["v_template"]
    head, left_finger, right_finger, left_toe, right_toe = vertices[body["leaf_vertices"]]
    assert head[1] == vertices[:, 1].max()
    assert left_finger[0] == vertices[:, 0].max()
    assert right_finger[0] == vertices[:, 0].min()
    for toe, foot in ((left_toe, "left_foot"), (right_toe, "right_foot")):
        assert toe[2] > vertices[:, 2].max() - 15 * MM
        assert abs(toe[0]) < abs(joints[JOINT[foot], 0])  # the big toe is the inner one
    np.testing.assert_allclose(left_finger * FLIP, right_finger, atol=0.1 * MM)
    np.testing.assert_allclose(left_toe * FLIP, right_toe, atol=0.1 * MM)


def test_joints_lie_inside_the_body(body, joints):
    """Gauss's linking integral: the solid angle of the surface about a point inside is 4 pi, outside 0."""
    for name, joint in zip(JOINT, joints, strict=True):
        a, b, c = (body["v_template"][body["f"][:, i]].astype(np.float64) - joint for i in range(3))
        la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
        top = np.einsum("fi,fi->f", a, np.cross(b, c))
        bottom = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        assert 2 * np.arctan2(top, bottom).sum() == pytest.approx(4 * np.pi, abs=0.01), name


# Left and right


def test_joints_are_mirror_symmetric(body, joints):
    np.testing.assert_allclose(joints[SWAP] * FLIP, joints, atol=0.05 * MM)
    for component in range(10):
        moved = body["J_regressor"] @ shaped(body, component, 2.0)
        np.testing.assert_allclose(moved[SWAP] * FLIP, moved, atol=0.05 * MM)


def test_surface_weights_and_shapes_are_mirror_symmetric(body):
    tree = pytest.importorskip("scipy.spatial").cKDTree(body["v_template"])
    distance, mirror = tree.query(body["v_template"] * FLIP)
    assert distance.max() < 0.02 * MM
    np.testing.assert_allclose(body["weights"][mirror][:, SWAP], body["weights"], atol=1e-5)
    np.testing.assert_allclose(body["shapedirs"][mirror] * FLIP[:, None], body["shapedirs"], atol=0.02 * MM)


# The shape space


def test_betas_are_ordered_by_variance_and_independent(body):
    directions = body["shapedirs"].reshape(-1, 10).astype(np.float64)
    length = np.linalg.norm(directions, axis=0)
    assert (np.diff(length) < 0).all()
    cosine = (directions / length).T @ (directions / length)
    np.testing.assert_allclose(cosine, np.eye(10), atol=5e-3)


def test_positive_betas_raise_the_head(body):
    assert (body["shapedirs"][body["leaf_vertices"][0], 1] >= 0).all()


# smplx reads it


def test_smplx_gives_back_the_template(body, joints):
    vertices, found = posed(body)
    np.testing.assert_allclose(vertices, body["v_template"], atol=0.01 * MM)
    np.testing.assert_allclose(found, joints, atol=0.01 * MM)


def test_smplx_applies_betas(body):
    betas = np.linspace(2, -2, 10)
    vertices, _ = posed(body, betas)
    np.testing.assert_allclose(vertices, body["v_template"] + body["shapedirs"] @ betas, atol=0.02 * MM)


def test_bent_elbows_bring_the_hands_forward(body, joints):
    vertices, found = posed(body, left_elbow=(0, -90, 0), right_elbow=(0, 90, 0))
    for side in ("left", "right"):
        elbow, wrist = found[JOINT[f"{side}_elbow"]], found[JOINT[f"{side}_wrist"]]
        length = np.linalg.norm(joints[JOINT[f"{side}_wrist"]] - joints[JOINT[f"{side}_elbow"]])
        np.testing.assert_allclose(wrist - elbow, (0, 0, length), atol=5 * MM)
    fingers = vertices[body["leaf_vertices"][1:3]]
    assert (fingers[:, 2] > 0.35).all()
    assert volume(vertices, body["f"]) == pytest.approx(volume(body["v_template"], body["f"]), rel=0.03)


def test_bent_knees_bring_the_feet_back_and_leave_the_trunk(body):
    vertices, found = posed(body, left_knee=(90, 0, 0), right_knee=(90, 0, 0))
    for side in ("left", "right"):
        shin = found[JOINT[f"{side}_ankle"]] - found[JOINT[f"{side}_knee"]]
        assert shin[2] < -0.35
        assert abs(shin[1]) < 50 * MM
    still = vertices[:, 1] > 0
    np.testing.assert_allclose(vertices[still], body["v_template"][still], atol=0.01 * MM)
    assert volume(vertices, body["f"]) == pytest.approx(volume(body["v_template"], body["f"]), rel=0.03)
