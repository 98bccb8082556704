"""Bundles with engines: builds that are interrupted or fail leave the old one, others replace it."""

import dataclasses
import os
import shutil
import signal
import sys
import time

import pytest

from glnet_export.engines.build import build, build_crop
from glnet_export.engines.progress import Phases
from glnet_export.pipeline import export
from glnet_export.publish import bundle_under_construction
from glnet_export.sources import Source
from glnet_infer import ExportError, OutputError
from glnet_infer.backends.tensorrt.products import RTX, log_of
from glnet_infer.bundle import Bundle

# Stopping


from_another_thread = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def interruptible():
    """Ctrl-C as on a terminal: shells make background processes deaf to it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@from_another_thread
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_build_is_cancelled_and_leaves_the_old_bundle(
    exported, retraced, small_checkpoint, tmp_path, rtx, ada, half, content
):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before, log = content(old), log_of(rtx)
    mark, calls = log.mark(), []

    def interrupt(phase, fraction):
        calls.append(phase)
        if len(calls) == 1:  # Ctrl-C reaches the main thread, wherever the signal is sent from
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        export(Source(small_checkpoint), old, half=half, engine=ada, progress=interrupt)
    assert "BuildCanceled" in log.since(mark)  # not merely left running
    assert content(old) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


@from_another_thread
@pytest.mark.usefixtures("interruptible")
def test_a_crop_engine_that_is_interrupted_leaves_the_old_bundle(
    exported, retraced, small_checkpoint, tmp_path, monkeypatch, ada, half, content
):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before, folders, calls = content(old), [], []

    def interrupt(phase, fraction):
        calls.append(phase)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    def interrupted(*arguments, **options):
        folders.append(sorted(content(arguments[1])))
        return build_crop(*arguments, progress=interrupt)

    monkeypatch.setattr("glnet_export.engines.stages.build_crop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(Source(small_checkpoint), old, half=half, engine=ada)
    assert "model.rtx-sm89.mixed.engine" in folders[0]  # the other engine was there already
    assert content(old) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_the_listener_of_progress_raises_stops_the_build(toolkit, mixed, tmp_path, ada):
    def broken(phase, fraction):
        raise BrokenPipeError("nobody looks at the bar")

    with pytest.raises(BrokenPipeError):
        build(mixed, tmp_path, toolkit, ada, half_layers=80, progress=broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_bundle(
    exported, retraced, small_checkpoint, tmp_path, ada, half, content, monkeypatch
):
    # Turing is refused beforehand, since this is what would come of it.
    turing_too = dataclasses.replace(RTX, compute_capabilities=frozenset({"7.5"}))
    for module in ("toolkit", "build"):
        monkeypatch.setattr(f"glnet_export.engines.{module}.RTX", turing_too)
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before = content(old)
    turing = dataclasses.replace(ada, compute_capabilities=("7.5",))
    with pytest.raises(ExportError, match="did not build"):
        export(Source(small_checkpoint), old, half=half, engine=turing)
    assert content(old) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_phases_within_phases():
    phases = Phases()
    phases.start("all", None, 4)
    assert (phases.current, phases.fraction) == ("all", 0)
    phases.step("all", 0)
    phases.start("part", "all", 2)
    phases.step("part", 0)
    assert (phases.current, phases.fraction) == ("part", 0.25 + 0.5 / 4)
    phases.finish("part")
    assert phases.fraction == 0.375  # never back
    phases.step("all", 3)
    assert phases.fraction == 1
    phases.finish("all")
    assert (phases.current, phases.fraction) == ("", 1)


# Replacing bundles


def test_a_bundle_with_an_engine_may_be_replaced(exported, tmp_path, content):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    with bundle_under_construction(old) as (directory, publish):
        (directory / "manifest.json").write_text("new")
        publish()
    assert content(old) == {"manifest.json": b"new"}


def test_a_users_graph_beside_a_bundle_without_engine_is_kept(exported, tmp_path):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    manifest = Bundle.open(old).manifest
    dataclasses.replace(manifest, engines=(), reference=None, graphs=(manifest.graph,)).write(old)
    for name in ("crop.rtx-sm89.engine", "model.rtx-sm89.mixed.engine", "crop.onnx", "reference.npz"):
        (old / name).unlink()
    with pytest.raises(OutputError, match="will not be overwritten") as error, bundle_under_construction(old):
        pytest.fail("the block was entered")
    assert "model.mixed.onnx" in error.value.why
