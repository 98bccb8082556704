"""TensorRT engines: TensorRT for RTX compiles the real graph ahead of time; a stand-in plays what needs a GPU."""

import contextlib
import dataclasses
import enum
import json
import os
import shutil
import signal
import sys
import time
import types

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from typer.testing import CliRunner

from glnet.backend import TorchBackend
from glnet.config import PRESETS
from glnet.random_init import random_recovery
from glnet.sampling import sample_by_grid
from glnet_export.cli import app
from glnet_export.crop_graph import write_crop_graph
from glnet_export.crop_parity import compare_crops
from glnet_export.engine import NOT_RUN, _configure, build, build_crop, fill_profile
from glnet_export.engine_options import EngineOptions, parse_compute_capabilities, parse_profile
from glnet_export.graph import _cast_first, trace
from glnet_export.mixed import half_layers, mixed_copy
from glnet_export.pipeline import STAGES_WITH_ENGINE, Source, export
from glnet_export.progress import Phases
from glnet_export.publish import bundle_under_construction
from glnet_export.readback import count_engine_types
from glnet_export.toolkit import CLASSIC, DEFAULT_TARGETS, Toolkit, choose
from glnet_infer import ExportError, OutputError
from glnet_infer.backends import open_backend
from glnet_infer.backends.tensorrt_module import log_of
from glnet_infer.bundle import Bundle, check_file
from glnet_infer.devices import Gpu
from glnet_infer.manifest import GRAPH_INPUTS, GRAPH_OUTPUTS, CropSpec

# Random weights are no measure of half precision: two crops, and a bound for the mistakes of centimetres alone.
ADA = EngineOptions("tensorrt-rtx", ("8.9",), precision_crops=2, max_half_error_mm=100)
HERE = "tensorrt-rtx compiles without a GPU; install it with the extra rtx"


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason=HERE)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine without GPU and without classic TensorRT; calling it with GPUs adds them."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    def have(*gpus):
        for module in ("toolkit", "engine"):
            monkeypatch.setattr(f"glnet_export.{module}.gpus", lambda: list(gpus))

    have()
    return have


@pytest.fixture(scope="module")
def exported(rtx, small_checkpoint, shared_bundle, tmp_path_factory):
    """The one real export with an engine: its bundle, what was told of its stages, and of its progress.

    The float32 graph is the shared bundle's, which spares tracing it again.
    """
    path, told, progress = tmp_path_factory.mktemp("engine") / "small", {}, {}

    @contextlib.contextmanager
    def stage(name):
        told[name] = []
        yield told[name]

    def retrace(recovery, path, **options):
        if path.name == "model.onnx":
            shutil.copy(shared_bundle / path.name, path)
        else:
            trace(recovery, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("toolkit", "engine"):
            patch.setattr(f"glnet_export.{module}.gpus", list)
        for module in ("pipeline", "engine_stages"):
            patch.setattr(f"glnet_export.{module}.trace", retrace)
        export(
            Source(small_checkpoint),
            path,
            engine=ADA,
            stage=stage,
            progress=lambda *each: progress.setdefault(list(told)[-1], []).append(each),
        )
    return path, told, progress


@pytest.fixture(scope="module")
def mixed(exported):
    return exported[0] / "model.mixed.onnx"


@pytest.fixture(scope="module")
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


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What comes out


def test_the_bundle_holds_the_engine_and_its_graph(exported):
    path, told, _ = exported
    assert sorted(content(path)) == [
        "crop.rtx-sm89.engine", "manifest.json", "model.mixed.onnx", "model.onnx", "model.rtx-sm89.mixed.engine",
        "topology.npz",
    ]  # fmt: skip
    assert tuple(told) == STAGES_WITH_ENGINE and told["run"] == [f"{NOT_RUN}: no GPU here that the engine is built for"]
    bundle = Bundle.open(path)
    (engine,) = bundle.manifest.engines
    assert check_file(path, engine.file).name == "model.rtx-sm89.mixed.engine"
    assert engine.layers["graph"]["file"] == "model.mixed.onnx"
    assert check_file(path, engine.crop.file).name == "crop.rtx-sm89.engine" and engine.crop.largest_frame == (3840, 2160)
    assert bundle.manifest.graph.precision == "fp32" and bundle.manifest.graph.file.file == "model.onnx"


def test_the_engine_is_a_plan_that_tensorrt_takes(exported, rtx):
    # Without a driver, none is valid for this machine; what is no plan is malformed besides.
    plan = (exported[0] / "model.rtx-sm89.mixed.engine").read_bytes()
    runtime = rtx.Runtime(log_of(rtx).logger)
    malformed = int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    assert not runtime.get_engine_validity(plan)[1] & malformed
    assert runtime.get_engine_validity(b"x" + plan)[1] & malformed


def test_types_are_read_back(exported, rtx, small_recovery):
    (engine,) = Bundle.open(exported[0]).manifest.engines
    assert engine.tensors == {spec.name: spec.dtype for spec in (*GRAPH_INPUTS, *GRAPH_OUTPUTS)}
    assert engine.precision == "mixed" and engine.layers["source"] == "network"
    kinds = engine.layers["kinds"]
    # All but confidence and the two heads of residuals; the guide is the one linear layer in half precision.
    assert kinds["convolution"] == {"float16": half_layers(mixed_copy(small_recovery)) - 1, "float32": 3}
    assert kinds["matrix_multiply"]["float16"] == 1 and kinds["grid_sample"] == {"float32": 1}
    assert engine.layers["half"] == sum(kind.get("float16", 0) for kind in kinds.values())


def test_the_manifest_says_how_it_was_built(exported, rtx):
    (engine,) = Bundle.open(exported[0]).manifest.engines
    assert (engine.flavor, engine.version, engine.built_on) == ("tensorrt-rtx", rtx.__version__, "")
    assert (engine.compute_capabilities, engine.profile) == (("8.9",), (1, 4, 16))
    assert (
        engine.state == NOT_RUN
        and list(engine.parity) == ["module"]
        and engine.parity["module"]["crops"] == 2
        and 0 < engine.seconds < 300
    )


def test_progress_grows_and_names_phases(exported):
    assert list(exported[2]) == ["build", "crop"]
    for stage, steps in (("build", 20), ("crop", 2)):
        fractions = [fraction for _, fraction in exported[2][stage]]
        assert fractions == sorted(fractions) and fractions[0] < 0.3 and 0.5 < fractions[-1] <= 1
        assert "Building engine" in {phase for phase, _ in exported[2][stage]} and len(set(fractions)) > steps


def test_half_layers_are_counted_in_the_module(small_recovery):
    assert half_layers(small_recovery) == 0
    assert half_layers(mixed_copy(small_recovery)) == 83
    assert half_layers(small_recovery) == 0  # the reference is left as it was


# Targets, profile, options


def test_one_engine_for_many_targets(toolkit, mixed, tmp_path):
    targets = ("8.0", "8.6", "8.9", "12.0", "12.1")
    several = dataclasses.replace(toolkit, compute_capabilities=targets)
    record = build(mixed, tmp_path, several, EngineOptions(), half_layers=80)
    assert record.compute_capabilities == targets
    assert record.file.file == "model.rtx-sm80-sm86-sm89-sm120-sm121.mixed.engine"


@pytest.mark.parametrize(("preset", "least"), [("w18-small", 90), ("w32", 300)])
def test_real_networks_compile_for_every_gpu(toolkit, demo_body, preset, least, tmp_path):
    mixed = mixed_copy(random_recovery(PRESETS[preset], demo_body, seed=0))
    trace(mixed, tmp_path / "mixed.onnx", sampler=sample_by_grid)
    targets = ("8.0", "8.6", "8.9", "12.0", "12.1")
    several = dataclasses.replace(toolkit, compute_capabilities=targets)
    record = build(tmp_path / "mixed.onnx", tmp_path, several, EngineOptions(), half_layers=half_layers(mixed))
    assert record.precision == "mixed" and record.layers["half"] >= half_layers(mixed) > least
    # Weights are in the engine once, in half precision, whatever the number of targets.
    assert record.file.bytes < 125e6


def test_a_target_that_the_builder_fails_on_says_why(toolkit, mixed, tmp_path):
    # Turing: TensorRT for RTX has no float32 matrix products for it, and the kinematics are in float32.
    turing = dataclasses.replace(toolkit, compute_capabilities=("7.5",))
    with pytest.raises(ExportError, match="did not build") as error:
        build(mixed, tmp_path, turing, EngineOptions(), half_layers=80)
    assert "Turing" in error.value.why and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["9.0", "10.0", "6.1"])
def test_targets_that_rtx_lacks_are_refused(rtx, target):
    with pytest.raises(ExportError, match=f"does not compile for compute capability {target}") as error:
        choose(dataclasses.replace(ADA, compute_capabilities=("8.9", target)))
    assert "8.6, 8.9, 12.0" in error.value.why and "--flavor tensorrt" in error.value.fix


def test_the_profile_is_what_was_asked_for(rtx, mixed):
    builder = rtx.Builder(log_of(rtx).logger)
    network, profile = builder.create_network(0), builder.create_optimization_profile()
    assert rtx.OnnxParser(network, log_of(rtx).logger).parse_from_file(str(mixed))
    fill_profile(profile, network, (2, 3, 5))
    assert [tuple(shape) for shape in profile.get_shape("crops")] == [(n, 256, 256, 3) for n in (2, 3, 5)]
    assert [tuple(shape) for shape in profile.get_shape("cameras")] == [(n, 4) for n in (2, 3, 5)]


def test_the_profile_reaches_the_builder(toolkit, mixed, tmp_path):
    model = onnx.load(mixed)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    with pytest.raises(ExportError) as error:
        build(tmp_path / "four.onnx", tmp_path, toolkit, ADA, half_layers=80)
    assert "profile" in error.value.why.lower()
    record = build(tmp_path / "four.onnx", tmp_path, toolkit, dataclasses.replace(ADA, profile=(4, 4, 4)), half_layers=80)
    assert record.profile == (4, 4, 4)


def test_the_builder_is_configured(rtx, toolkit, machine):
    config = rtx.Builder(log_of(rtx).logger).create_builder_config()
    assert config.get_flag(rtx.BuilderFlag.TF32)  # its default
    options = EngineOptions(level=1, workspace=64)
    several = dataclasses.replace(toolkit, compute_capabilities=("8.6", "12.0"))
    _configure(config, several, options, lambda: "")
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    assert config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert config.builder_optimization_level == 1
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 64 << 20
    capability = rtx.ComputeCapability
    assert config.num_compute_capabilities == 2
    assert [config.get_compute_capability(index) for index in (0, 1)] == [capability.SM86, capability.SM120]


@pytest.mark.parametrize("text, numbers", [("1:4:16", (1, 4, 16)), (" 2:2:2 ", (2, 2, 2)), ("1:1:4096", (1, 1, 4096))])
def test_profiles_are_read(text, numbers):
    assert parse_profile(text) == numbers


@pytest.mark.parametrize("text", ["", "4", "1:4", "1:2:3:4", "4:2:8", "1:8:4", "0:1:2", "1:1:4097", "a:b:c", "-1:1:1"])
def test_other_profiles_are_refused(text):
    with pytest.raises(ValueError, match="MIN"):
        parse_profile(text)


@pytest.mark.parametrize(
    "text, capabilities",
    [("89", ("8.9",)), ("86,8.9, sm_120", ("8.6", "8.9", "12.0")), ("89,8.9,SM89", ("8.9",)), ("120,86", ("12.0", "8.6"))],
)
def test_targets_are_read(text, capabilities):
    assert parse_compute_capabilities(text) == capabilities


@pytest.mark.parametrize("text", ["", "8", "ada", "89,", "89;86", "8.90", "1200"])
def test_other_targets_are_refused(text):
    with pytest.raises(ValueError, match="compute capability"):
        parse_compute_capabilities(text)


# Graphs that are not what they should be


def test_a_float32_graph_is_not_taken_for_a_mixed_one(toolkit, full, tmp_path):
    with pytest.raises(ExportError, match="half precision where it should") as error:
        build(full, tmp_path, toolkit, ADA, half_layers=80)
    assert "80" in error.value.why and "0 do" in error.value.why and list(tmp_path.iterdir()) == []


def test_half_of_a_graph_in_float32_is_noticed(toolkit, mixed, tmp_path):
    with pytest.raises(ExportError, match="half precision where it should"):
        build(mixed, tmp_path, toolkit, ADA, half_layers=120)


def test_a_float32_graph_that_is_meant_so_is_named_so(toolkit, full, tmp_path):
    record = build(full, tmp_path, toolkit, ADA, half_layers=0)
    assert record.precision == "fp32" and record.file.file == "model.rtx-sm89.fp32.engine"
    assert record.layers["half"] == 0


@pytest.mark.parametrize("data", [b"not a graph", b""])
def test_a_file_that_is_no_graph(toolkit, tmp_path, data):
    (tmp_path / "bad.onnx").write_bytes(data)
    with pytest.raises(ExportError) as error:
        build(tmp_path / "bad.onnx", tmp_path, toolkit, ADA, half_layers=0)
    assert error.value.why and [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


def test_the_parsers_words_and_the_node_are_in_the_error(toolkit, mixed, tmp_path):
    # Bytes transposed before they are cast, which TensorRT does not take.
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 8, 8, 3])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])
    nodes = [
        helper.make_node("Transpose", ["crops"], ["turned"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["image"], to=TensorProto.FLOAT),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [crops], [image]), opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "bytes.onnx")
    with pytest.raises(ExportError, match=r"does not read bytes\.onnx") as error:
        build(tmp_path / "bytes.onnx", tmp_path, toolkit, ADA, half_layers=0)
    assert "UINT8" in error.value.why.upper() and "turn" in error.value.why


def test_other_outputs_than_promised_are_refused(toolkit, mixed, tmp_path):
    model = onnx.load(mixed)
    del model.graph.output[-1]
    onnx.save(model, tmp_path / "less.onnx")
    with pytest.raises(ExportError, match="other inputs or outputs") as error:
        build(tmp_path / "less.onnx", tmp_path, toolkit, ADA, half_layers=80)
    assert "reference_pixel int32" in error.value.why


def test_bytes_are_used_by_a_cast_alone():
    nodes = [
        helper.make_node("Shape", ["crops"], ["shape"]),
        helper.make_node("Identity", ["shape"], ["shape too"]),
        helper.make_node("Cast", ["crops"], ["image"], to=TensorProto.FLOAT),
    ]
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 8, 8, 3])
    outputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 8, 3]),
        helper.make_tensor_value_info("shape too", TensorProto.INT64, [4]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [crops], outputs))
    _cast_first(model)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [
        ("Cast", ["crops"]), ("Shape", ["image"]), ("Identity", ["shape"])
    ]  # fmt: skip


class CountsCrops(torch.nn.Module):
    """Reads the number of crops from their bytes, as networks may."""

    def __init__(self):
        super().__init__()
        crop, encoding = types.SimpleNamespace(size=8), types.SimpleNamespace(sample=None)
        self.network = types.SimpleNamespace(config=types.SimpleNamespace(crop=crop), local_encoding=encoding)

    def forward(self, crops, cameras):
        return crops.float().mean((1, 2, 3)) + torch.arange(crops.shape[0]), cameras


def test_traced_graphs_use_bytes_by_a_cast_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("glnet_export.graph.GRAPH_OUTPUTS", GRAPH_OUTPUTS[:2])
    trace(CountsCrops(), tmp_path / "g.onnx")
    model = onnx.load(tmp_path / "g.onnx")
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert "Shape" in operators and [node.op_type for node in model.graph.node if "crops" in node.input] == ["Cast"]


def test_real_graphs_use_bytes_by_a_cast_alone(mixed, full):
    for path in (mixed, full):
        assert [node.op_type for node in onnx.load(path).graph.node if "crops" in node.input] == ["Cast"], path


# Stopping


@pytest.fixture
def interruptible():
    """Ctrl-C as on a terminal: shells make background processes deaf to it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_build_is_cancelled_and_leaves_the_old_bundle(exported, retraced, small_checkpoint, tmp_path, rtx):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before, log = content(old), log_of(rtx)
    mark, calls = log.mark(), []

    def interrupt(phase, fraction):
        calls.append(phase)
        if len(calls) == 1:  # Ctrl-C reaches the main thread, wherever the signal is sent from
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        export(Source(small_checkpoint), old, engine=ADA, progress=interrupt)
    assert "BuildCanceled" in log.since(mark)  # not merely left running
    assert content(old) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("interruptible")
def test_a_crop_engine_that_is_interrupted_leaves_the_old_bundle(
    exported, retraced, small_checkpoint, tmp_path, monkeypatch
):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before, folders, calls = content(old), [], []

    def interrupt(phase, fraction):
        calls.append(phase)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    def interrupted(*arguments, **options):
        folders.append(sorted(content(arguments[0])))
        return build_crop(*arguments, progress=interrupt)

    monkeypatch.setattr("glnet_export.engine_stages.build_crop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(Source(small_checkpoint), old, engine=ADA)
    assert "model.rtx-sm89.mixed.engine" in folders[0]  # the other engine was there already
    assert content(old) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_the_listener_of_progress_raises_stops_the_build(toolkit, mixed, tmp_path):
    def broken(phase, fraction):
        raise BrokenPipeError("nobody looks at the bar")

    with pytest.raises(BrokenPipeError):
        build(mixed, tmp_path, toolkit, ADA, half_layers=80, progress=broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_build_leaves_the_old_bundle(exported, retraced, small_checkpoint, tmp_path):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    before = content(old)
    turing = dataclasses.replace(ADA, compute_capabilities=("7.5",))
    with pytest.raises(ExportError, match="did not build"):
        export(Source(small_checkpoint), old, engine=turing)
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


def test_a_bundle_with_an_engine_may_be_replaced(exported, tmp_path):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    with bundle_under_construction(old) as (directory, publish):
        (directory / "manifest.json").write_text("new")
        publish()
    assert content(old) == {"manifest.json": b"new"}


def test_a_users_graph_beside_a_bundle_without_engine_is_kept(exported, tmp_path):
    old = shutil.copytree(exported[0], tmp_path / "bundle")
    dataclasses.replace(Bundle.open(old).manifest, engines=()).write(old)
    with pytest.raises(OutputError, match="will not be overwritten") as error, bundle_under_construction(old):
        pytest.fail("the block was entered")
    assert "model.mixed.onnx" in error.value.why


# Which TensorRT


def test_without_a_gpu_rtx_compiles_for_the_usual_ones(rtx):
    toolkit = choose(EngineOptions())
    assert (toolkit.flavor.name, toolkit.compute_capabilities) == ("tensorrt-rtx", DEFAULT_TARGETS)
    assert "no GPU" in toolkit.why and toolkit.gpu == ""


def test_with_a_gpu_rtx_compiles_for_it(rtx, machine):
    machine(Gpu("NVIDIA GeForce RTX 4090", "8.9"))
    toolkit = choose(EngineOptions())
    assert toolkit.compute_capabilities == ("8.9",) and "TensorRT itself is not available" in toolkit.why


def test_a_gpu_that_rtx_does_not_know_is_warned_of(rtx, machine):
    machine(Gpu("NVIDIA H200", "9.0"))
    toolkit = choose(EngineOptions())
    assert toolkit.compute_capabilities == DEFAULT_TARGETS
    assert "WARNING: it does not run on NVIDIA H200 (9.0)" in toolkit.why and "[trt]" in toolkit.why


def test_without_any_tensorrt_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ExportError, match="TensorRT for RTX is not installed") as error:
        choose(EngineOptions())
    assert "pip install" in error.value.fix and "[rtx]" in error.value.fix and "tensorrt_rtx" in error.value.why


def test_classic_tensorrt_needs_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn())
    with pytest.raises(ExportError, match="cannot build here") as error:
        choose(EngineOptions(flavor="tensorrt"))
    assert "tensorrt-rtx" in error.value.fix


def test_classic_tensorrt_compiles_for_no_other_gpu(machine, monkeypatch):
    machine(Gpu("NVIDIA H200", "9.0"))
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn())
    with pytest.raises(ExportError, match="not for others"):
        choose(EngineOptions(flavor="tensorrt", compute_capabilities=("8.9",)))


def test_classic_tensorrt_where_it_can_build(machine, monkeypatch):
    machine(Gpu("NVIDIA H200", "9.0"))
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn())
    toolkit = choose(EngineOptions())
    assert (toolkit.flavor, toolkit.gpu, toolkit.compute_capabilities) == (CLASSIC, "NVIDIA H200", ("9.0",))
    assert "NVIDIA H200" in str(toolkit) and "10.13" in str(toolkit)


def test_an_old_classic_tensorrt_is_refused(machine, monkeypatch):
    machine(Gpu("NVIDIA H200", "9.0"))
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn(version="10.11.0.33"))
    with pytest.raises(ExportError, match="too old") as error:
        choose(EngineOptions(flavor="tensorrt"))
    assert "10.11.0.33" in error.value.why and "10.12" in error.value.why


# What classic TensorRT does, by a stand-in


class StandIn(types.ModuleType):
    """The part of classic TensorRT that a build uses, with what it was told.

    Args:
        strongly_typed: Whether it has the flag (11.x has it still, later ones may not).
        plan: What the build returns.
        says: An error that it logs when it builds.
        takes_cache: Whether timing caches are taken.
    """

    def __init__(self, version="10.13.0", *, strongly_typed=True, plan=b"plan", says="", takes_cache=True):
        super().__init__("tensorrt")
        self.__version__ = version
        self.told = told = {"flags cleared": [], "flags set": []}

        class Severity(enum.IntEnum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        class ILogger:
            pass

        ILogger.Severity = Severity
        dtypes = enum.Enum("DataType", "FLOAT HALF UINT8 INT32")
        kinds = enum.Enum("LayerType", "CONVOLUTION CAST")

        def tensor(spec):
            dtype = {"uint8": dtypes.UINT8, "float32": dtypes.FLOAT, "int32": dtypes.INT32}[spec.dtype]
            return types.SimpleNamespace(name=spec.name, dtype=dtype, shape=(-1, *([4] * (len(spec.shape) - 1))))

        class Network:
            num_layers, num_inputs, num_outputs = 2, len(GRAPH_INPUTS), len(GRAPH_OUTPUTS)

            def get_layer(self, index):
                output = types.SimpleNamespace(dtype=(dtypes.HALF, dtypes.FLOAT)[index])
                return types.SimpleNamespace(type=list(kinds)[index], get_output=lambda _: output)

            def get_input(self, index):
                return tensor(GRAPH_INPUTS[index])

            def get_output(self, index):
                return tensor(GRAPH_OUTPUTS[index])

        class Config:
            def clear_flag(self, flag):
                told["flags cleared"].append(flag.name)

            def set_flag(self, flag):
                told["flags set"].append(flag.name)

            def add_optimization_profile(self, profile):
                return 0

            def create_timing_cache(self, data):
                told["cache"] = data
                return object()

            def set_timing_cache(self, cache, ignore_mismatch):
                told["mismatch ignored"] = ignore_mismatch
                return takes_cache

            def get_timing_cache(self):
                return types.SimpleNamespace(serialize=lambda: b"measured")

        class Builder:
            def __init__(self, logger):
                self.logger = logger

            def create_network(self, flags):
                told["network"] = flags
                return Network()

            def create_builder_config(self):
                return Config()

            def create_optimization_profile(self):
                return types.SimpleNamespace(set_shape=lambda *shapes: told.setdefault("shapes", []).append(shapes))

            def build_serialized_network(self, network, config):
                if says:
                    self.logger.log(Severity.ERROR, says)
                return plan

        class OnnxParser:
            def __init__(self, network, logger):
                pass

            def parse_from_file(self, path):
                return True

        class Runtime:
            def __init__(self, logger):
                pass

            def deserialize_cuda_engine(self, plan):
                layers = {"Layers": ["name alone", {"Outputs": [{"Format/Datatype": "Channel major FP16 format"}]}]}
                inspector = types.SimpleNamespace(get_engine_information=lambda _: json.dumps(layers))
                return types.SimpleNamespace(create_engine_inspector=lambda: inspector)

        self.ILogger, self.Builder, self.OnnxParser, self.Runtime = ILogger, Builder, OnnxParser, Runtime
        self.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
        self.BuilderFlag = enum.Enum("BuilderFlag", "TF32 FP16")
        self.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "DETAILED")
        self.LayerInformationFormat = enum.Enum("LayerInformationFormat", "JSON")
        flags = {"PREFER_AOT_PYTHON_PLUGINS": 3, **({"STRONGLY_TYPED": 1} if strongly_typed else {})}
        self.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)


H200 = Gpu("NVIDIA H200", "9.0")


@pytest.fixture
def classic(machine, tmp_path):
    """Builds with a stand-in: returns the record and what the stand-in was told."""
    machine(H200)

    def run(stand_in, **options):
        toolkit = Toolkit(CLASSIC, stand_in, ("9.0",), H200.name, "")
        return build(tmp_path / "g.onnx", tmp_path, toolkit, EngineOptions(**options), half_layers=1), stand_in.told

    return run


def test_tensorrt_10_is_told_to_take_the_graphs_types(classic, tmp_path):
    record, told = classic(StandIn(), profile=(1, 2, 3))
    assert told["network"] == 1 << 1 and told["flags cleared"] == ["TF32"] and told["flags set"] == []
    assert told["shapes"][1] == ("cameras", (1, 4), (2, 4), (3, 4))
    assert record.file.file == "model.trt-sm90.mixed.engine" and (tmp_path / record.file.file).read_bytes() == b"plan"
    assert (record.flavor, record.version, record.built_on) == ("tensorrt", "10.13.0", "NVIDIA H200")
    assert record.layers["engine"] == {"half": 1}  # with a GPU, the engine itself is read


def test_a_tensorrt_without_the_flag_is_told_nothing(classic):
    assert classic(StandIn("12.0", strongly_typed=False))[1]["network"] == 0


def test_a_build_that_fails_gives_tensorrts_words(classic, tmp_path):
    with pytest.raises(ExportError, match="did not build") as error:
        classic(StandIn(plan=None, says="no tactic\nfor the node"))
    assert error.value.why == "no tactic for the node" and list(tmp_path.iterdir()) == []


def test_the_timing_cache_is_read_and_written(classic, tmp_path):
    cache = tmp_path / "timing"
    _, told = classic(StandIn(), timing_cache=cache)
    assert told["cache"] == b"" and cache.read_bytes() == b"measured" and told["mismatch ignored"] is False
    cache.write_bytes(b"earlier")
    _, told = classic(StandIn(), timing_cache=cache)
    assert told["cache"] == b"earlier" and cache.read_bytes() == b"measured"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.trt-sm90.mixed.engine", "timing"]


def test_a_timing_cache_that_is_not_taken_is_an_error(classic, tmp_path):
    (tmp_path / "timing").write_bytes(b"of another GPU")
    with pytest.raises(ExportError, match="timing cache"):
        classic(StandIn(takes_cache=False), timing_cache=tmp_path / "timing")
    assert (tmp_path / "timing").read_bytes() == b"of another GPU"


def test_the_engine_inspectors_answers():
    layers = [{"Outputs": [{"Format/Datatype": kind} for kind in ("Half", "FP16", "FP32", "Float", "Int32")]}]
    assert count_engine_types(json.dumps({"Layers": layers})) == {"half": 2, "float": 2}
    assert count_engine_types("no JSON") == count_engine_types('{"Layers": ["a", "b"]}') == {}


# With a GPU, the engine is run


@pytest.fixture
def run_engine(exported, retraced, small_checkpoint, small_recovery, machine, monkeypatch, tmp_path):
    """Exports where the engine runs; gives the engine's record.

    The float32 module plays the engine, ONNX Runtime the crop engine, with their results changed.
    """

    def run_engine(change=lambda outputs: outputs, change_crops=lambda crops: crops):
        machine(Gpu("NVIDIA GeForce RTX 4090", "8.9"))
        closed = []

        class Engine(TorchBackend):
            def run(self, crops, cameras):
                return change(super().run(crops, cameras))

            def cut(self, frame, squares):
                graph = tmp_path / "crop.onnx"
                write_crop_graph(graph, small_recovery.network.config.crop.size)
                session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
                return change_crops(session.run(["crops"], {"frame": frame, "squares": squares})[0])

            def close(self):
                closed.append(True)

        def opened(name, bundle, *rest):
            if name != "tensorrt":
                return open_backend(name, bundle, *rest)
            assert [engine.state for engine in bundle.manifest.engines] == [NOT_RUN]
            return Engine(small_recovery)

        monkeypatch.setattr("glnet_export.engine_stages.open_backend", opened)
        try:
            export(Source(small_checkpoint), tmp_path / "b", engine=ADA)
        finally:
            assert closed == [True]
        (engine,) = Bundle.open(tmp_path / "b").manifest.engines
        return engine

    return run_engine


def test_an_engine_that_runs_is_compared(run_engine):
    engine = run_engine()
    found = engine.parity["engine"]
    assert engine.state == "run" and found["backend"] == "torch-cpu"
    assert found["crops"] == ADA.precision_crops and found["vertices_max_mm"] == 0 and found["pixel_agreement"] == 1
    assert found["bounds"] == engine.parity["module"]["bounds"]
    cut = engine.parity["crop"]
    assert cut["crops"] == 7 and cut["frame"] == [1280, 720] and cut["largest_difference"] <= cut["bound"] == 1
    assert 0.99 < cut["equal"] <= 1


@pytest.mark.parametrize(
    "change",
    [lambda crops: np.roll(crops, 1, axis=2), lambda crops: crops[..., ::-1], lambda crops: crops[::-1]],
    ids=["a pixel aside", "BGR", "other squares"],
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
        report = compare_crops(types.SimpleNamespace(cut=cut), CropSpec(64), largest)
        assert report.frame == (asked[-1][1], asked[-1][0]) and report.largest_difference > 50
    assert asked == [(720, 640, 3), (16, 16, 3)]


def test_an_engine_that_is_too_far_from_the_module_is_refused(run_engine, tmp_path):
    def stretched(outputs):
        return outputs | {"vertices": outputs["vertices"] + np.float32([0.2, 0, 0])}

    with pytest.raises(ExportError, match="Half precision costs too much") as caught:
        run_engine(stretched)
    assert "200 mm off" in caught.value.why
    assert not (tmp_path / "b").exists()


# What half precision costs


def test_half_precision_that_costs_too_much_is_refused(exported, retraced, small_checkpoint, tmp_path):
    with pytest.raises(ExportError, match="Half precision") as caught:
        export(Source(small_checkpoint), tmp_path / "b", engine=dataclasses.replace(ADA, max_half_error_mm=1e-9))
    assert "--fp32" in caught.value.fix and "mm off" in caught.value.why
    assert not (tmp_path / "b").exists()


def test_modules_that_stay_in_float32_are_recorded(exported, retraced, small_checkpoint, tmp_path):
    options = dataclasses.replace(ADA, float32_modules=("backbone.stage4",))
    (engine,) = export(Source(small_checkpoint), tmp_path / "b", engine=options).engines
    assert engine.layers["kept_in_float32"] == ["backbone.stage4"]


# The command line


QUICK = ("--precision-crops", "2", "--max-half-error", "100")
"""Random weights are no measure of half precision."""


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})


def test_the_command_line(exported, retraced, small_checkpoint, tmp_path):
    target = tmp_path / "b"
    result = run(
        small_checkpoint,
        "-o",
        target,
        "--trt",
        "--sm",
        "86,89",
        "--batch",
        "1:2:4",
        "--frame",
        "1280x720",
        "--timing-cache",
        "t",
        *QUICK,
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith(" ")]  # without tables
    assert [line.split()[:3] for line in lines] == [
        [f"{i}/10", name, "done"] for i, name in enumerate(STAGES_WITH_ENGINE, 1)
    ]
    assert "2 crops" in lines[5]
    assert "TensorRT for RTX" in lines[6] and "half" in lines[6] and "t is not used" in lines[6]
    assert "crop.rtx-sm86-sm89.engine" in lines[7] and "frames up to 1280 x 720" in lines[7] and NOT_RUN in lines[8]
    (engine,) = json.loads(result.stdout)["engines"]
    assert engine["file"]["file"] == "model.rtx-sm86-sm89.mixed.engine" and engine["profile"] == [1, 2, 4]
    assert np.isin(["model.mixed.onnx", engine["file"]["file"]], [path.name for path in target.iterdir()]).all()


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--sm", "89"], "--trt"),
        (["--batch", "1:2:3"], "--trt"),
        (["--flavor", "tensorrt"], "--trt"),
        (["--trt", "--sm", "ada"], "'ada'"),
        (["--trt", "--batch", "16"], "MIN:OPT:MAX"),
        (["--trt", "--batch", "4:2:1"], "MIN <= OPT"),
        (["--frame", "1280x720"], "--trt"),
        (["--trt", "--frame", "4k"], "WIDTHxHEIGHT"),
        (["--trt", "--frame", "8x8"], "from 16 to"),
        (["--trt", "--level", "6"], "--level"),
        (["--trt", "--workspace", "0"], "--workspace"),
        (["--trt", "--flavor", "tensorrt", "--sm", "89"], "--flavor tensorrt-rtx"),
        (["--trt", "--flavor", "tensorflow"], "--flavor"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(arguments, word):
    result = run("--random-init", "w18-small", *arguments)
    assert result.exit_code == 2 and result.stdout == "" and word in result.stderr, result.stderr


def test_targets_that_do_not_exist_are_refused_before_the_trace(rtx, tmp_path):
    result = run("--random-init", "w18-small", "--trt", "--sm", "90", "-o", tmp_path / "b")
    assert result.exit_code == ExportError.exit_code and "compute capability 9.0" in result.stderr
    assert "load" not in result.stderr and list(tmp_path.iterdir()) == []


def test_help_explains_the_options():
    text = run("--help").stdout
    for option in ("--trt", "--flavor", "--sm", "--batch", "--frame", "--level", "--workspace", "--timing-cache"):
        assert option in text
