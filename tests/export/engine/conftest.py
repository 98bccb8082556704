"""What the engines' tests share: one real export with an engine, on a machine without GPU and classic TensorRT."""

import contextlib
import json
import shutil
import sys

import pytest

from glnet_export.engines.options import EngineOptions, HalfOptions
from glnet_export.engines.progress import StageReport
from glnet_export.engines.toolkit import choose
from glnet_export.graph import trace
from glnet_export.pipeline import export
from glnet_export.sources import Source

# Random weights are no measure of half precision: two crops, and a bound for the mistakes of centimetres alone.
ADA = EngineOptions("tensorrt-rtx", ("8.9",))
HALF = HalfOptions(crops=2, max_error_mm=100)
HERE = "tensorrt-rtx compiles without a GPU; install it with the extra rtx"


@pytest.fixture(scope="session")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason=HERE)


@pytest.fixture(scope="session")
def ada():
    """Options for an engine that is built in seconds."""
    return ADA


@pytest.fixture(scope="session")
def half():
    """Mixed precision of random weights, judged mildly on two crops."""
    return HALF


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine without GPU and without classic TensorRT; calling it with GPUs adds them."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def have(*gpus):
        for module in ("engines.toolkit", "engines.build", "engines.stages"):
            monkeypatch.setattr(f"glnet_export.{module}.gpus", lambda: list(gpus))

    have()
    return have


@pytest.fixture(scope="session")
def exported(rtx, small_checkpoint, shared_bundle, made_once):
    """The one real export with an engine: its bundle, what was told of its stages, and of its progress."""
    folder = made_once("engine", lambda folder: export_with_engine(small_checkpoint, shared_bundle, folder))
    return folder / "small", *json.loads((folder / "said.json").read_text())


def export_with_engine(checkpoint, bundle, folder):
    """Fill the folder: the bundle, and in ``said.json`` what its export said.

    The float32 graph is that of the given bundle, which spares tracing it again.
    """
    folder.mkdir()
    told, progress = {}, {}

    @contextlib.contextmanager
    def stage(name):
        report, told[name] = StageReport(), []
        yield report
        told[name] = [*report.lines, *report.tables]

    def retrace(recovery, path, **options):
        if path.name == "model.onnx":
            shutil.copy(bundle / path.name, path)
        else:
            trace(recovery, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("engines.toolkit", "engines.build", "engines.stages"):
            patch.setattr(f"glnet_export.{module}.gpus", list)
        for module in ("pipeline", "engine_stages"):
            patch.setattr(f"glnet_export.{module}.trace", retrace)
        export(
            Source(checkpoint),
            folder / "small",
            half=HALF,
            engine=ADA,
            stage=stage,
            progress=lambda *each: progress.setdefault(list(told)[-1], []).append(each),
        )
    (folder / "said.json").write_text(json.dumps([told, progress]))


@pytest.fixture(scope="session")
def mixed(exported):
    return exported[0] / "model.mixed.onnx"


@pytest.fixture(scope="session")
def full(exported):
    return exported[0] / "model.onnx"


@pytest.fixture
def toolkit(rtx):
    return choose(ADA)


@pytest.fixture
def retraced(monkeypatch, exported):
    """Replaces tracing by copies of the real export's graphs."""
    for module in ("pipeline", "engine_stages"):
        monkeypatch.setattr(
            f"glnet_export.{module}.trace", lambda _, path, **__: shutil.copy(exported[0] / path.name, path)
        )


@pytest.fixture(scope="session")
def content():
    """Reads a folder: the bytes of its files by their names."""

    def read(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return read
