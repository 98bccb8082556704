"""Which engine is chosen, and what is said where none fits: machine, installation, version, file, command line."""

import dataclasses
import importlib
import json
import sys
import types

import pytest
from tensorrt_stand_in import engine_record, make_bundle, refused
from typer.testing import CliRunner

import glnet_infer.devices
from glnet_infer import BackendError, BundleError, MeshRecoverer
from glnet_infer.backends import choose_backend, open_backend
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.commands.infer import app as infer_app
from glnet_infer.devices import Gpu

# Before anything is loaded


@pytest.fixture
def choice_of(machine, tmp_path, monkeypatch):
    """What opening TensorRT says on a machine with a GPU, for a bundle with engines."""

    def choice(*engines, gpu="8.9"):
        monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA L4", gpu)])
        return make_bundle(tmp_path, *(engine_record(tmp_path, **values) for values in engines))

    return choice


def test_no_gpu(classic, monkeypatch, machine):
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    refused(lambda: open_backend("tensorrt", classic), "needs an NVIDIA GPU", "onnxruntime-cpu")
    assert not machine.events


def test_an_engine_of_another_model_of_gpu_runs_and_says_so(machine, install, tmp_path, monkeypatch, recwarn):
    install()
    bundle = make_bundle(tmp_path, engine_record(tmp_path))  # built on an L4
    TensorRtBackend(bundle).close()
    assert not recwarn.list
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA GeForce RTX 4090", "8.9")])
    with pytest.warns(RuntimeWarning, match=r"built on NVIDIA L4 and runs on NVIDIA GeForce RTX 4090.*rebuild"):
        TensorRtBackend(bundle).close()


def test_no_engine(choice_of, install):
    install()
    bundle = choice_of()
    refused(lambda: open_backend("tensorrt", bundle), "no TensorRT engine", f"glnet-export engine {bundle.directory}")


@pytest.mark.parametrize(
    "flavor, title, extra", [("tensorrt", "TensorRT", "trt"), ("tensorrt-rtx", "TensorRT for RTX", "rtx")]
)
def test_no_module(choice_of, flavor, title, extra):
    bundle = choice_of({"flavor": flavor})
    error = refused(lambda: open_backend("tensorrt", bundle), f"{title} is not installed", "pip install")
    assert f"[{extra}]" in error.fix


def test_a_module_whose_libraries_are_broken(choice_of, monkeypatch):
    original = importlib.import_module

    def load(name):
        if name == "tensorrt_rtx":
            raise OSError("libtensorrt_rtx.so.1: cannot open shared object file")
        return original(name)

    monkeypatch.setattr("importlib.import_module", load)
    bundle = choice_of({"flavor": "tensorrt-rtx"})
    refused(lambda: open_backend("tensorrt", bundle), "not installed", "libtensorrt_rtx.so.1: cannot open")


def test_no_cuda_core(rtx, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    error = refused(lambda: open_backend("tensorrt", rtx), "cuda-core is not installed")
    assert "[rtx]" in error.fix


def test_another_gpu(choice_of, install):
    install("tensorrt_rtx")
    bundle = choice_of({"flavor": "tensorrt-rtx", "compute_capabilities": ("8.9", "12.0")}, gpu="8.6")
    error = refused(lambda: open_backend("tensorrt", bundle), "built for sm 8.9, 12.0 with TensorRT for RTX 1.7.1.116")
    assert "here sm 8.6 (NVIDIA L4) with TensorRT for RTX 1.7.1.116" in error.why
    assert error.fix == f"rebuild with glnet-export engine {bundle.directory} --sm 86"


def test_another_gpu_for_tensorrt_is_built_for_where_it_is(choice_of, install):
    install()
    error = refused(lambda: open_backend("tensorrt", choice_of({}, gpu="9.0")), "built for sm 8.9 with TensorRT 10.16.1.11")
    assert error.fix.startswith("rebuild on this machine with glnet-export") and "--sm" not in error.fix


def test_a_gpu_that_rtx_does_not_know(choice_of, install):
    install("tensorrt_rtx")
    error = refused(lambda: open_backend("tensorrt", choice_of({"flavor": "tensorrt-rtx"}, gpu="9.0")), "sm 9.0")
    assert "TensorRT for RTX does not support this GPU" in error.fix and "--sm" not in error.fix


@pytest.mark.parametrize("installed", ["1.7.2.3", "1.7.1.99", "1.8.1.116"])
def test_another_version(choice_of, install, machine, installed):
    install("tensorrt_rtx", installed)
    error = refused(lambda: open_backend("tensorrt", choice_of({"flavor": "tensorrt-rtx"})), "does not fit", installed)
    assert "pip install tensorrt-rtx==1.7.1.116" in error.fix and "--sm 89" in error.fix
    assert not machine.events


def test_versions_are_compared_as_far_as_both_go(choice_of, install):
    install()
    TensorRtBackend(choice_of({"version": "10.16.1"})).close()


def test_the_lean_runtime_runs_what_was_built_for_it(choice_of, install):
    install()
    install("tensorrt_lean")
    with TensorRtBackend(choice_of({"lean": True})) as backend:
        assert backend.name == "tensorrt-lean" and "tensorrt-lean" in repr(backend)


def test_the_lean_runtime_runs_nothing_else(choice_of, install):
    install("tensorrt_lean")
    refused(lambda: open_backend("tensorrt", choice_of({})), "TensorRT is not installed", "[trt]")


def test_an_engine_for_the_lean_runtime_runs_there_alone(choice_of, install):
    install()
    refused(lambda: open_backend("tensorrt", choice_of({"lean": True})), "lean runtime is not installed", "[lean]")


def test_an_engine_for_another_version_of_the_lean_runtime_is_rebuilt_for_it(choice_of, install):
    install("tensorrt_lean", "11.4.0.106")
    bundle = choice_of({"lean": True})
    error = refused(lambda: open_backend("tensorrt", bundle), "does not fit", "lean runtime 11.4.0.106")
    assert (
        f"glnet-export engine {bundle.directory} --lean" in error.fix
        and "pip install tensorrt-lean==10.16.1.11" in error.fix
    )


def test_tensorrts_engine_goes_before_rtxs(choice_of, install):
    install()
    install("tensorrt_rtx")
    bundle = choice_of({"flavor": "tensorrt-rtx"}, {})
    with open_backend("tensorrt", bundle) as backend:
        assert backend.name == "tensorrt"
    other = dataclasses.replace(bundle.manifest.engines[1], compute_capabilities=("9.0",))
    manifest = dataclasses.replace(bundle.manifest, engines=(bundle.manifest.engines[0], other))
    with open_backend("tensorrt", dataclasses.replace(bundle, manifest=manifest)) as backend:
        assert backend.name == "tensorrt-rtx"


def test_an_engine_in_int8_is_run_by_name_alone(choice_of, install, onnx_runtime):
    install()
    install("tensorrt_rtx")
    onnx_runtime("CUDAExecutionProvider")
    bundle = choice_of({"precision": "int8"}, {"flavor": "tensorrt-rtx"})
    with open_backend("tensorrt", bundle) as backend:  # TensorRT's own would go first
        assert backend.name == "tensorrt-rtx"
    with open_backend("tensorrt-int8", bundle) as backend:
        assert backend.name == "tensorrt-int8" and ", int8, " in repr(backend)
    assert choose_backend(bundle).name == "tensorrt"
    bundle = choice_of({"precision": "int8"})
    assert choose_backend(bundle).name == "onnxruntime-cuda"
    refused(lambda: open_backend("tensorrt", bundle), "has no TensorRT engine.", f"engine {bundle.directory}")
    refused(lambda: open_backend("tensorrt-int8", choice_of({})), "no TensorRT engine in int8", "--precision int8")
    bundle = choice_of({"precision": "int8"}, gpu="8.6")
    error = refused(lambda: open_backend("tensorrt-int8", bundle), "does not fit")
    assert f"glnet-export engine {bundle.directory} --precision int8" in error.fix


def test_of_several_engines_that_do_not_fit_each_says_why(choice_of, install):
    install("tensorrt_rtx", "1.6.0.1")
    bundle = choice_of({}, {"flavor": "tensorrt-rtx"})
    error = refused(lambda: open_backend("tensorrt", bundle), "None of the 2 TensorRT engines")
    assert "model.tensorrt.engine: TensorRT is not installed" in error.why
    assert "with TensorRT for RTX 1.7.1.116; here" in error.why and "1.6.0.1" in error.why  # a long middle is left out
    assert "[trt]" in error.fix and "tensorrt-rtx==1.7.1.116" in error.fix


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), ["it has 100 bytes"]),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"FLOAT", b"FLOAD", 1)), ["SHA-256"]),
        (lambda path: path.unlink(), ["is missing"]),
    ],
)
def test_a_damaged_engine_is_not_given_to_tensorrt(either, machine, damage, words):
    damage(either.directory / either.manifest.engines[0].file.file)
    refused(lambda: TensorRtBackend(either), *words, kind=BundleError)
    assert not machine.named("deserialize") and not machine.memory


# Choosing, and the command line


@pytest.fixture
def onnx_runtime(monkeypatch):
    def install(*providers):
        module = types.ModuleType("onnxruntime")
        module.__version__ = "9.8.7"
        module.get_available_providers = lambda: list(providers)
        monkeypatch.setitem(sys.modules, "onnxruntime", module)

    return install


def test_auto_takes_tensorrt_where_all_fits(either, onnx_runtime):
    onnx_runtime("CUDAExecutionProvider")
    assert choose_backend(either).name == "tensorrt" and choose_backend(either).reason == ""
    with MeshRecoverer(either.directory) as recoverer:
        assert recoverer.backend in ("tensorrt", "tensorrt-rtx") and recoverer.backend_reason == ""


def test_auto_says_why_not_tensorrt(choice_of, install, onnx_runtime):
    install()
    onnx_runtime("CUDAExecutionProvider")
    choice = choose_backend(choice_of({}, gpu="8.6"))
    assert choice.name == "onnxruntime-cuda"
    assert "no TensorRT" in choice.reason and "built for sm 8.9" in choice.reason and "here sm 8.6" in choice.reason


def test_auto_on_the_cpu_beside_a_gpu_says_why(choice_of, onnx_runtime):
    onnx_runtime("CPUExecutionProvider")
    choice = choose_backend(choice_of({}))
    assert choice.name == "onnxruntime-cpu"
    assert "TensorRT is not installed" in choice.reason and "ONNX Runtime 9.8.7 is built without" in choice.reason
    assert "TensorRT" not in choose_backend(choice_of()).reason  # a bundle without engines was not meant for it


def test_auto_without_cuda_core_says_so(classic, monkeypatch, onnx_runtime):
    onnx_runtime("CUDAExecutionProvider")
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    choice = choose_backend(classic)
    assert choice.name == "onnxruntime-cuda" and "cuda-core is not installed" in choice.reason


def test_auto_without_a_gpu_has_nothing_to_explain(classic, monkeypatch, onnx_runtime):
    onnx_runtime("CPUExecutionProvider")
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    assert dataclasses.astuple(choose_backend(classic)) == ("onnxruntime-cpu", "")


def test_auto_does_not_pass_over_a_damaged_engine(classic):
    (classic.directory / "model.tensorrt.engine").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.tensorrt\.engine"):
        open_backend("auto", classic)


def test_a_named_backend_is_not_replaced(choice_of, install, onnx_runtime):
    install()
    onnx_runtime("CUDAExecutionProvider", "CPUExecutionProvider")
    refused(lambda: open_backend("tensorrt", choice_of({}, gpu="8.6")), "does not fit")


def infer(bundle, tmp_path, *options):
    image = tmp_path / "image.png"
    image.write_bytes(b"")
    return CliRunner().invoke(infer_app, [str(image), "-b", str(bundle), "-o", str(tmp_path / "out"), *options])


def test_the_command_line_says_why_it_cannot(classic, tmp_path, monkeypatch):
    monkeypatch.setattr(glnet_infer.devices, "gpus", list)
    result = infer(classic.directory, tmp_path, "--backend", "tensorrt", "--json")
    assert result.exit_code == BackendError.exit_code == 8
    assert "needs an NVIDIA GPU" in result.stderr and "what to do:" in result.stderr
    assert json.loads(result.stdout)["error"]["exit_code"] == 8


def test_the_command_line_says_once_that_it_could_be_faster(choice_of, onnx_runtime, tmp_path, monkeypatch):
    onnx_runtime("CPUExecutionProvider")
    bundle = choice_of({})

    class Backend:
        name = "onnxruntime-cpu"

        def close(self):
            pass

    monkeypatch.setattr("glnet_infer.backends.registry.open_backend", lambda *_: Backend())
    result = infer(bundle.directory, tmp_path)
    assert result.stderr.count("It could be faster: no TensorRT: TensorRT is not installed.") == 1
    assert not result.stdout
