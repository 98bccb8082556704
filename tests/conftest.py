"""Fixtures that several packages' tests share. Exporting takes seconds, so one small bundle serves them all."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock

# Several workers share the cores, and on networks this small threads wait for each other longer than they compute. Only
# what is loaded later obeys: torch here, NumPy too in the workers and in programs that tests start.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

pytest.register_assert_rewrite("tensorrt_stand_in")  # what its checks find is shown as a test's own assertions are

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Makes a file or folder once for all workers: the first to ask has ``make(path)`` write it, the others wait."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's folder lies in that of the run
        folder = folder.parent
    folder /= "made-once"
    folder.mkdir(exist_ok=True)

    def get(name: str, make) -> Path:
        path = folder / name
        with FileLock(folder / f".{name}.lock"):
            if not path.exists():
                unfinished = tmp_path_factory.mktemp("unfinished") / name
                make(unfinished)
                unfinished.rename(path)
        return path

    return get


@pytest.fixture(scope="session")
def demo_body():
    """The demo body as a module; what needs it skips where only the runtime is installed."""
    pytest.importorskip("torch")
    from glnet.body import Body, find_body, load_body

    return Body(load_body(find_body("demo")))


@pytest.fixture(scope="session")
def small_config():
    """A GLNet with everything switched on, small enough to export in seconds."""
    from glnet.config import GLNetConfig, HRNetConfig

    backbone = HRNetConfig(
        stem_blocks=1,
        stem_channels=8,
        channels=(8, 8, 16, 16),
        modules=(1, 1, 1),
        blocks=1,
        head_channels=(4, 8, 8, 16),
        feature_channels=64,
    )
    return GLNetConfig(
        name="small", backbone=backbone, pixel_source="all", pixel_channels=24, part_channels=8, keypoints=31
    )


@pytest.fixture(scope="session")
def small_recovery(small_config, demo_body):
    """Its recovery module with random weights; tests must not change it."""
    from glnet.random_init import random_recovery

    return random_recovery(small_config, demo_body, seed=3)


@pytest.fixture(scope="session")
def small_checkpoint(small_recovery, made_once):
    """Its checkpoint, as a file."""
    from glnet.checkpoint import Checkpoint

    return made_once("small.pth", Checkpoint.of(small_recovery.network).save)


@pytest.fixture(scope="session")
def shared_bundle(request, made_once):
    """Its bundle, exported once; tests must not change it. Where nothing can be exported, GLNET_SMALL_BUNDLE names it."""

    def make(path):
        from glnet_export.pipeline import export
        from glnet_export.sources import Source

        export(Source(request.getfixturevalue("small_checkpoint")), path)

    given = os.environ.get("GLNET_SMALL_BUNDLE")
    bundle = Path(given).resolve(strict=True) if given else made_once("small", make)
    before = sorted(bundle.iterdir())
    yield bundle
    assert sorted(bundle.iterdir()) == before, "a test wrote into the bundle that all share; let it have a copy"


@pytest.fixture(scope="session")
def demo_bundle(made_once, demo_body):
    """The bundle of the demonstration network, for tests that need a network which has learnt; not to be changed."""
    from glnet.body.files import demo_directory
    from glnet_export.pipeline import export
    from glnet_export.sources import Source

    checkpoint = demo_directory() / "checkpoint.pth"
    return made_once("demo", lambda path: export(Source(checkpoint), path, parity_crops=1))


@pytest.fixture(scope="session")
def rendered_clip(made_once, demo_body):
    """Two seconds of three rendered persons who cross: a folder with ``clip.mp4`` and ``truth.npz``; not to be changed."""
    from glnet_render.clip import Clip, save_clip

    return made_once("clip", lambda folder: save_clip(Clip(demo_body, seconds=2), folder))


@pytest.fixture
def bundle(shared_bundle, tmp_path):
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(shared_bundle, tmp_path / "bundle")


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """The example photograph, BGR, 1200 x 800 pixels."""
    return cv2.imread(str(EXAMPLES / "person.jpg"))


@pytest.fixture(scope="session")
def person_boxes() -> list[list[float]]:
    """Boxes of the two persons in the example photograph (examples/README.md)."""
    return [[639, 30, 955, 736], [313, 25, 577, 567]]
