"""Backends that fail, sooner or later, for now or for good: their rows say so, the others go on."""

import dataclasses
import itertools
import json

import torch

from glnet_bench.floor import ceilings
from glnet_bench.measure import run as runs
from glnet_bench.measure import sampling
from glnet_bench.record.results import WarmUp

WARM = WarmUp(3, 0.1, 30.0, True)


def test_a_backend_that_fails_half_way_leaves_the_others(bench, shared_bundle, tmp_path, monkeypatch):
    """Even one after which CUDA refuses everything, giving memory back too."""
    opened, refused = runs.open_runner, []

    def refuse(*_):
        refused.append(_)
        raise RuntimeError("an illegal memory access")

    def failing(name, bundle, options):
        runner = opened("onnxruntime-cpu", bundle, options)
        if name == "onnxruntime-cuda":
            runner.staged.run = runner.backend.run = refuse
        return runner

    monkeypatch.setattr(runs, "open_runner", failing)
    arguments = ["--backend", "onnxruntime-cpu,onnxruntime-cuda", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    result = bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json", "--json")
    part = json.loads(result.stdout)["rows"]["batch/1"]
    assert part["onnxruntime-cuda"]["reason"] == "RuntimeError: an illegal memory access"
    assert refused[-1] == ()  # the memory, after the call
    assert part["onnxruntime-cpu"]["times"]["network"]["summary"]["samples"] == 2


def test_what_died_alone_is_not_opened_in_the_runs_process(bench, shared_bundle, tmp_path, monkeypatch):
    """A crash there would end the run, and every attempt to go on with it."""
    opened, alone, started = runs.open_runner, runs.run_alone, []

    def guarded(name, bundle, options):
        assert name != "torch-fp32"
        return opened(name, bundle, options)

    def fresh(bundle, name, *rest, **options):
        started.append(name)
        if name == "torch-fp32":
            raise runs.ProcessDiedError("torch-fp32 died in a process of its own.", why="exit code -11")
        return alone(bundle, name, *rest, **options)

    monkeypatch.setattr(runs, "open_runner", guarded)
    monkeypatch.setattr(runs, "run_alone", fresh)
    arguments = ["--backend", "onnxruntime-cpu,torch-fp32", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    arguments += ["--samples", "2", "--seconds", "0.02", "--soak", "8"]
    result = bench(shared_bundle, *arguments, "-o", tmp_path / "r.json", "--json")
    found = json.loads(result.stdout)
    assert "exit code -11" in found["backends"]["torch-fp32"]["reason"]
    assert "exit code -11" in found["soaks"]["torch-fp32"]["reason"] and started.count("torch-fp32") == 1
    died = found["rows"]["batch/1"]["torch-fp32"]
    assert "exit code -11" in died["reason"] and not died["times"]
    assert found["rows"]["batch/1"]["onnxruntime-cpu"]["times"]


def test_what_failed_for_want_of_memory_or_time_is_tried_again(bench, shared_bundle, tmp_path, monkeypatch):
    """And what will fail again is not."""
    opened, alone, measure = runs.open_runner, runs.run_alone, runs.measure
    short, log = {"memory": True, "time": True}, []

    def refuse(*_):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED" if short["memory"] else "no kernel")

    def failing(name, bundle, options):
        runner = opened("onnxruntime-cpu", bundle, options)
        if name == "onnxruntime-cuda":
            runner.staged.run = refuse
        return runner

    def turns(*given, **options):
        log.append("turns")
        return measure(*given, **options)

    def fresh(bundle, name, *rest, **options):
        log.append(name)
        if name == "torch-fp32" and short["time"]:
            raise runs.ProcessDiedError("torch-fp32 did not answer in a process of its own.", why="waited 900 s")
        return alone(bundle, "onnxruntime-cpu", *rest, **options)

    monkeypatch.setattr(runs, "open_runner", failing)
    monkeypatch.setattr(runs, "run_alone", fresh)
    monkeypatch.setattr(runs, "measure", turns)
    arguments = ["--backend", "onnxruntime-cpu,onnxruntime-cuda,torch-fp32", "--batch", "1", "--persons", "1"]
    arguments += ["--frame", "160x120", "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json", "--json"]

    def parts():
        log.clear()
        run = json.loads(bench(shared_bundle, *arguments).stdout)
        return {**{f"start/{name}": start for name, start in run["starts"].items()}, **run["rows"]}

    first = parts()
    assert log == ["torch-fp32", "onnxruntime-cpu", "onnxruntime-cuda", "turns", "turns"]
    assert first["batch/1"]["onnxruntime-cuda"]["retry"] and first["start/torch-fp32"]["retry"]
    short["memory"] = False
    second = parts()
    assert log == ["torch-fp32", "turns", "turns"]  # the one that hung hangs again, and is still barred
    assert "no kernel" in second["batch/1"]["onnxruntime-cuda"]["reason"]
    assert second["batch/1"]["torch-fp32"]["reason"] == first["start/torch-fp32"]["reason"]
    assert parts() == second and log == ["torch-fp32"]
    short["time"] = False
    last = parts()
    assert log == ["torch-fp32", "turns", "turns"]
    assert all(last[part]["torch-fp32"]["times"] for part in ("batch/1", "frame/160x120/1"))
    assert parts() == last and log == []


def test_a_row_that_failed_late_keeps_and_shows_its_samples(bench, shared_bundle, tmp_path, monkeypatch):
    opened, calls = runs.open_runner, itertools.count()

    def failing(*given):
        runner = opened(*given)
        run = runner.backend.run

        def late(*arrays):
            if next(calls) == 70:
                raise RuntimeError("no kernel")
            return run(*arrays)

        runner.backend.run = late
        return runner

    monkeypatch.setattr(runs, "open_runner", failing)
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    path = tmp_path / "r.json"
    # Warm-up ends after three calls, each of two of the network, and nobody's turn lies between those that follow.
    monkeypatch.setattr(sampling, "warm_up", lambda call, plan, clock: [call() for _ in range(3)] and WARM)
    bench(shared_bundle, *arguments, "--samples", "100", "--seconds", "100", "-o", path)
    row = json.loads(path.read_text())["rows"]["batch/1"]["onnxruntime-cpu"]
    assert row["reason"] == "RuntimeError: no kernel"
    assert row["times"]["network"]["summary"]["samples"] == (70 - 6) // 2
    text = path.with_suffix(".md").read_text()
    assert "failed after these samples: RuntimeError: no kernel; 32 samples" in text and "cannot run: RuntimeE" not in text


def test_a_backend_that_does_not_close_does_not_cost_the_run(bench, shared_bundle, tmp_path, monkeypatch):
    opened = runs.open_runner

    def failing():
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(runs, "open_runner", lambda *given: dataclasses.replace(opened(*given), close=failing))
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    result = bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json", "--json")
    assert json.loads(result.stdout)["finished"]


def test_a_bandwidth_without_products_is_reported(bench, shared_bundle, tmp_path, monkeypatch):
    found = ceilings.Ceilings(None, None, 2e12, "no products (PyTorch is not installed), copy of 1024 MiB")
    monkeypatch.setattr(ceilings, "measure_gpu", lambda **_: found)
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    path = tmp_path / "r.json"
    bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", path)
    assert "- cuda: 2000.0 GB/s (no products (PyTorch is not installed)" in path.with_suffix(".md").read_text()
    assert set(json.loads(path.read_text())["floor"]["times"]) == {"cpu/fp32/1"}
