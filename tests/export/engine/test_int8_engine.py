"""Engines in int8: TensorRT for RTX compiles the graph that is written for it, and what came out is read back."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from glnet_export.commands.main import app
from glnet_export.engines.add import add_to_bundle
from glnet_export.engines.build import build
from glnet_export.engines.progress import StageReport
from glnet_export.engines.reference import judge_by_reference
from glnet_infer import BundleError, ExportError
from glnet_infer.backends import kinds, open_backend
from glnet_infer.bundle import Bundle, check_all_files, record_file
from glnet_infer.bundle.records import INT8_ENGINES, NOT_RUN


def test_tensorrt_compiles_the_int8_graph(rtx, int8_bundle, ada, tmp_path):
    path = shutil.copytree(int8_bundle, tmp_path / "small")
    add_to_bundle(path, dataclasses.replace(ada, precision="int8", profile=(1, 1, 1)))  # the quickest to build
    manifest = check_all_files(path)
    (engine,), graph = manifest.engines, manifest.graph_for(INT8_ENGINES)
    assert engine.file.file == "model.rtx-sm89.int8.engine" and engine.graph == graph.file.file
    assert engine.precision == "int8" and engine.crop.file.file == "crop.rtx-sm89.engine"
    assert engine.layers["kinds"]["convolution"]["int8"] == engine.layers["int8"] == graph.int8_layers > 0
    assert engine.layers["half"] == 0 and engine.layers["kinds"]["convolution"]["float32"] > 0
    assert engine.state == NOT_RUN and engine.parity == {}
    bundle = Bundle.open(path)
    assert not kinds()["tensorrt"].serves(bundle) and kinds()["tensorrt-int8"].serves(bundle)


def test_tensorrt_does_not_read_the_graph_for_cpus(toolkit, int8_bundle, ada, tmp_path):
    """The reason for a second graph: without it, the first would do."""
    with pytest.raises(ExportError, match="does not read") as error:
        build(int8_bundle / "model.int8.onnx", tmp_path, toolkit, ada, half_layers=0)
    assert "zero point is not supported" in error.value.why


def test_a_float32_graph_is_not_taken_for_an_int8_one(toolkit, int8_bundle, ada, tmp_path):
    with pytest.raises(ExportError, match="in int8 where it should") as error:
        build(int8_bundle / "model.onnx", tmp_path, toolkit, ada, half_layers=0, int8_layers=5)
    assert error.value.why.startswith("5 ") and "; 0 do" in error.value.why and list(tmp_path.iterdir()) == []


def test_a_bundle_without_the_graph_says_how_to_get_it(exported, ada, tmp_path):
    path = shutil.copytree(exported[0], tmp_path / "small")
    with pytest.raises(ExportError, match="no graphs that engines in int8 are built from") as error:
        add_to_bundle(path, dataclasses.replace(ada, precision="int8"))
    assert "--mixed --int8" in error.value.fix and check_all_files(path) == Bundle.open(exported[0]).manifest


def test_the_command_asks_for_it(monkeypatch, tmp_path):
    asked = []

    def add(directory, options, **_):
        asked.append(options.precision)
        raise ExportError("Enough is known.")

    monkeypatch.setattr("glnet_export.engines.add.add_to_bundle", add)
    for arguments in (["--precision", "int8"], []):
        CliRunner().invoke(app, ["engine", str(tmp_path), *arguments])
    assert asked == ["int8", "mixed"]
    assert CliRunner().invoke(app, ["engine", str(tmp_path), "--precision", "fp8"]).exit_code == 2


def test_it_may_move_vertices_twice_as_far_as_its_graph(int8_bundle, tmp_path):
    path = shutil.copytree(int8_bundle, tmp_path / "small")
    rng = np.random.default_rng(0)
    crops, cameras = rng.integers(0, 256, (2, 256, 256, 3), np.uint8), np.tile(np.float32([4, 4, 0, 0]), (2, 1))
    np.savez(path / "reference.npz", crops=crops, cameras=cameras)
    document = json.loads((path / "manifest.json").read_text())
    (parity,) = (graph["parity"] for graph in document["graphs"] if graph["purpose"] == INT8_ENGINES)
    document["reference"] = dataclasses.asdict(record_file(path / "reference.npz"))

    def judged(allowed, moved):
        """What is said of an engine that is float32, but for a shift of every vertex in millimetres."""
        parity["vertices_mean_mm"] = allowed
        (path / "manifest.json").write_text(json.dumps(document))
        bundle = Bundle.open(path)
        float32 = open_backend("onnxruntime-cpu", bundle, 1)

        class Played:
            name, buckets = "played", (2,)

            @staticmethod
            def run(crops, cameras):
                outputs = float32.run(crops, cameras)
                return {**outputs, "vertices": outputs["vertices"] + np.float32((moved / 1000, 0, 0))}

        return judge_by_reference(bundle, "int8")(Played(), StageReport())

    assert judged(20.0, 39.0)["vertices_mean_mm"] == pytest.approx(39, abs=0.01)
    with pytest.raises(ExportError, match="too far from float32") as error:
        judged(20.0, 41.0)
    assert "at most 40" in error.value.why
    with pytest.raises(BundleError, match="is damaged"):
        judged("far", 0.0)
