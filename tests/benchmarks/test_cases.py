"""Which calls take turns, and how a GPU's are prepared."""

import contextlib
import dataclasses
import itertools
import json
import types

import pytest

from glnet_bench.machine import nvml as nvmls
from glnet_bench.measure import cases
from glnet_bench.measure import run as runs
from glnet_bench.measure.cases import Cases
from glnet_bench.record.names import HOST, Part
from glnet_bench.record.surroundings import GpuState
from glnet_bench.runners.base import Options
from glnet_bench.runners.registry import open_runner
from glnet_bench.settings import Frame
from glnet_infer.bundle import Bundle

SMALL = Frame("small", 160, 120)


@pytest.fixture
def runners(shared_bundle):
    """One on the CPU, and one that says it is on a GPU."""
    runner = open_runner("onnxruntime-cpu", Bundle.open(shared_bundle), Options(threads=1))
    yield {"onnxruntime-cpu": runner, "onnxruntime-cuda": dataclasses.replace(runner, device="cuda")}
    runner.close()


@pytest.mark.parametrize("nvml", [types.SimpleNamespace(sm_clock=lambda: 1980), None])
def test_a_gpu_settles_before_it_is_timed(shared_bundle, runners, nvml):
    found = Cases(Bundle.open(shared_bundle), runners, nvml)
    made = [
        *found.batch(1, SMALL),
        *found.frames({Part.of_frame("small", 1): SMALL, Part.of_frame("small", 2): SMALL}),
    ]
    assert {(str(case.key[0]), case.key[1]) for case in made} == {
        *(("batch/1", name) for name in runners),
        *((f"frame/small/{count}", name) for count in (1, 2) for name in (*runners, HOST)),
    }
    for case in made:
        on_gpu = case.key[1] == "onnxruntime-cuda"
        assert case.settle == (0.3 if on_gpu else 0)
        assert (case.clock_mhz and case.clock_mhz()) == (1980 if on_gpu and nvml else None)


def test_a_gpus_clocks_are_kept_and_shown_where_they_wander(bench, shared_bundle, tmp_path, monkeypatch):
    opened, readings = runs.open_runner, itertools.cycle([1980, 900])
    monkeypatch.setattr(cases, "GPU_SETTLE", 0)
    nvml = types.SimpleNamespace(sm_clock=lambda: next(readings), state=GpuState, driver=lambda: None, bus=None)
    monkeypatch.setattr(nvmls, "opened", lambda: contextlib.nullcontext(nvml))
    monkeypatch.setattr(runs, "open_runner", lambda *given: dataclasses.replace(opened(*given), device="cuda"))
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    path = tmp_path / "r.json"
    bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", path)
    assert json.loads(path.read_text())["rows"]["batch/1"]["onnxruntime-cpu"]["clocks_mhz"] == [1980, 900]
    assert "GPU clock 900 to 1980 MHz" in path.with_suffix(".md").read_text()
