"""Adopted networks with fabricated weights, and a body whose left and right are equal."""

import numpy as np
import pytest
import torch

from glnet.adopted import KEY, untrained
from glnet.body import Body
from glnet.body.files import BodyData
from glnet.random_init import settle_batch_norms
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, mirror_order

FORMS = ("cliff-hr48", "hybrik-hrnet-w48", "hybrik-hrnet-w48-regression", "hybrik-resnet-34")
HYBRIK = FORMS[1:]


@pytest.fixture(scope="session")
def symmetric_body() -> Body:
    """A body of 300 random vertices about the demo body's joints; vertex i + 150 mirrors vertex i."""
    rng = np.random.default_rng(11)
    half, order = 150, mirror_order(BODY_JOINTS)
    joints = standing_joints(rng)
    template, shapes = np.zeros((2 * half, 3)), rng.normal(scale=0.01, size=(2 * half, 3, 10))
    owner = rng.integers(0, BODY_JOINTS, half)
    owner[:BODY_JOINTS] = range(BODY_JOINTS)
    template[:half] = joints[owner] + rng.normal(scale=0.05, size=(half, 3))
    mirror = np.array([-1, 1, 1])
    template[15, 0] = shapes[15, 0] = 0  # the head's top has no other side
    template[half:], shapes[half:] = template[:half] * mirror, shapes[:half] * mirror[:, None]
    weights = np.zeros((2 * half, BODY_JOINTS))
    weights[range(half), owner] = 1
    weights[half:] = weights[:half][:, order]
    regressor = weights.T / weights.sum(0)[:, None]
    faces = rng.integers(0, 2 * half, (20, 3)).astype(np.int32)
    leaves = np.array([15, 22, 22 + half, 10, 10 + half])
    data = BodyData("symmetric", template, shapes, None, regressor, weights, faces, leaves)
    return Body(data)


def standing_joints(rng) -> np.ndarray:
    """24 joints in a T-pose, metres, y up: left is +x."""
    joints = np.zeros((BODY_JOINTS, 3))
    steps = {
        1: (0.08, -0.08, 0),
        3: (0, 0.12, 0),
        4: (0.02, -0.4, 0),
        6: (0, 0.13, 0),
        7: (0, -0.4, -0.02),
        9: (0, 0.06, 0),
    }
    steps |= {10: (0, -0.05, 0.12), 12: (0, 0.2, 0), 13: (0.08, 0.1, 0), 15: (0, 0.08, 0.05), 16: (0.1, 0.03, 0)}
    steps |= {18: (0.26, 0, 0), 20: (0.25, 0, 0), 22: (0.08, 0, 0)}
    for left, step in list(steps.items()):
        right = mirror_order(BODY_JOINTS)[left]
        if right != left:
            steps[right] = (-step[0], *step[1:])
    for joint in range(1, BODY_JOINTS):
        joints[joint] = joints[PARENTS[joint]] + np.array(steps[joint])
    return joints


@pytest.fixture(scope="session")
def fabricated(symmetric_body, random_crops):
    """Makes an adopted network whose heads answer with persons: upright, somewhat different from crop to crop."""
    made = {}

    def make(form: str, flip_test: bool = False, body: Body = symmetric_body):
        key = (form, flip_test, body)
        if key not in made:
            recovery = untrained({KEY: form, "flip_test": flip_test}, body, seed=5)
            settle_batch_norms(recovery.network, random_crops(3, 256, seed=99))
            if hasattr(recovery.network, "init_shape"):
                recovery.network.init_shape.copy_(torch.linspace(-1, 1, 10).expand_as(recovery.network.init_shape))
            if hasattr(recovery.network, "volume"):  # peaks that are seldom at the edge
                recovery.network.volume.weight.data *= 0.6
            made[key] = recovery
        return made[key]

    return make
