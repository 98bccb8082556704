"""An int8 graph: what the quantizer writes, which layers it leaves alone, what it costs, and who runs it."""

import dataclasses
import itertools
import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from glnet_export.bf16.options import Bf16Options
from glnet_export.commands.main import app
from glnet_export.int8 import stage
from glnet_export.int8.options import Int8Options
from glnet_export.int8.persons import photographed
from glnet_export.int8.quantizer import FOR_ENGINES, Quantizer, int8_layers
from glnet_export.int8.stage import Trial, layers_of
from glnet_export.narrow_cost import NarrowCost, cost, vertex_shift
from glnet_infer import BackendError, BundleError, ExportError, MeshRecoverer
from glnet_infer.backends import kinds, open_backend
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import INT8, INT8_ENGINES
from glnet_infer.contract import CropSpec
from glnet_infer.detection import DEFAULT_DETECTOR
from glnet_infer.onnxruntime_sessions import open_session, session_options
from glnet_render import SyntheticSource


def test_the_bundle_has_the_graph_and_what_it_costs(int8_bundle):
    manifest = Bundle.open(int8_bundle).manifest
    record, float32 = manifest.graph_for(INT8), manifest.graph
    assert record.precision == "int8" and float32.precision == "fp32" and not float32.kept_in_float32
    assert record.file.bytes < float32.file.bytes  # most of both is the body
    assert record.parity["crops"] == 32 and record.parity["bounds"] == {"growth": 1}
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm"):
        before, after = record.parity[name]
        assert before != after and after < 2 * before
    model = onnx.load(int8_bundle / record.file.file)
    quantized = quantized_layers(model)
    assert len(set(quantized)) == record.int8_layers and not record.kept_in_float32  # the bound holds with all of them
    assert all(name.startswith(("network.backbone", "network.local_encoding")) for name in quantized)
    # A scale for each output channel.
    scales = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer if each.name.endswith("_scale")}
    assert any(scale.size > 1 for scale in scales.values())


def quantized_layers(model):
    """Names of the layers whose weights are stored as int8."""
    return [
        each.name.removesuffix(".weight_quantized") for each in model.graph.initializer
        if each.data_type == TensorProto.INT8 and each.name.endswith("weight_quantized")
    ]  # fmt: skip


def test_the_graph_for_engines_is_what_tensorrt_takes(int8_bundle):
    """Signed bytes about 0 and biases in float32; values are rounded where a convolution reads them, and nowhere else."""
    record = Bundle.open(int8_bundle).manifest.graph_for(INT8_ENGINES)
    model = onnx.load(int8_bundle / record.file.file)
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8 and not zero_point.any()
    weights = [node.input[0] for node in pairs if node.input[0] in constants]
    assert {constants[name].dtype for name in weights} == {np.dtype(np.int8)}
    assert len(weights) == len(quantized_layers(model)) == int8_layers(model) == record.int8_layers > 0
    makers = {output: node for node in model.graph.node for output in node.output}
    rounded = [makers[node.input[0]].op_type for node in pairs if node.op_type == "QuantizeLinear"]
    assert "Relu" in rounded and "Conv" not in rounded
    assert record.parity["crops"] == 32 and record.parity["bounds"] == {"growth": 1}
    assert record.parity["vertices_mean_mm"] > 0 and "dot_products" not in record.parity


def test_it_is_run_by_name_alone(int8_bundle, photograph, person_boxes):
    found = {}
    for name in ("onnxruntime-cpu", "onnxruntime-int8"):
        with MeshRecoverer(int8_bundle, name, threads=1) as recoverer:
            assert recoverer.backend == name and name in repr(recoverer)
            found[name] = recoverer(photograph, person_boxes)
    shift = np.linalg.norm(found["onnxruntime-cpu"].vertices - found["onnxruntime-int8"].vertices, axis=-1)
    assert shift.mean() > 0 and np.isfinite(shift).all()
    with MeshRecoverer(int8_bundle) as recoverer:
        assert recoverer.backend != "onnxruntime-int8"
    assert kinds()["onnxruntime-int8"].serves(Bundle.open(int8_bundle))


def test_a_bundle_without_it_says_how_to_get_it(shared_bundle):
    with pytest.raises(BackendError, match="has no int8 graph") as error:
        open_backend("onnxruntime-int8", Bundle.open(shared_bundle))
    assert "--int8" in error.value.fix
    assert not kinds()["onnxruntime-int8"].serves(Bundle.open(shared_bundle))


def test_a_changed_graph_is_refused_by_who_runs_it(int8_bundle, tmp_path):
    bundle = shutil.copytree(int8_bundle, tmp_path / "bundle")
    shutil.copy(bundle / "model.onnx", bundle / "model.int8.onnx")
    open_backend("onnxruntime-cpu", Bundle.open(bundle)).close()
    with pytest.raises(BundleError, match=r"model\.int8\.onnx"):
        open_backend("onnxruntime-int8", Bundle.open(bundle))
    document = json.loads((bundle / "manifest.json").read_text())
    del document["graphs"][1]["file"]["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError):
        Bundle.open(bundle)


@pytest.mark.parametrize("flags, slow", [("fpu avx2 avx512_vnni", False), ("fpu avx2", True), ("", False)])
def test_a_processor_without_the_instructions_is_said(int8_bundle, monkeypatch, tmp_path, flags, slow):
    (tmp_path / "cpuinfo").write_text(f"model name : A processor\nflags : {flags}\n" if flags else "processor : 0\n")
    monkeypatch.setattr("glnet_infer.devices.Path", lambda _: tmp_path / "cpuinfo")
    with MeshRecoverer(int8_bundle, "onnxruntime-int8", threads=1) as recoverer:
        assert ("VNNI" in recoverer.backend_reason) == slow
    assert ("VNNI" in kinds()["onnxruntime-int8"].state()) == slow


def test_a_verdict_beyond_the_bound_ends_the_export(add_int8, monkeypatch, tmp_path):
    monkeypatch.setattr(stage.Trial, "choose", lambda *_: [])
    with pytest.raises(ExportError, match="Int8 costs too much") as error:
        add_int8(tmp_path / "bundle", -0.5)  # a growth below zero is kept by nobody
    assert "mpjpe grows from" in error.value.why and "leave --int8 out" in error.value.fix


def test_the_manifest_names_what_stays_in_float32_and_others_than_the_choices_persons_judge(
    add_int8, monkeypatch, tmp_path
):
    seeds, kept = [], ["local_encoding.fuse"]

    def source(*arguments, seed):
        seeds.append(seed)
        return SyntheticSource(*arguments, seed=seed)

    monkeypatch.setattr(stage, "SyntheticSource", source)
    monkeypatch.setattr(stage.Trial, "choose", lambda *_: kept)
    add_int8(tmp_path / "bundle", 1)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    for purpose in (INT8, INT8_ENGINES):
        record = manifest.graph_for(purpose)
        assert record.kept_in_float32 == tuple(kept)
        layers = quantized_layers(onnx.load(tmp_path / "bundle" / record.file.file))
        assert len(set(layers)) == record.int8_layers and "network.local_encoding.fuse" not in layers
    assert len(set(seeds)) == len(seeds) == 3  # ranges, choice, verdict


def test_the_command_asks_for_it(monkeypatch, tmp_path):
    asked = {}

    def export(*_, **options):
        asked.update(options)
        raise ExportError("Enough is known.")

    monkeypatch.setattr("glnet_export.pipeline.export", export)
    arguments = ["--random-init", "demo", "-o", str(tmp_path / "b"), "--int8", "--int8-crops", "64"]
    CliRunner().invoke(app, [*arguments, "--max-int8-growth", "0.01", "--calibration", str(tmp_path)])
    assert asked["int8"] == Int8Options(tmp_path, 64, 0.01)
    CliRunner().invoke(app, ["demo", "--int8", "-o", str(tmp_path / "b")])  # as many as its model card tells of
    assert asked["int8"] == Int8Options(crops=1024) and asked["half"] is not None and asked["bf16"] is None
    CliRunner().invoke(app, ["demo", "--bf16", "-o", str(tmp_path / "b")])
    assert asked["int8"] is None and asked["bf16"] == Bf16Options(crops=1024)
    missing = CliRunner().invoke(app, ["--random-init", "demo", "--int8", "--calibration", str(tmp_path / "photos")])
    assert missing.exit_code == 3 and "There is no folder" in missing.output and "load" not in missing.output
    refused = CliRunner().invoke(app, ["--random-init", "demo", "--int8-crops", "64"])
    assert refused.exit_code == 2 and "add --int8" in refused.output


def one_convolution(weight):
    """A graph with one convolution of the crops' planes, and five crops with their cameras."""
    nodes = [
        helper.make_node("Cast", ["crops"], ["image"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "layer.weight"], ["y"], name="conv"),
        helper.make_node("ReduceSum", ["cameras"], ["unused"]),
    ]
    inputs = [
        helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 8, 8, 3]),
        helper.make_tensor_value_info("cameras", TensorProto.FLOAT, ["N", 4]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", len(weight), 8, 8])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "layer.weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    crops = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    return model, crops, np.ones((5, 4), np.float32)


class Stubbed(Trial):
    """Ten groups of layers of the same work; MPJPE grows by what is given for those in int8."""

    def __init__(self, growth):
        self.growth = growth
        self.share = dict.fromkeys(growth, 0.1)

    def cost(self, kept, persons, recovery):
        grown = 100 + sum(self.growth[group] for group in self.growth if group not in kept)
        return NarrowCost(8, 1.0, 1.0, (100, grown), (100, 100), (100, 100))

    def _by_harm(self, persons):
        return sorted(self.growth, key=self.growth.get, reverse=True)


def test_the_most_harmful_layers_stay_in_float32_until_three_quarters_of_the_bound_hold():
    growth = dict(zip("abcdefghij", (1, 2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 9), strict=True))  # 12.7 % in all
    assert Stubbed(growth).choose(None, None, 0.17) == []
    assert Stubbed(growth).choose(None, None, 0.13) == ["j"]
    assert Stubbed(growth).choose(None, None, 0.05) == ["j"]
    assert Stubbed(growth).choose(None, None, 0.04) == ["j", "b"]
    assert Stubbed(growth).choose(None, None, None) == []  # random weights
    with pytest.raises(ExportError, match="Int8 costs too much") as error:  # with fewer than half of them in int8
        Stubbed(dict.fromkeys("abcdefghij", 1)).choose(None, None, 0.06)
    assert "mpjpe grows from 100.00 to 105.00 mm" in error.value.why and "--max-int8-growth" in error.value.fix


def test_harm_is_measured_one_group_at_a_time(shared_bundle, small_recovery, monkeypatch, tmp_path):
    """What a group kept in float32 leaves in the graph, and which groups do harm, on real graphs."""
    bundle = shutil.copytree(shared_bundle, tmp_path / "bundle")
    manifest = Bundle.open(bundle).manifest
    persons = SyntheticSource(small_recovery.body, small_recovery.crop, seed=1).sample(2)
    layers = layers_of(small_recovery)
    quantizer = Quantizer(bundle / manifest.graph.file.file, layers, persons.crops.numpy(), persons.cameras.numpy())
    shown = []
    trial = Trial(bundle, manifest, quantizer, shown.append)
    assert sum(trial.share.values()) == pytest.approx(1)
    monkeypatch.setattr(stage, "LEAST", 1)  # no group may stay in float32: it ends as soon as harm is measured
    with pytest.raises(ExportError):
        trial.choose(persons, small_recovery, -0.5)  # a growth below zero is kept by nobody
    (table,) = shown  # also where the export fails
    rows = [line.split() for line in table.splitlines()[2:]]
    harm = {row[0]: float(row[1]) for row in rows}
    assert harm.keys() == trial.share.keys() and max(harm.values()) > 0
    ratios = [moved / trial.share[group] for group, moved in harm.items()]
    # Harm is printed to 0.01 mm.
    assert all(one > other - 0.01 / min(trial.share.values()) for one, other in itertools.pairwise(ratios))
    first = rows[0][0]
    trial.cost([first], persons, small_recovery)
    found = set(quantized_layers(onnx.load(bundle / "model.int8.onnx")))
    assert found == {layer for layer in layers if not layer.startswith(f"network.{first}")} < set(layers)


def test_a_layer_that_is_used_twice_is_in_int8_twice(tmp_path):
    model, crops, cameras = one_convolution(np.ones((3, 3, 1, 1), np.float32))
    second = helper.make_node("Conv", ["y", "layer.weight"], ["z"], name="again")
    model.graph.node.append(second)
    model.graph.output[0].name = "z"
    onnx.save(model, tmp_path / "float.onnx")
    quantizer = Quantizer(tmp_path / "float.onnx", ["layer"], crops, cameras)
    assert quantizer.work == {"layer": 2 * 3 * 3 * 8 * 8}
    quantizer.write(tmp_path / "int8.onnx", ["layer"])
    convolutions = [node for node in onnx.load(tmp_path / "int8.onnx").graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2 and all("Dequantize" in node.input[0] for node in convolutions)
    with pytest.raises(ExportError, match="not set up") as error:
        Quantizer(tmp_path / "float.onnx", ["layer", "other"], crops, cameras)
    assert "no convolution of other" in error.value.why


def test_a_convolution_in_int8_is_off_by_its_steps(tmp_path):
    """Against NumPy in float64: each factor is at most half a step of its own scale off."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    model, crops, cameras = one_convolution(weight)
    onnx.save(model, tmp_path / "float.onnx")
    quantizer = Quantizer(tmp_path / "float.onnx", ["layer"], crops, cameras)
    assert quantizer.work == {"layer": 4 * 3 * 8 * 8}
    quantizer.write(tmp_path / "int8.onnx", ["layer"])
    assert quantized_layers(onnx.load(tmp_path / "int8.onnx")) == ["layer"]
    session = open_session((tmp_path / "int8.onnx").read_bytes(), session_options(1))
    (found,) = session.run(["y"], {"crops": crops, "cameras": cameras})
    exact = np.einsum("oi,nhwi->nohw", weight[:, :, 0, 0].astype(float), crops.astype(float))
    half_step = np.abs(weight).max(axis=(1, 2, 3)) / 127 / 2  # of each output channel's weights; pixels have whole steps
    output_step = (exact.max() - min(exact.min(), 0)) / 255
    allowed = half_step * 3 * 255 + np.abs(weight).sum(axis=(1, 2, 3)) * 0.5 + 0.51 * output_step
    assert (np.abs(found - exact).max(axis=(0, 2, 3)) <= allowed).all()
    assert np.abs(found - exact).max() > 0


def test_for_engines_factors_are_rounded_about_0_and_results_are_not(tmp_path):
    """Against NumPy in float64."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    model, crops, cameras = one_convolution(weight)
    onnx.save(model, tmp_path / "float.onnx")
    Quantizer(tmp_path / "float.onnx", ["layer"], crops, cameras).write(tmp_path / "int8.onnx", ["layer"], FOR_ENGINES)
    session = open_session((tmp_path / "int8.onnx").read_bytes(), session_options(1))
    (found,) = session.run(["y"], {"crops": crops, "cameras": cameras})
    assert crops.max() == 255  # no pixel is halfway between two steps of 255 / 127
    pixels = np.rint(crops / (255 / 127)) * (255 / 127)
    steps = np.abs(weight).max(axis=(1, 2, 3), keepdims=True).astype(float) / 127
    exact = np.einsum("oi,nhwi->nohw", (np.rint(weight / steps) * steps)[:, :, 0, 0], pixels)
    # Three products of up to 255 x 3 in float32: their sums are off by some 1e-4.
    np.testing.assert_allclose(found, exact, atol=2e-3, rtol=0)


def test_errors_are_against_the_truth(demo_body):
    persons = SyntheticSource(demo_body, CropSpec(64), seed=1).sample(3)
    with torch.no_grad():
        vertices, joints = demo_body.pose(persons.rotations, persons.betas)
    exact = {
        "vertices": vertices.numpy() + np.float32(2),
        "joints": joints.numpy() + np.float32(2),
        "reference_pixel": np.zeros((3, 2), np.int32),
    }
    off = {name: array.copy() for name, array in exact.items()}
    off["joints"][:, 1] += np.float32((0.024, 0, 0))  # one of 24 joints by 24 mm
    off["vertices"][..., 1] += np.float32(0.005)
    off["reference_pixel"][0] = 1
    found = cost(off, exact, persons, demo_body)
    assert found.mpjpe_mm == pytest.approx((0, 1), abs=1e-3)
    assert found.pve_mm == pytest.approx((0, 5), abs=1e-3)
    assert found.pa_mpjpe_mm[0] == pytest.approx(0, abs=1e-3) and 0 < found.pa_mpjpe_mm[1] < 3
    assert found.vertices_mean_mm == pytest.approx(5, abs=1e-3) == vertex_shift(off, exact)
    assert found.pixel_agreement == pytest.approx(2 / 3) and found.crops == 3


def test_growth_is_a_share_of_float32s_error():
    found = NarrowCost(8, 1.0, 1.0, (100, 103), (50, 50), (200, 199))
    assert not found.misses(0.031)
    assert [miss.split()[0] for miss in found.misses(0.029)] == ["mpjpe"]
    broken = dataclasses.replace(found, pve_mm=(200, float("nan")))
    assert [miss.split()[0] for miss in broken.misses(0.5)] == ["pve"]


def test_photographs_are_cut_as_the_runtime_cuts_them(int8_bundle, photograph, tmp_path):
    for index in range(8):
        cv2.imwrite(str(tmp_path / f"{index}.png"), photograph)
    spec = Bundle.open(int8_bundle).manifest.crop
    (tmp_path / "damaged.png").write_bytes((tmp_path / "0.png").read_bytes()[:1000])
    (crops, cameras), unread = photographed(tmp_path, spec)
    assert len(unread) == 1 and "damaged.png" in unread[0]
    assert crops.shape == (16, spec.size, spec.size, 3)
    with MeshRecoverer(int8_bundle, "onnxruntime-cpu", threads=1, detector=DEFAULT_DETECTOR) as recoverer:
        persons = recoverer.prepare(photograph, None, None)
    np.testing.assert_array_equal(crops[:2], persons.crops)
    np.testing.assert_array_equal(cameras[:2], persons.cameras)
    (tmp_path / "7.png").unlink()
    with pytest.raises(ExportError, match="show 14 persons"):
        photographed(tmp_path, CropSpec(96))


def test_its_row_in_benchmarks_says_its_precision(int8_bundle):
    from glnet_bench.runners.base import Options
    from glnet_bench.runners.registry import open_runner

    bundle = Bundle.open(int8_bundle)
    rows = [open_runner(name, bundle, Options(threads=1)) for name in ("onnxruntime-cpu", "onnxruntime-int8")]
    assert [row.precision for row in rows] == ["fp32", "int8"]
    for row in rows:
        row.close()
