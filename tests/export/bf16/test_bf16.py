"""Bfloat16 by OpenVINO: where a graph is cut, what each part computes in, what it costs, and what is refused."""

import contextlib
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from glnet_export.bf16 import stage
from glnet_export.bf16.cut import cut_of
from glnet_export.bf16.options import Bf16Options
from glnet_export.bf16.stage import Bf16Graph
from glnet_export.commands.main import app
from glnet_export.engines.progress import quietly
from glnet_export.mixed import half_layer_names, mixed_copy
from glnet_infer import BackendError, BundleError, ExportError, MeshRecoverer
from glnet_infer.backends import kinds, open_backend
from glnet_infer.backends.openvino import OpenVinoBackend, check_precision
from glnet_infer.backends.openvino.library import core, import_openvino
from glnet_infer.bundle import Bundle, record_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.bundle.records import BF16
from glnet_infer.onnxruntime_sessions import open_session, session_options

try:
    openvino = import_openvino()
    check_precision("BF16")
except BackendError as refusal:
    pytest.skip(f"{refusal.what} {refusal.why}", allow_module_level=True)


@pytest.fixture(scope="session")
def bf16_bundle(made_once, shared_bundle, small_recovery):
    """The small bundle with bfloat16, and what OpenVINO compiled of it; tests must not change it."""

    def make(path):
        shutil.copytree(shared_bundle, path)
        graph = Bf16Graph(small_recovery, False, Bf16Options(crops=8, max_growth=1))
        graph.add_graph(path, Manifest.read(path), quietly).write(path)
        assert not (path / "cache").exists()  # it would be published
        OpenVinoBackend(Bundle.open(path), 1, purpose=BF16).close()

    return made_once("small-bf16", make)


@pytest.fixture
def opened(bf16_bundle):
    return Bundle.open(bf16_bundle)


@pytest.fixture
def copied(bf16_bundle, tmp_path):
    return shutil.copytree(bf16_bundle, tmp_path / "bundle")


def crops(count):
    generator = np.random.default_rng(count)
    cameras = np.array([4, 4, 0, 0]) * generator.uniform(0.5, 1, (count, 1))
    return generator.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8), cameras.astype(np.float32)


def changed(bundle, **values):
    """The bundle with other values in the record of its bf16 graph."""
    document = json.loads((bundle / "manifest.json").read_text())
    (record,) = (each for each in document["graphs"] if each["purpose"] == BF16)
    record.update(values)
    (bundle / "manifest.json").write_text(json.dumps(document))
    return bundle


def test_the_bundle_says_where_it_is_cut_and_what_that_costs(opened):
    record, float32 = opened.manifest.graph_for(BF16), opened.manifest.graph
    assert record.file == float32.file and record.precision == "bf16" and not float32.cut
    assert record.parity["crops"] == 8 and record.parity["bounds"] == {"growth": 1}
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm"):
        before, after = record.parity[name]
        assert before != after and after < 1.5 * before
    assert record.parity["vertices_mean_mm"] > 0


def test_all_layers_that_may_be_narrow_are_before_the_cut_and_no_other_is_needed_after_it(opened, small_recovery):
    """ONNX's own extractor takes the parts out."""
    model, record = onnx.load(opened.graph), opened.manifest.graph_for(BF16)
    narrow = {f"{name}.weight" for name in half_layer_names(mixed_copy(small_recovery))}
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    first = extractor.extract_model(["crops", "cameras"], list(record.cut))
    second = extractor.extract_model(["crops", "cameras", *record.cut], [output.name for output in model.graph.output])
    assert narrow <= {each.name for each in first.graph.initializer}
    needed = {each.name for each in second.graph.initializer}
    assert not narrow & needed and "network.coarse.weight" in needed  # the estimate that all starts from


@pytest.mark.parametrize("count, threads", [(1, 1), (5, 2)])
def test_both_parts_together_give_what_the_whole_gives(opened, monkeypatch, tmp_path, count, threads):
    """In float32, so that nothing but the cut can differ."""
    monkeypatch.setattr("glnet_infer.backends.openvino.backend.BFLOAT16", "f32")
    given = crops(count)
    with contextlib.closing(OpenVinoBackend(opened, threads, purpose=BF16, keep=False)) as backend:
        found = backend.run(*given)
    with contextlib.closing(open_backend("onnxruntime-cpu", opened, 1)) as backend:
        wanted = backend.run(*given)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=2e-3 if name == "keypoints_2d" else 5e-5, err_msg=name)


def test_each_part_is_asked_for_its_precision_and_kept(copied, monkeypatch):
    shutil.rmtree(copied / "cache")
    seen = []
    for name in ("compile_model", "import_model"):
        own = getattr(openvino.Core, name)

        def noted(core, *given, _name=name, _own=own):
            seen.append((_name, given[-1]["INFERENCE_PRECISION_HINT"]))
            return _own(core, *given)

        monkeypatch.setattr(openvino.Core, name, noted)
    given, results = crops(1), []
    for _ in range(2):
        with contextlib.closing(open_backend("openvino-bf16", Bundle.open(copied), 1)) as backend:
            assert backend.name == "openvino-bf16" and "model.onnx in bf16 and f32" in repr(backend)
            results.append(backend.run(*given)["vertices"])
    assert seen == [(name, kind) for name in ("compile_model", "import_model") for kind in ("bf16", "f32")]
    assert len(list((copied / "cache").iterdir())) == 2
    np.testing.assert_array_equal(*results)


def test_it_is_run_by_name_alone_and_is_not_float32(opened, photograph, person_boxes):
    found = {}
    for name in ("onnxruntime-cpu", "openvino-bf16"):
        with MeshRecoverer(opened, name, threads=1) as recoverer:
            assert recoverer.backend == name and name in repr(recoverer)
            found[name] = recoverer(photograph, person_boxes)
    shift = np.linalg.norm(found["onnxruntime-cpu"].vertices - found["openvino-bf16"].vertices, axis=-1)
    # Metres. Float32 in another order of sums is below 1e-6; bfloat16 has eight bits.
    assert 2e-5 < shift.mean() < 0.1
    with MeshRecoverer(opened) as recoverer:
        assert recoverer.backend != "openvino-bf16"
    assert kinds()["openvino-bf16"].serves(opened)


def test_a_bundle_without_it_says_how_to_get_it(shared_bundle):
    opened = Bundle.open(shared_bundle)
    with pytest.raises(BackendError, match="has no bf16 graph") as error:
        open_backend("openvino-bf16", opened)
    assert "--bf16" in error.value.fix
    assert not kinds()["openvino-bf16"].serves(opened) and "bf16" in kinds()["openvino-bf16"].obstacle(opened)


def test_another_precision_than_was_asked_for_is_refused(opened, monkeypatch):
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda *_: openvino.Type.f32)
    with pytest.raises(BackendError, match=r"would compute model\.onnx in f32") as error:
        open_backend("openvino-bf16", opened, 1)
    assert "asked for bf16" in error.value.why


def test_a_processor_that_is_slow_at_it_is_named(opened, monkeypatch):
    kind = kinds()["openvino-bf16"]
    monkeypatch.setattr("glnet_infer.devices.cpu_flags", lambda: frozenset({"avx512f", "avx512_bf16"}))
    assert not kind.caution() and kind.state() == "available"
    monkeypatch.setattr("glnet_infer.devices.cpu_flags", lambda: frozenset({"avx512f"}))
    assert "AVX512_BF16" in kind.caution() and "AVX512_BF16" in kind.state()
    with MeshRecoverer(opened, "openvino-bf16", threads=1) as recoverer:
        assert "lacks instructions for bfloat16" in recoverer.backend_reason


def test_an_export_on_a_processor_without_it_is_refused_at_once(small_recovery, monkeypatch):
    monkeypatch.setattr(type(core()), "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendError, match="does not compute in BF16 on this processor") as error:
        Bf16Graph(small_recovery, False, Bf16Options())
    assert "FP32, INT8" in error.value.why


def test_a_damaged_graph_of_its_own_is_refused_by_who_runs_it(copied):
    shutil.copy(copied / "model.onnx", copied / "other.onnx")
    changed(copied, file=dataclasses.asdict(record_file(copied / "other.onnx")))
    open_backend("openvino-bf16", Bundle.open(copied), 1).close()
    with (copied / "other.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    open_backend("openvino", Bundle.open(copied), 1).close()
    with pytest.raises(BundleError, match=r"other\.onnx is not the file that the manifest describes"):
        open_backend("openvino-bf16", Bundle.open(copied), 1)


@pytest.mark.parametrize(
    "cut, words",
    [
        (["no such tensor"], "it has no tensor 'no such tensor'"),
        ([], "cut names no tensor"),
        (["mean", "mean"], "cut names a tensor twice"),
        ([""], "a tensor's name"),
    ],
)
def test_a_cut_that_is_none_is_refused(copied, cut, words):
    changed(copied, cut=cut)
    with pytest.raises(BundleError) as error:
        open_backend("openvino-bf16", Bundle.open(copied), 1)
    assert words in error.value.why


def test_what_was_compiled_is_not_taken_for_another_cut_or_promise(copied):
    record = Bundle.open(copied).manifest.graph_for(BF16)
    changed(copied, cut=list(record.cut[:-1]))
    before = {path: path.stat().st_mtime_ns for path in (copied / "cache").iterdir()}
    open_backend("openvino-bf16", Bundle.open(copied), 1).close()
    assert all(path.stat().st_mtime_ns != before[path] for path in (copied / "cache").iterdir())
    document = json.loads((copied / "manifest.json").read_text())
    next(each for each in document["outputs"] if each["name"] == "keypoints_2d")["shape"][1] += 1
    (copied / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is not the graph that the manifest describes") as error:
        open_backend("openvino-bf16", Bundle.open(copied), 1)
    assert "keypoints_2d" in error.value.why


def test_a_cost_beyond_the_bound_ends_the_export(bf16_bundle, small_recovery, tmp_path, monkeypatch):
    bundle = shutil.copytree(bf16_bundle, tmp_path / "bundle")
    count = 4
    given = {"vertices": (count, small_recovery.body.data.v_template.shape[0], 3), "joints": (count, 24, 3)}
    exact = {name: np.zeros(shape, np.float32) for name, shape in given.items()}
    exact["reference_pixel"] = np.zeros((count, 2), np.int32)

    def off(metres):
        answers = {name: array.copy() for name, array in exact.items()}
        answers["joints"][:, 1] += np.float32(metres)
        return answers

    nobody = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(stage, "OpenVinoBackend", lambda *_, **__: nobody)
    monkeypatch.setattr(stage, "open_backend", lambda *_: nobody)
    manifest = dataclasses.replace(Manifest.read(bundle), graphs=Manifest.read(bundle).graphs[:1])
    for random in (False, True):
        parts = iter((off(1), off(0)))
        monkeypatch.setattr(stage, "answers", lambda *_, parts=parts: next(parts))
        graph = Bf16Graph(small_recovery, random, Bf16Options(crops=count))
        if random:
            record = graph.add_graph(bundle, manifest, quietly).graph_for(BF16)
            assert "bounds" not in record.parity and record.parity["mpjpe_mm"][0] < record.parity["mpjpe_mm"][1]
        else:
            with pytest.raises(ExportError, match="Bfloat16 costs too much") as error:
                graph.add_graph(bundle, manifest, quietly)
            assert "mpjpe grows" in error.value.why and "--max-bf16-growth" in error.value.fix


def test_options_are_taken_over_and_need_their_switch(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr("glnet_export.pipeline.export", lambda *_, **given: asked.update(given) or 1 / 0)
    arguments = ["--random-init", "demo", "-o", str(tmp_path / "b"), "--bf16", "--bf16-crops", "64"]
    CliRunner().invoke(app, [*arguments, "--max-bf16-growth", "0.02"])
    assert asked["bf16"] == Bf16Options(64, 0.02) and asked["int8"] is None
    refused = CliRunner().invoke(app, ["--random-init", "demo", "--bf16-crops", "64"])
    assert refused.exit_code == 2 and "add --bf16" in refused.output


def test_its_row_in_benchmarks_says_its_precision(opened):
    from glnet_bench.runners.base import Options
    from glnet_bench.runners.registry import open_runner

    with contextlib.closing(open_runner("openvino-bf16", opened, Options(threads=1))) as row:
        assert row.precision == "bf16"


def by_hand():
    """A narrow layer, a wide one on it that the next narrow one and the output read, and shapes of narrow tensors."""
    nodes = [
        helper.make_node("Cast", ["crops"], ["image"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "backbone.weight"], ["features"]),
        helper.make_node("Relu", ["features"], ["rectified"]),
        helper.make_node("Conv", ["rectified", "coarse.weight"], ["coarse"]),
        helper.make_node("Mul", ["coarse", "coarse"], ["squared"]),
        helper.make_node("Add", ["squared", "rectified"], ["points"]),
        helper.make_node("Conv", ["points", "local.weight"], ["encoded"]),
        helper.make_node("Shape", ["encoded"], ["sides"]),
        helper.make_node("Expand", ["squared", "sides"], ["estimate"]),
        helper.make_node("Conv", ["encoded", "head.weight"], ["residual"]),
        helper.make_node("Sum", ["estimate", "residual", "points"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("crops", TensorProto.UINT8, [1, 8, 8, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])]
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.normal(size=(3, 3, 1, 1)).astype(np.float32), f"{name}.weight")
        for name in ("backbone", "coarse", "local", "head")
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_what_wide_layers_give_is_made_anew_in_float32():
    model = by_hand()
    cut = cut_of(model, ["backbone", "local"])
    # The coarse estimate and its square are computed from rectified features in both parts, points of narrow layers in one.
    assert cut == ["encoded", "points", "rectified"]
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    first, second = extractor.extract_model(["crops"], cut), extractor.extract_model(cut, ["y"])
    given = {"crops": crops(1)[0][:, :8, :8]}
    passed = dict(zip(cut, open_session(first.SerializeToString(), session_options(1)).run(cut, given), strict=True))
    (found,) = open_session(second.SerializeToString(), session_options(1)).run(["y"], passed)
    (wanted,) = open_session(model.SerializeToString(), session_options(1)).run(["y"], given)
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ExportError, match="not set up") as error:
        cut_of(model, ["backbone", "other"])
    assert "no layer other" in error.value.why
