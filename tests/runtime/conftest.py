"""What several runtime tests share: the command and a recoverer on the small bundle, boxes of all kinds, made results."""

import numpy as np
import pytest
from typer.testing import CliRunner

from glnet_infer import Intrinsics, Meshes, MeshRecoverer
from glnet_infer.commands.infer import app as infer_app

WIDTH, HEIGHT = 320, 240


@pytest.fixture
def plain_output_and_nobodys_files(monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("home")  # a developer's own SMPL files must not show up in the doctor's report
    monkeypatch.setenv("HOME", str(elsewhere))
    monkeypatch.setenv("USERPROFILE", str(elsewhere))  # its name on Windows
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("GLNET_BODY_DIR", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GLNET_BUNDLE", raising=False)


@pytest.fixture
def infer(shared_bundle, tmp_path, plain_output_and_nobodys_files):
    """Runs glnet-infer on the CPU, with results in ``out``."""

    def run(*arguments, bundle=shared_bundle, output=tmp_path / "out", backend="onnxruntime-cpu"):
        options = ["-b", str(bundle), "-o", str(output), "--backend", backend]
        return CliRunner().invoke(infer_app, [*map(str, arguments), *options])

    return run


@pytest.fixture(scope="session")
def recoverer(shared_bundle):
    """A recoverer on the CPU; tests must not close it."""
    with MeshRecoverer(shared_bundle, "onnxruntime-cpu") as recoverer:
        yield recoverer


@pytest.fixture(scope="session")
def many_boxes() -> np.ndarray:
    """Boxes in the 1200 x 800 photograph: inside, over every edge, tiny, larger than the image."""
    return np.array(
        [
            [639, 30, 955, 736],
            [313, 25, 577, 567],
            [-120.5, 300.25, 80, 700],
            [1100, -90, 1330, 200],
            [500, 700, 700.5, 1000],
            [600, 400, 606, 411],
            [-400, -300, 1700, 1300],
        ]
    )


@pytest.fixture
def meshes() -> Meshes:
    """Two spheres of 0.3 m radius at known places in front of a known camera, in a 320 x 240 image."""
    trimesh = pytest.importorskip("trimesh")
    sphere = trimesh.creation.icosphere(subdivisions=3)
    generator = np.random.default_rng(5)

    def numbers(*shape):
        return generator.normal(size=shape).astype(np.float32)

    centers = np.array([[-0.5, 0.1, 3.0], [0.6, -0.2, 4.0]])
    return Meshes(
        vertices=(sphere.vertices * 0.3 + centers[:, None]).astype(np.float32),
        joints=(numbers(2, 29, 3) * 0.1 + centers[:, None]).astype(np.float32),
        keypoints_2d=numbers(2, 31, 2) * 50 + 100,
        rotations=numbers(2, 24, 3, 3),
        betas=numbers(2, 10),
        translation=centers.astype(np.float32),
        confidence=np.array([0.25, 0.75], dtype=np.float32),
        reference_points=numbers(2, 2) * 50 + 100,
        boxes=np.array([[60.5, 70, 160, 170], [180, 60, 260, 140]]),
        intrinsics=Intrinsics(300.0, 310.0, 155.0, 125.0),
        image_size=(WIDTH, HEIGHT),
        faces=np.asarray(sphere.faces, dtype=np.int32),
        backend="by-hand",
    )
