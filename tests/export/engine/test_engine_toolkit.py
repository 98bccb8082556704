"""Which TensorRT builds, and what classic TensorRT is told: a stand-in plays what needs a GPU."""

import enum
import json
import sys
import types

import pytest

from glnet_export.engines.build import build
from glnet_export.engines.options import EngineOptions
from glnet_export.engines.readback import count_engine_types
from glnet_export.engines.toolkit import DEFAULT_TARGETS, Toolkit, choose
from glnet_export.pipeline import export
from glnet_export.sources import Source
from glnet_infer import ExportError, OutputError
from glnet_infer.backends.tensorrt.products import TENSORRT
from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS
from glnet_infer.devices import Gpu

# Which TensorRT


def test_without_a_gpu_rtx_compiles_for_the_usual_ones(rtx):
    toolkit = choose(EngineOptions())
    assert (toolkit.product.name, toolkit.compute_capabilities) == ("tensorrt-rtx", DEFAULT_TARGETS)
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
    assert (toolkit.product, toolkit.gpu, toolkit.compute_capabilities) == (TENSORRT, "NVIDIA H200", ("9.0",))
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
                return types.SimpleNamespace(type=list(kinds)[index], get_output=lambda _: output, num_inputs=0)

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

            def parse(self, content):
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
        self.BuilderFlag = enum.Enum("BuilderFlag", "TF32 FP16 VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME")
        self.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "DETAILED")
        self.LayerInformationFormat = enum.Enum("LayerInformationFormat", "JSON")
        flags = {"PREFER_AOT_PYTHON_PLUGINS": 3, **({"STRONGLY_TYPED": 1} if strongly_typed else {})}
        self.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)


H200 = Gpu("NVIDIA H200", "9.0")


@pytest.fixture
def classic(machine, monkeypatch, tmp_path, tmp_path_factory):
    """Builds with a stand-in: returns the record and what the stand-in was told."""
    machine(H200)
    monkeypatch.setattr("glnet_export.engines.build.newest_cuda", lambda: "13.0")

    graph = tmp_path_factory.mktemp("graph") / "g.onnx"
    graph.touch()  # the stand-in takes anything

    def run(stand_in, **options):
        toolkit = Toolkit(TENSORRT, stand_in, ("9.0",), H200.name, "")
        return build(graph, tmp_path, toolkit, EngineOptions(**options), half_layers=1), stand_in.told

    return run


def test_tensorrt_10_is_told_to_take_the_graphs_types(classic, tmp_path):
    record, told = classic(StandIn(), profile=(1, 2, 3))
    assert told["network"] == 1 << 1 and told["flags cleared"] == ["TF32"] and told["flags set"] == []
    assert told["shapes"][1] == ("cameras", (1, 4), (2, 4), (3, 4))
    assert record.file.file == "model.trt-sm90.mixed.engine" and (tmp_path / record.file.file).read_bytes() == b"plan"
    assert (record.flavor, record.version, record.built_on) == ("tensorrt", "10.13.0", "NVIDIA H200")
    assert record.cuda == "13.0"
    assert record.layers["engine"] == {"half": 1}  # with a GPU, the engine itself is read


def test_an_engine_for_the_lean_runtime(classic, tmp_path):
    record, told = classic(StandIn(), lean=True)
    assert told["flags set"] == ["VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]
    assert record.lean and record.runtime == "tensorrt-lean" and record.file.file == "model.trt-lean-sm90.mixed.engine"
    assert "engine" not in record.layers  # the full TensorRT does not read it back
    assert not classic(StandIn())[0].lean


def test_a_lean_engine_is_classic_tensorrts(machine, monkeypatch):
    with pytest.raises(ExportError, match="cannot build here"):
        choose(EngineOptions(lean=True))
    machine(H200)
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn())
    assert choose(EngineOptions(lean=True)).product is TENSORRT


def test_a_tensorrt_without_the_flag_is_told_nothing(classic):
    assert classic(StandIn("12.0", strongly_typed=False))[1]["network"] == 0


@pytest.mark.parametrize("fails", [lambda *_: None, lambda *_: json.loads("")])
def test_an_engine_that_is_not_read_back_is_kept_and_says_why(classic, tmp_path, fails):
    """The build may have taken minutes."""
    trt = StandIn()
    trt.Runtime.deserialize_cuda_engine = fails
    record, _ = classic(trt)
    assert (tmp_path / record.file.file).read_bytes() == b"plan"
    assert record.layers["engine"]["unread"].startswith(("TensorRT gave no reason", "Expecting value"))


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


def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(classic, tmp_path):
    with pytest.warns(RuntimeWarning, match="was not kept"):
        record, _ = classic(StandIn(), timing_cache=tmp_path / "gone" / "timing")
    assert (tmp_path / record.file.file).read_bytes() == b"plan"


@pytest.mark.parametrize("path, why", [(".", "is a directory"), ("gone/timing", "no directory")])
def test_a_timing_cache_that_cannot_be_kept_is_refused_before_the_work(tmp_path, monkeypatch, path, why):
    toolkit = Toolkit(TENSORRT, StandIn(), ("9.0",), H200.name, "")
    monkeypatch.setattr("glnet_export.engines.stages.choose", lambda options: toolkit)
    options = EngineOptions(timing_cache=tmp_path / path)
    with pytest.raises(OutputError, match="timing cache") as error:
        export(Source(tmp_path / "no.pth"), tmp_path / "b", engine=options)
    assert why in error.value.why and "--timing-cache" in error.value.fix


def test_the_engine_inspectors_answers():
    layers = [{"Outputs": [{"Format/Datatype": kind} for kind in ("Half", "FP16", "FP32", "Float", "Int32")]}]
    assert count_engine_types(json.dumps({"Layers": layers})) == {"half": 2, "float": 2}
    assert count_engine_types("no JSON") == count_engine_types('{"Layers": ["a", "b"]}') == {}
