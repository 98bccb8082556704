"""Fixtures of the network's tests: random skeletons and poses by numpy and scipy, a fabricated body, small networks."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glnet.config import GLNetConfig
from glnet.network import GLNet
from glnet.random_init import random_recovery, settle_batch_norms
from glnet_infer.contract import CropSpec
from glnet_infer.skeleton import BODY_JOINTS, PARENTS, SKELETON_JOINTS


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240)


@pytest.fixture
def random_rest(rng):
    """Makes N rest skeletons: every bone 5 to 50 cm long, in any direction, but hips and spine apart."""

    def make(count: int) -> np.ndarray:
        joints = np.zeros((count, SKELETON_JOINTS, 3))
        bones = rng.normal(size=joints.shape)
        bones *= rng.uniform(0.05, 0.5, (count, SKELETON_JOINTS, 1)) / np.linalg.norm(bones, axis=-1, keepdims=True)
        # The pelvis is a frame of three bones, which must not lie in one line: within 3 cm per axis of a plausible one's.
        pelvis = np.array([[0.1, -0.1, 0.0], [-0.1, -0.1, 0.0], [0.0, 0.1, 0.0]])
        bones[:, 1:4] = pelvis + rng.uniform(-0.03, 0.03, (count, 3, 3))
        for joint in range(1, SKELETON_JOINTS):
            joints[:, joint] = joints[:, PARENTS[joint]] + bones[:, joint]
        return joints

    return make


@pytest.fixture
def random_locals(rng):
    """Makes N x 24 rotation matrices, uniform over all rotations."""

    def make(count: int) -> np.ndarray:
        return Rotation.random(count * BODY_JOINTS, rng).as_matrix().reshape(count, BODY_JOINTS, 3, 3)

    return make


@pytest.fixture
def plausible_poses(rng):
    """Makes N poses (local rotations, N x 24 x 3 x 3): any orientation, joints turned by about 25 degrees."""

    def make(count: int) -> np.ndarray:
        vectors = rng.normal(scale=np.radians(25) / np.sqrt(3), size=(count, BODY_JOINTS, 3))
        matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(count, BODY_JOINTS, 3, 3)
        matrices[:, 0] = Rotation.random(count, rng).as_matrix()
        return matrices

    return make


@pytest.fixture
def smpl_content(rng) -> dict[str, np.ndarray]:
    """The arrays of a small SMPL-format body (300 vertices) with everything at random, pose blend shapes included."""
    vertices = 300
    regressor = rng.random((BODY_JOINTS, vertices)) * (rng.random((BODY_JOINTS, vertices)) < 0.1) + 1e-6
    weights = rng.random((vertices, BODY_JOINTS)) ** 8
    return {
        "v_template": rng.normal(scale=0.5, size=(vertices, 3)),
        "shapedirs": rng.normal(scale=0.02, size=(vertices, 3, 10)),
        "posedirs": rng.normal(scale=0.005, size=(vertices, 3, 207)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:BODY_JOINTS]], range(BODY_JOINTS)], dtype=np.uint32),
        "f": rng.integers(0, vertices, (500, 3)).astype(np.uint32),
        "leaf_vertices": np.array([1, 20, 33, 47, 299]),
    }


@pytest.fixture(scope="session")
def tiny_config(small_config) -> GLNetConfig:
    """The small network on crops of 64 pixels, a grid of 16 cells: milliseconds per pass."""
    return dataclasses.replace(small_config, name="tiny", crop=CropSpec(size=64))


@pytest.fixture(scope="session")
def random_crops():
    """Makes N crops of coloured blotches, uint8; different parts of a crop look different."""

    def make(count: int, size: int = 64, seed: int = 7) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 8, 8, generator=generator) * 255
        crops = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
        noise = torch.randn(crops.shape, generator=generator) * 20
        return (crops + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    return make


@pytest.fixture(scope="session")
def lively_recovery(demo_body, random_crops):
    """Makes a network whose every part matters, with the demo body.

    An initialised network has almost equal pixels; here residuals, confidences and points differ from pixel to pixel
    about as much as a trained one's (residuals of 0.1, points moved by two cells).
    """

    def make(config: GLNetConfig, seed: int = 1):
        recovery = random_recovery(config, demo_body, seed=seed)
        network = recovery.network
        settle_batch_norms(network, random_crops(4, config.crop.size, seed=99))
        spread_out(network, seed)
        return recovery

    return make


def spread_out(network: GLNet, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def fill(parameter: torch.Tensor, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)

    with torch.no_grad():
        fill(network.heads.pixel.weight, 0.02)
        fill(network.heads.pixel.bias, 0.01)
        fill(network.confidence.weight, 0.5)
        fill(network.coarse.weight, 0.005)
        # Scales stay those of persons that fill a crop: far away, float32 itself would be coarse.
        network.heads.pixel.weight[-1] *= 0.1
        network.heads.pixel.bias[-1] *= 0.1
        network.coarse.weight[-1] *= 0.1
        if network.heads.parts is not None:
            fill(network.heads.parts.weight, 0.02)
            fill(network.local_encoding.offsets.weight, 0.1)
            fill(network.local_encoding.offsets.bias, 2.0)


@pytest.fixture(scope="session")
def shared_lively_recovery(lively_recovery, tiny_config):
    return lively_recovery(tiny_config)


@pytest.fixture
def recovery(shared_lively_recovery):
    """A small lively network with the demo body; a copy that the test may change."""
    return copy.deepcopy(shared_lively_recovery)
