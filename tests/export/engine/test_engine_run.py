"""Engines are run and judged: the float32 module plays one on a GPU; what half precision costs."""

import dataclasses
import functools
import sys
import types

import numpy as np
import onnxruntime
import pytest

from glnet.backend import TorchBackend
from glnet_export.crop_graph import write_crop_graph
from glnet_export.engines.build import NOT_RUN
from glnet_export.engines.crop_parity import compare_crops
from glnet_export.engines.stages import obstacle_to
from glnet_export.pipeline import export
from glnet_export.sources import Source
from glnet_infer import ExportError
from glnet_infer.bundle import Bundle
from glnet_infer.contract import CROP_REDUCTIONS, CropSpec
from glnet_infer.devices import Gpu

# With a GPU, the engine is run


@pytest.fixture
def run_engine(exported, retraced, small_checkpoint, small_recovery, machine, monkeypatch, tmp_path, ada, half):
    """Exports where the engine runs; gives the engine's record.

    The float32 module plays the engine, ONNX Runtime the crop engine, with their results changed.
    """

    def run_engine(change=lambda outputs: outputs, change_crops=lambda crops: crops, options=half):
        machine(Gpu("NVIDIA GeForce RTX 4090", "8.9"))
        closed = []
        ran.clear()

        class Engine(TorchBackend):
            buckets = 2, 1

            def run(self, crops, cameras):
                ran.append(len(crops))
                return change(super().run(crops, cameras))

            def cut(self, frame, squares):
                graph = tmp_path / "crop.onnx"
                write_crop_graph(graph, small_recovery.network.config.crop.size)
                session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
                return change_crops(session.run(["crops"], {"frame": frame, "squares": squares})[0])

            def close(self):
                closed.append(True)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.close()

        def opened(bundle, int8):
            assert not int8 and [engine.state for engine in bundle.manifest.engines] == [NOT_RUN]
            return Engine(small_recovery)

        monkeypatch.setattr("glnet_export.engines.stages.TensorRtBackend", opened)
        try:
            export(Source(small_checkpoint), tmp_path / "b", half=options, engine=ada)
        finally:
            assert closed == [True]
        (engine,) = Bundle.open(tmp_path / "b").manifest.engines
        return engine

    ran = run_engine.ran = []
    return run_engine


def graph_of(folder):
    return Bundle.open(folder / "b").manifest.graph_for("engines")


def test_an_engine_that_runs_is_compared(run_engine, half, tmp_path):
    engine = run_engine()
    found = engine.parity["engine"]
    assert engine.state == "run" and found["backend"] == "torch-cpu"
    assert found["crops"] == half.crops and found["vertices_max_mm"] == 0 and found["pixel_agreement"] == 1
    assert found["bounds"] == graph_of(tmp_path).parity["bounds"]
    cut = engine.parity["crop"]
    assert (
        cut["crops"] == 7 + len(CROP_REDUCTIONS)
        and cut["frame"] == [1280, 720]
        and cut["largest_difference"] <= cut["bound"] == 1
    )
    assert 0.99 < cut["equal"] <= 1


def test_every_size_of_an_engine_is_compared(run_engine, half):
    run_engine(options=dataclasses.replace(half, crops=6))
    assert run_engine.ran == [2, 1, 2, 1]


def test_an_engine_whose_runtime_is_not_installed_is_not_run(machine, monkeypatch, exported):
    """As for the lean runtime, which the machine that builds need not have."""
    machine(Gpu("NVIDIA GeForce RTX 4090", "8.9"))
    (record,) = Bundle.open(exported[0]).manifest.engines
    assert obstacle_to(record, exported[0]) == ""
    lean = dataclasses.replace(record, flavor="tensorrt", lean=True)
    monkeypatch.setitem(sys.modules, "tensorrt_lean", None)
    assert "lean runtime is not installed" in obstacle_to(lean, exported[0])
    monkeypatch.setitem(sys.modules, "tensorrt_lean", types.SimpleNamespace(__version__="11.4.0.106"))
    assert "11.4.0.106" in obstacle_to(lean, exported[0])  # another version than the one that built


def brighter(row, crops):
    crops[row] |= 3
    return crops


@pytest.mark.parametrize(
    "change",
    [
        lambda crops: np.roll(crops, 1, axis=2),
        lambda crops: crops[..., ::-1],
        lambda crops: crops[::-1],
        *(functools.partial(brighter, row) for row in range(-len(CROP_REDUCTIONS), 0)),
    ],
    ids=["a pixel aside", "BGR", "other squares", *(f"reduction {reduction}" for reduction in CROP_REDUCTIONS)],
)
def test_a_crop_engine_that_cuts_other_crops_is_refused(run_engine, tmp_path, change):
    with pytest.raises(ExportError, match="crops that training saw") as caught:
        run_engine(change_crops=change)
    assert "grey level" in caught.value.why and not (tmp_path / "b").exists()


def test_crops_are_compared_on_frames_that_the_engine_takes():
    asked = []

    def cut(frame, squares):
        asked.append(frame.shape)
        return np.zeros((len(squares), 64, 64, 3), np.uint8)

    for largest in ((640, 4000), (16, 16)):
        report = compare_crops(cut, CropSpec(64), largest)
        assert report.frame == (asked[-1][1], asked[-1][0]) and report.largest_difference > 50
    assert asked == [(720, 640, 3), (16, 16, 3)]


def test_an_engine_that_is_too_far_from_the_module_is_refused(run_engine, tmp_path):
    def stretched(outputs):
        return outputs | {"vertices": outputs["vertices"] + np.float32([0.2, 0, 0])}

    with pytest.raises(ExportError, match="Half precision costs too much") as caught:
        run_engine(stretched)
    assert "200 mm off" in caught.value.why and "--fp32" in caught.value.fix
    assert not (tmp_path / "b").exists()


def test_how_many_crops_may_choose_another_pixel_is_an_option(run_engine, half):
    def another(outputs):
        moved, pixel = outputs["vertices"].copy(), outputs["reference_pixel"].copy()
        moved[0, :, 0] += 0.01
        pixel[0] = (pixel[0] + 1) % 8
        return outputs | {"vertices": moved, "reference_pixel": pixel}

    with pytest.raises(ExportError, match="Half precision costs too much") as caught:
        run_engine(another)  # one crop of two
    assert caught.value.why.startswith("50.0% of the crops") and "bound 95%" in caught.value.why
    engine = run_engine(another, options=dataclasses.replace(half, min_agreement=0.5))
    assert engine.parity["engine"]["tied"][0][0] == pytest.approx(10, rel=0.01)  # mm


def test_an_engine_that_gives_no_numbers_is_refused(run_engine, tmp_path):
    def overflowing(outputs):
        return outputs | {"rotations": outputs["rotations"] * np.float32("nan")}

    with pytest.raises(ExportError, match="no numbers") as caught:
        run_engine(overflowing)
    assert caught.value.why == "not finite: rotations_max_deg" and "--fp32" in caught.value.fix
    assert not (tmp_path / "b").exists()


# What half precision costs


def test_half_precision_that_costs_too_much_is_refused(exported, retraced, small_checkpoint, tmp_path, half):
    with pytest.raises(ExportError, match="Half precision") as caught:
        export(Source(small_checkpoint), tmp_path / "b", half=dataclasses.replace(half, max_error_mm=1e-9))
    assert "--fp32" in caught.value.fix and "mm off" in caught.value.why
    assert not (tmp_path / "b").exists()


def test_modules_that_stay_in_float32_are_recorded(exported, retraced, small_checkpoint, tmp_path, half):
    options = dataclasses.replace(half, float32_modules=("backbone.stage4",))
    export(Source(small_checkpoint), tmp_path / "b", half=options)
    assert graph_of(tmp_path).kept_in_float32 == ("backbone.stage4",)
