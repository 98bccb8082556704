"""A motion with exact truth: the demo body in smooth random poses, posed by the network's own body module."""

import numpy as np
import pytest

from glnet_infer import Intrinsics
from glnet_infer.results.motion import Motion
from glnet_infer.results.motion_data import DOUBTED
from glnet_infer.rotations import exponential

FRAMES, RATE = 40, 25.0
CAMERA = Intrinsics(600.0, 610.0, 315.0, 245.0)
SIZE = (640, 480)


@pytest.fixture(scope="session")
def skin(demo_body):
    from glnet_export.skin import skin_of

    return skin_of(demo_body.data)


def smooth_poses(frames: int, seed: int, *, spread: float = 0.5) -> np.ndarray:
    """T x 24 x 3 x 3: joints swing by some tens of degrees; the person faces the camera, upright in the picture."""
    random = np.random.default_rng(seed)
    times = np.arange(frames)[:, None, None] / RATE
    speeds, phases = random.uniform(1, 4, (24, 3)), random.uniform(0, 6, (24, 3))
    rotations = exponential(random.normal(0, spread, (24, 3)) * np.sin(times * speeds + phases))
    rotations[:, 0] = exponential([np.pi, 0, 0]) @ rotations[:, 0]  # y down, towards the camera
    return rotations


def rows_of(body, track: int, frames: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    import torch

    random = np.random.default_rng(seed)
    rotations = smooth_poses(FRAMES, seed)[frames].astype(np.float32)
    betas = np.repeat(random.normal(0, 1, (1, 10)), len(frames), axis=0).astype(np.float32)
    start, way = np.array([-0.6 + track * 0.6, 0.2, 4.0]), np.array([0.3, 0.0, -0.5])
    translation = (start + way * frames[:, None] / FRAMES).astype(np.float32)
    with torch.no_grad():
        posed = body.pose(torch.from_numpy(rotations), torch.from_numpy(betas))
    joints = posed.joints.numpy() + translation[:, None]
    confidence = random.uniform(0.3, 1, len(frames)).astype(np.float32)
    pixels = CAMERA.project(posed.vertices.numpy() + translation[:, None])
    return {
        "frame": frames,
        "time": frames / RATE,
        "track": np.full(len(frames), track),
        "box": np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1),
        "score": random.uniform(0.5, 1, len(frames)).astype(np.float32),
        "confidence": confidence,
        "status": np.where(confidence < 0.4, DOUBTED, 0).astype(np.uint8),
        "rotations": rotations,
        "betas": betas,
        "translation": translation,
        "joints": joints,
        "keypoints_2d": CAMERA.project(joints).astype(np.float32),
    }


@pytest.fixture(scope="session")
def motion(demo_body) -> Motion:
    """Two persons; the second comes later and is away from frame 20 to 25."""
    second = np.array([frame for frame in range(5, FRAMES) if not 20 <= frame < 26])
    parts = [rows_of(demo_body, 1, np.arange(FRAMES), seed=1), rows_of(demo_body, 3, second, seed=2)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((columns["track"], columns["frame"]))
    return Motion(
        **{name: values[order] for name, values in columns.items()},
        frame_numbers=np.arange(FRAMES),
        frame_times=np.arange(FRAMES) / RATE,
        intrinsics=CAMERA,
        image_size=SIZE,
        rate=RATE,
        body="demo",
        bundle="by-hand",
        backend="none",
        threshold=0.4,
    )


@pytest.fixture(scope="session")
def truth(motion, demo_body) -> np.ndarray:
    """R x V x 3, by the network's own body."""
    import torch

    with torch.no_grad():
        posed = demo_body.pose(torch.from_numpy(motion.rotations), torch.from_numpy(motion.betas))
    return posed.vertices.numpy() + motion.translation[:, None]
