"""Bodies are posed: smplx is the oracle."""

import collections

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.body import Body, find_body, load_body
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS

MM = 1e-3


def smplx_posed(content, poses, betas):
    """Vertices and 24 joints by smplx in float64, from N x 72 axis-angle and N x 10 betas."""
    smplx = pytest.importorskip("smplx")
    model = smplx.SMPL(
        "",
        data_struct=smplx.utils.Struct(**content),
        num_betas=10,
        dtype=torch.float64,
        vertex_ids=collections.defaultdict(int),  # its extra joints are of no interest, and not every mesh has them
        create_betas=False,
        create_global_orient=False,
        create_body_pose=False,
        create_transl=False,
    )
    poses, betas = torch.tensor(poses), torch.tensor(betas)
    with torch.no_grad():
        out = model(betas=betas, body_pose=poses[:, 3:], global_orient=poses[:, :3])
    return out.vertices.numpy(), out.joints[:, :BODY_JOINTS].numpy()


def random_pose(rng, count):
    return rng.normal(scale=0.6, size=(count, 3 * BODY_JOINTS)), rng.normal(scale=1.5, size=(count, 10))


def our_posed(body, poses, betas, dtype=torch.float32):
    matrices = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, BODY_JOINTS, 3, 3)
    with torch.no_grad():
        return body.pose(torch.tensor(matrices, dtype=dtype), torch.tensor(betas, dtype=dtype))


@pytest.mark.parametrize("source", ["demo", "fabricated"])
def test_vertices_and_joints_agree_with_smplx(source, smpl_content, fabricated, rng):
    if source == "demo":
        with np.load(find_body("demo")) as archive:
            content, data = dict(archive), load_body(find_body("demo"))
    else:
        content, data = smpl_content, fabricated
        assert data.posedirs is not None
    poses, betas = random_pose(rng, 20)
    vertices, joints = smplx_posed(content, poses, betas)
    found = our_posed(Body(data), poses, betas)
    # 0.01 mm: float32 of coordinates up to 2 m over nine joints; measured 0.0003 mm.
    np.testing.assert_allclose(found.vertices, vertices, atol=0.01 * MM)
    np.testing.assert_allclose(found.joints[:, :BODY_JOINTS], joints, atol=0.01 * MM)


def test_pose_blend_shapes_matter_and_follow_local_rotations(smpl_content, fabricated, save_npz, rng):
    """The root turns the body as a whole: local rotations, and so pose blend shapes, stay what they are."""
    body = Body(fabricated)
    poses, betas = random_pose(rng, 1)
    flat = Body(load_body(save_npz({**smpl_content, "posedirs": 0 * smpl_content["posedirs"]}, "flat.npz")))
    difference = our_posed(body, poses, betas).vertices - our_posed(flat, poses, betas).vertices
    assert difference.abs().max() > 10 * MM
    turned = poses.copy()
    turned[:, :3] = 0
    root = Rotation.from_rotvec(poses[0, :3])
    pelvis = body.rest_joints(torch.tensor(betas).float())[0, 0].numpy()
    expected = root.apply(our_posed(body, turned, betas).vertices[0].numpy() - pelvis) + pelvis
    np.testing.assert_allclose(our_posed(body, poses, betas).vertices[0], expected, atol=0.01 * MM)


def test_body_without_pose_blend_shapes_is_one_with_zeros(smpl_content, save_npz):
    without = {key: value for key, value in smpl_content.items() if key != "posedirs"}
    zeros = {**smpl_content, "posedirs": np.zeros((300, 3, 207))}
    for name, content in (("without.npz", without), ("zeros.npz", zeros)):
        assert load_body(save_npz(content, name)).posedirs is None


def test_rest_joints_are_regressed_from_the_shaped_template(smpl_content, fabricated, rng):
    betas = rng.normal(size=(5, 10))
    found = Body(fabricated).rest_joints(torch.tensor(betas).float())
    shaped = smpl_content["v_template"] + np.einsum("vcb,nb->nvc", smpl_content["shapedirs"], betas)
    expected = np.concatenate(
        [
            np.einsum("jv,nvc->njc", smpl_content["J_regressor"], shaped),
            shaped[:, smpl_content["leaf_vertices"]],
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, atol=0.001 * MM)


def test_leaves_follow_their_parents_rigidly(fabricated, rng):
    body = Body(fabricated)
    poses, betas = random_pose(rng, 10)
    joints = our_posed(body, poses, betas).joints.double().numpy()
    rest = body.rest_joints(torch.tensor(betas).float()).double().numpy()
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, BODY_JOINTS, 3, 3)
    for leaf in range(BODY_JOINTS, SKELETON_JOINTS):
        joint = PARENTS[leaf]
        rotation = np.eye(3)
        while joint >= 0:
            rotation = local[:, joint] @ rotation
            joint = PARENTS[joint]
        parent = PARENTS[leaf]
        expected = joints[:, parent] + np.einsum("nij,nj->ni", rotation, rest[:, leaf] - rest[:, parent])
        np.testing.assert_allclose(joints[:, leaf], expected, atol=0.005 * MM)


def test_body_adds_nothing_to_a_checkpoint(demo_body):
    assert not demo_body.state_dict()
    assert not list(demo_body.parameters())
