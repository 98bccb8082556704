"""TensorRT for RTX compiles the real graph ahead of time: what comes out, and the options that it is built with."""

import dataclasses

import onnx
import pytest

from glnet.config import PRESETS
from glnet.random_init import random_recovery
from glnet.sampling import sample_by_grid
from glnet_export.engines.build import NOT_RUN, _configure, build, fill_profile
from glnet_export.engines.options import EngineOptions, parse_compute_capabilities, parse_profile
from glnet_export.engines.toolkit import choose
from glnet_export.graph import trace
from glnet_export.mixed import half_layers, mixed_copy
from glnet_export.pipeline import stages_of
from glnet_infer import ExportError
from glnet_infer.backends.tensorrt.products import log_of
from glnet_infer.bundle import Bundle, check_file
from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS

# What comes out


def test_the_bundle_holds_the_engine_and_its_graph(exported, content):
    path, told, _ = exported
    assert sorted(content(path)) == [
        "crop.onnx", "crop.rtx-sm89.engine", "manifest.json", "model.mixed.onnx", "model.onnx",
        "model.rtx-sm89.mixed.engine", "reference.npz", "skin.npz", "topology.npz",
    ]  # fmt: skip
    assert tuple(told) == stages_of(mixed=True, engine=True) and told["run"] == [
        f"{NOT_RUN}: no GPU here that the engine is built for"
    ]
    bundle = Bundle.open(path)
    (engine,) = bundle.manifest.engines
    assert check_file(path, engine.file).name == "model.rtx-sm89.mixed.engine"
    assert engine.graph == "model.mixed.onnx"
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
        and engine.parity == {}
        and Bundle.open(exported[0]).manifest.graph_for("engines").parity["crops"] == 2
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


def test_w32_compiles_for_every_gpu(toolkit, demo_body, tmp_path):
    mixed = mixed_copy(random_recovery(PRESETS["w32"], demo_body, seed=0))
    trace(mixed, tmp_path / "mixed.onnx", sampler=sample_by_grid)
    targets = ("8.0", "8.6", "8.9", "12.0", "12.1")
    several = dataclasses.replace(toolkit, compute_capabilities=targets)
    record = build(tmp_path / "mixed.onnx", tmp_path, several, EngineOptions(), half_layers=half_layers(mixed))
    assert record.precision == "mixed" and record.layers["half"] >= half_layers(mixed) > 300
    # Weights are in the engine once, in half precision, whatever the number of targets.
    assert record.file.bytes < 125e6


def test_a_target_that_the_builder_fails_on_says_why(toolkit, mixed, tmp_path):
    # Turing: TensorRT for RTX has no float32 matrix products for it, and the kinematics are in float32.
    turing = dataclasses.replace(toolkit, compute_capabilities=("7.5",))
    with pytest.raises(ExportError, match="did not build") as error:
        build(mixed, tmp_path, turing, EngineOptions(), half_layers=80)
    assert "Turing" in error.value.why and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["9.0", "10.0", "6.1", "7.5"])
def test_targets_that_rtx_lacks_are_refused(rtx, target, ada):
    with pytest.raises(ExportError, match=f"does not compile for compute capability {target}") as error:
        choose(dataclasses.replace(ada, compute_capabilities=("8.9", target)))
    assert "8.6, 8.9, 12.0" in error.value.why and "--flavor tensorrt" in error.value.fix


def test_the_profile_is_what_was_asked_for(rtx, mixed):
    builder = rtx.Builder(log_of(rtx).logger)
    network, profile = builder.create_network(0), builder.create_optimization_profile()
    assert rtx.OnnxParser(network, log_of(rtx).logger).parse_from_file(str(mixed))
    fill_profile(profile, network, (2, 3, 5))
    assert [tuple(shape) for shape in profile.get_shape("crops")] == [(n, 256, 256, 3) for n in (2, 3, 5)]
    assert [tuple(shape) for shape in profile.get_shape("cameras")] == [(n, 4) for n in (2, 3, 5)]


def test_the_profile_reaches_the_builder(toolkit, mixed, tmp_path, ada):
    model = onnx.load(mixed)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    with pytest.raises(ExportError) as error:
        build(tmp_path / "four.onnx", tmp_path, toolkit, ada, half_layers=80)
    assert "profile" in error.value.why.lower()
    record = build(tmp_path / "four.onnx", tmp_path, toolkit, dataclasses.replace(ada, profile=(4, 4, 4)), half_layers=80)
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
