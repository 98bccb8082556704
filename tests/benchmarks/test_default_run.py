"""A run without options: what it says before, and what it leaves out."""

import dataclasses
import importlib.metadata
import json
import sys

import pytest

from glnet_bench import cli
from glnet_bench.machine import hardware, nvml
from glnet_bench.measure import run as runs
from glnet_bench.record.results import Soak, StartSeconds
from glnet_bench.settings import FULL
from glnet_infer import BackendError
from glnet_infer.backends import registry
from glnet_infer.backends.registry import BackendKind


@pytest.fixture
def small(monkeypatch):
    """Default runs of a few calls."""

    def make(**changes):
        few = {"frames": ("160x120",), "samples": 2, "seconds": 0.02, "persons": (1, 2), "batches": (1, 2)}
        monkeypatch.setattr(cli, "QUICK", dataclasses.replace(cli.QUICK, **few, **changes))
        monkeypatch.setattr(cli, "FULL", dataclasses.replace(FULL, **few))

    make()
    return make


@pytest.fixture
def only_onnx_runtime(monkeypatch):
    """Other backends do not run, and take no time to say so."""
    opened = runs.open_runner

    def open_runner(name, *rest):
        if name != "onnxruntime-cpu":
            raise BackendError("It does not run.", why="the test says so")
        return opened(name, *rest)

    monkeypatch.setattr(runs, "open_runner", open_runner)


def test_it_says_before_what_it_does_and_how_long(bench, small, only_onnx_runtime, shared_bundle, tmp_path):
    said = bench(shared_bundle, "-o", tmp_path / "r.json").stderr
    plan, first, *_ = said.splitlines()
    assert plan.startswith("To measure: torch-fp32, ") and "onnxruntime-cpu" in plan and "torch-compile" not in plan
    assert "the network, 1 and 2 crops in a call" in first and "(160x120) with 1 and 2 persons" in first
    assert "Left out: torch-compile (compiling takes minutes" in said and "--full measures it" in said
    order = ["To measure", "First each backend starts once", "start/torch-fp32", "Started: onnxruntime-cpu.", "floor\n"]
    places = [said.index(text) for text in order]
    assert places == sorted(places)
    assert "The rest takes about" in said and "frames 10 s" in said
    assert "torch-compile" not in json.loads((tmp_path / "r.json").read_text())["settings"]["backends"]


def test_a_full_run_measures_everything(bench, small, only_onnx_runtime, shared_bundle, tmp_path):
    said = bench(shared_bundle, "--full", "-o", tmp_path / "r.json").stderr
    assert "torch-compile" in said.splitlines()[0] and "Left out" not in said


def test_a_slow_machine_leaves_out_the_most_crops(bench, small, only_onnx_runtime, shared_bundle, tmp_path, monkeypatch):
    """And says so, in the file and in the report too; when the command is given again, they stay out."""
    slow = StartSeconds(importing=0.1, loading=0.2, first_call=30.0, total=30.3, later_call=30.0)
    monkeypatch.setattr(runs, "run_alone", lambda *_, **__: Soak(seconds=slow, persons=1))
    path = tmp_path / "r.json"
    said = bench(shared_bundle, "-o", path).stderr
    assert "Left out for want of time: batch/2, frame/160x120/2. --full measures them." in said
    assert "The rest takes about 2 min 30 s, with fewer samples than usual: all would take " in said
    document = json.loads(path.read_text())
    assert set(document["left_out"]) == {"batch/2", "frame/160x120/2"} and document["finished"]
    assert set(document["rows"]) == {"batch/1", "frame/160x120/1"}
    assert "a default run has no time for it: batch/2, frame/160x120/2." in path.with_suffix(".md").read_text()
    bench(shared_bundle, "-o", path)
    assert json.loads(path.read_text()) == document


def test_who_asks_for_a_size_gets_it(bench, small, only_onnx_runtime, shared_bundle, tmp_path, monkeypatch):
    slow = StartSeconds(importing=0.1, loading=0.2, first_call=30.0, total=30.3, later_call=30.0)
    monkeypatch.setattr(runs, "run_alone", lambda *_, **__: Soak(seconds=slow, persons=1))
    assert "want of time" not in bench(shared_bundle, "--batch", "1,2", "-o", tmp_path / "r.json").stderr
    assert set(json.loads((tmp_path / "r.json").read_text())["rows"]) >= {"batch/1", "batch/2"}


def test_the_report_begins_with_one_table_of_four_columns(bench, small, shared_bundle, tmp_path, monkeypatch):
    opened = runs.open_runner
    monkeypatch.setattr(
        runs,
        "open_runner",
        lambda name, *rest: dataclasses.replace(opened("onnxruntime-cpu", *rest), name=name),
    )
    arguments = ["--backend", "torch-fp32,onnxruntime-cpu", "--samples", "5", "-o", tmp_path / "r.json"]
    text = bench(shared_bundle, *arguments).stdout
    title, table, legend = text.split("\n\n")[:3]
    assert title.startswith("# glnet-bench: small") and legend.startswith("ms p50: median time of the network")
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert header == ["backend", "crops", "ms p50", "x eager"]
    keys = [("torch-fp32", "1"), ("onnxruntime-cpu", "1"), ("torch-fp32", "2"), ("onnxruntime-cpu", "2")]
    assert [tuple(row[:2]) for row in rows] == keys
    document = json.loads((tmp_path / "r.json").read_text())
    for name, crops, milliseconds, gain in rows:
        found = document["rows"][f"batch/{crops}"]
        medians = {each: found[each]["times"]["network"]["summary"]["p50"] for each in (name, "torch-fp32")}
        assert milliseconds == f"{medians[name]:.1f}"
        expected = "1" if name == "torch-fp32" else f"{medians['torch-fp32'] / medians[name]:.2f} ("
        assert gain.startswith(expected)


def test_without_matplotlib_a_run_has_no_chart_and_says_so(
    bench, small, only_onnx_runtime, shared_bundle, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "r.json"
    said = bench(shared_bundle, "--backend", "onnxruntime-cpu", "-o", path).stderr
    assert "The chart was left out: matplotlib is not installed. pip install" in said and "[bench]" in said
    assert not path.with_suffix(".png").exists() and "r.png" not in said
    assert "![" not in path.with_suffix(".md").read_text()


def test_without_nvidia_ml_py_a_gpus_state_is_said_to_be_unknown(
    bench, small, only_onnx_runtime, shared_bundle, tmp_path, monkeypatch
):
    machine = hardware.describe(None)
    monkeypatch.setattr(hardware, "describe", lambda gpu: dataclasses.replace(machine, gpus=("L4",)))
    path = tmp_path / "r.json"
    said = bench(shared_bundle, "--backend", "onnxruntime-cpu", "-o", path).stderr
    assert "stay unknown: nvidia-ml-py reads them. pip install" in said
    assert "unknown: nvidia-ml-py is not installed" in path.with_suffix(".md").read_text()


def test_nvml_is_opened_once_and_let_go(bench, small, only_onnx_runtime, shared_bundle, tmp_path, monkeypatch):
    log = []

    class Nvml:
        def __init__(self, bus):
            self.bus = bus
            log.append("opened")

        def driver(self):
            return "580.1"

        def state(self):
            return nvml.GpuState(sm_mhz=1980)

        def sm_clock(self):
            return 1980

        def close(self):
            log.append("closed")

    monkeypatch.setattr(nvml, "Nvml", Nvml)
    monkeypatch.setattr(nvml, "CudaDriver", lambda: type("Driver", (), {"bus": lambda self: "0000:17:00.0"})())
    path = tmp_path / "r.json"
    bench(shared_bundle, "--backend", "onnxruntime-cpu", "-o", path)
    assert log == ["opened", "closed"]
    assert "GPU 1980 to 1980 MHz" in path.with_suffix(".md").read_text()


def test_a_backend_of_another_package_has_a_row(bench, small, shared_bundle, tmp_path, monkeypatch):
    """By the table of backends, which it joins."""
    ours = registry.kinds()["onnxruntime-cpu"]
    other = BackendKind("other", "another's engine", ours.open, lambda: "available", packages=("pytest",))
    table = {**registry.kinds(), "other": other}
    for module in ("glnet_infer.backends.registry", "glnet_bench.runners.registry", "glnet_bench.machine.hardware"):
        monkeypatch.setattr(f"{module}.kinds", lambda: table)
    monkeypatch.setattr(runs, "run_alone", lambda *_, **__: Soak())
    path = tmp_path / "r.json"
    bench(shared_bundle, "--backend", "other", "-o", path)
    document = json.loads(path.read_text())
    assert document["backends"]["other"]["description"] == "another's engine"
    assert document["rows"]["batch/1"]["other"]["times"]["network"]
    assert document["machine"]["versions"]["pytest"]


@pytest.mark.parametrize("name", ["openvino-x", "onnxruntime-x"])
def test_a_name_alone_makes_no_backend_a_product(name, shared_bundle, monkeypatch):
    """Another package's may begin like one of this library's, where the product is not installed."""
    from glnet_bench.runners.registry import Options, open_runner
    from glnet_infer.bundle import Bundle

    def missing(*_):
        raise importlib.metadata.PackageNotFoundError("it was asked for")

    ours = registry.kinds()["onnxruntime-cpu"]
    table = {**registry.kinds(), name: BackendKind(name, "another's engine", ours.open, lambda: "available")}
    for module in ("glnet_infer.backends.registry", "glnet_bench.runners.registry"):
        monkeypatch.setattr(f"{module}.kinds", lambda: table)
    monkeypatch.setattr("importlib.metadata.version", missing)
    assert open_runner(name, Bundle.open(shared_bundle), Options(threads=1)).description == "another's engine"


def test_an_obstacle_that_shows_is_no_reason_to_start_a_process(shared_bundle, monkeypatch):
    from glnet_bench.runners.registry import backend_names, obstacle
    from glnet_infer.bundle import Bundle

    monkeypatch.setattr("glnet_bench.runners.registry.gpus", lambda: [])
    bundle = Bundle.open(shared_bundle)
    shown = {name for name in backend_names() if obstacle(name, bundle)}
    assert shown == {
        *("torch-cuda-graph", "onnxruntime-cuda", "onnxruntime-int8", "openvino-bf16"),
        *("tensorrt", "tensorrt-rtx", "tensorrt-int8"),
    }
