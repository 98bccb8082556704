"""The program as it is typed, on the small bundle."""

import dataclasses
import json
import signal
import subprocess
import sys

import cv2
import pytest
import torch
from typer.testing import CliRunner

from glnet_bench import run as runs
from glnet_bench.cli import app
from glnet_bench.run import STAGES, TIMED_REGION, part_names
from glnet_bench.settings import Frame, Settings

ARGUMENTS = ["--backend", "onnxruntime-cpu,torch-cuda-graph,tensorrt", "--batch", "1,2", "--persons", "1,2"]
ARGUMENTS += ["--frame", "160x120,320x240", "--samples", "3", "--seconds", "0.02", "--threads", "1"]


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """glnet-bench handles SIGTERM; run inside the test process, it must not keep doing so."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def no_ceilings_and_no_processes(monkeypatch):
    """Those have tests of their own, and take seconds."""
    monkeypatch.setattr(runs.ceilings, "best", lambda call: (call(), 0.001)[1])
    monkeypatch.setattr(runs.ceilings, "CPU_SIDES", (32,))

    def fresh(bundle, name, options, frame, persons, frames=0, bus=None):
        if name != "onnxruntime-cpu":
            raise runs.BackendError("It does not run.", why="the test says so")
        seconds = {"import": 0.1, "load": 0.2, "first": 0.3, "total": 0.6, "further": 0.01}
        found = {"seconds": seconds, "host_peak": 100 << 20, "device": None}
        if frames:
            found["readings"] = [{"frame": n, "host": 50 << 20, "device": None} for n in range(1, 9)]
        return found

    monkeypatch.setattr(runs, "run_fresh", fresh)


def bench(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Where a run's files lie, once a test has made them."""
    return tmp_path_factory.mktemp("run") / "a.json"


@pytest.fixture
def document(shared_bundle, finished):
    if not finished.exists():
        bench(shared_bundle, *ARGUMENTS, "--soak", "8", "-o", finished)
    return json.loads(finished.read_text())


def test_every_part_is_measured(document):
    assert document["finished"]
    settings = Settings(
        ("onnxruntime-cpu", "torch-cuda-graph", "tensorrt"),
        (1, 2),
        (1, 2),
        (Frame("160x120", 160, 120), Frame("320x240", 320, 240)),
        soak=8,
    )
    assert sorted(document["parts"]) == sorted(part_names(settings))
    for part, stages in (
        ("batch/2", {"engine", "end_to_end"}),
        ("frame/320x240/2", {"end_to_end", "crop", "engine", "packing"}),
    ):
        row = document["parts"][part]["onnxruntime-cpu"]
        assert set(row["parts"]) == stages
        assert row["warm_up"]["calls"] >= 1
        for found in row["parts"].values():
            assert sum(len(visit) for visit in found["visits"]) == found["summary"]["samples"] == 3
    rate = document["parts"]["batch/2"]["onnxruntime-cpu"]["parts"]["engine"]
    assert rate["per_second"] == pytest.approx(2000 / rate["summary"]["mean"], rel=1e-3)
    assert set(document["parts"]["frame/160x120/1"]["host"]["parts"]) == {"decode", "overlay"}


def test_backends_that_cannot_run_say_why(document):
    backends = document["backends"]
    assert backends["onnxruntime-cpu"]["clock"] == "monotonic clock"
    assert "GPU" in backends["torch-cuda-graph"]["reason"]
    assert "no tensorrt engine" in backends["tensorrt"]["reason"]
    assert document["parts"]["start/tensorrt"] == {"reason": "It does not run. the test says so"}


def test_the_floor_is_there_for_every_batch(document):
    times = document["parts"]["floor"]["times"]
    assert set(times) == {"cpu/fp32/1", "cpu/fp32/2"}
    assert all(0 < entry["bound"] <= entry["by_layer"] for entry in times.values())


def test_provenance_is_kept(document, shared_bundle):
    import hashlib

    graph = hashlib.sha256((shared_bundle / "model.onnx").read_bytes()).hexdigest()
    assert document["bundle"]["graph_sha256"] == graph
    assert document["machine"]["versions"]["onnxruntime"]
    assert document["machine"]["cpu"] and document["machine"]["cores"] >= 1
    assert len(document["watched"]) == len(document["parts"]) + 1


def test_the_report_says_what_is_timed_and_has_every_table(document, finished):
    text = finished.with_suffix(".md").read_text()
    assert TIMED_REGION in text
    for title in ("Backends", "Engine and end-to-end", "Floor", "Stages", "Start and memory", "Memory over 8 frames"):
        assert f"\n## {title}" in text
    assert all(f" {stage} |" in text for stage in STAGES)
    assert text.count("cannot run:") >= 4
    assert "![Plot](a.png)" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert blocks and all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_the_plot_is_a_picture(document, finished):
    image = cv2.imread(str(finished.with_suffix(".png")))
    assert image is not None and image.shape[1] == 900
    assert image.std() > 5


def test_an_interrupted_run_goes_on(shared_bundle, tmp_path, monkeypatch):
    path, measured, measure = tmp_path / "run.json", [], runs.measure

    def interrupted(cases, plan, **options):
        measured.append(options["seed"])
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(cases, plan, **options)

    monkeypatch.setattr(runs, "measure", interrupted)
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1,2", "--persons", "1", "--frame", "160x120"]
    arguments = [shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", path]
    result = bench(*arguments, code=130)
    assert "the same command goes on" in result.stderr
    kept = json.loads(path.read_text())
    assert "batch/1" in kept["parts"] and "batch/2" not in kept["parts"] and not kept["finished"]
    assert len(kept["watched"]) == len(kept["parts"]) + 1  # what the last finished part met is not lost
    assert "going on" in bench(*arguments).stderr
    done = json.loads(path.read_text())
    assert done["parts"]["batch/1"] == kept["parts"]["batch/1"]
    assert done["finished"]
    count = len(measured)
    bench(*arguments)
    assert len(measured) == count  # nothing is left to do
    bench(*arguments, "--samples", "4", code=3)


def test_a_backend_that_fails_half_way_leaves_the_others(shared_bundle, tmp_path, monkeypatch):
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
    part = json.loads(result.stdout)["parts"]["batch/1"]
    assert part["onnxruntime-cuda"]["reason"] == "RuntimeError: an illegal memory access"
    assert refused[-1] == ()  # the memory, after the call
    assert part["onnxruntime-cpu"]["parts"]["engine"]["summary"]["samples"] == 2


def test_what_died_alone_is_not_opened_in_the_runs_process(shared_bundle, tmp_path, monkeypatch):
    """A crash there would end the run, and every attempt to go on with it."""
    opened, alone, started = runs.open_runner, runs.run_fresh, []

    def guarded(name, bundle, options):
        assert name != "torch-fp32"
        return opened(name, bundle, options)

    def fresh(bundle, name, *rest, **options):
        started.append(name)
        if name == "torch-fp32":
            raise runs.ProcessDiedError("torch-fp32 died in a process of its own.", why="exit code -11")
        return alone(bundle, name, *rest, **options)

    monkeypatch.setattr(runs, "open_runner", guarded)
    monkeypatch.setattr(runs, "run_fresh", fresh)
    arguments = ["--backend", "onnxruntime-cpu,torch-fp32", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    arguments += ["--samples", "2", "--seconds", "0.02", "--soak", "8"]
    result = bench(shared_bundle, *arguments, "-o", tmp_path / "r.json", "--json")
    found = json.loads(result.stdout)
    assert "exit code -11" in found["backends"]["torch-fp32"]["reason"]
    assert "exit code -11" in found["parts"]["soak/torch-fp32"]["reason"] and started.count("torch-fp32") == 1
    assert list(found["parts"]["batch/1"]) == ["onnxruntime-cpu"]


def test_a_backend_that_does_not_close_does_not_cost_the_run(shared_bundle, tmp_path, monkeypatch):
    opened = runs.open_runner

    def failing():
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(runs, "open_runner", lambda *given: dataclasses.replace(opened(*given), close=failing))
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    result = bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json", "--json")
    assert json.loads(result.stdout)["finished"]


def test_end_to_end_times_of_batches_are_compared_on_the_same_frame(document, finished, tmp_path):
    other = json.loads(json.dumps(document))
    other["settings"]["frames"].reverse()
    (tmp_path / "b.json").write_text(json.dumps(other))
    rows = json.loads(bench("compare", finished, tmp_path / "b.json", "--json").stdout)["rows"]
    assert {row["what"] for row in rows if row["part"] == "batch/1"} == {"engine"}


def test_two_runs_are_compared(document, finished, tmp_path):
    slower = json.loads(json.dumps(document))
    slower["machine"]["cpu"] = "another"
    slower["watched"][0]["load_average"] = 100
    for row in slower["parts"]["batch/2"].values():
        found = row["parts"]["engine"]
        found["visits"] = [[3 * value for value in visit] for visit in found["visits"]]
        found["summary"]["p50"] *= 3
    other = tmp_path / "b.json"
    other.write_text(json.dumps(slower))
    result = bench("compare", finished, other, "--json")
    compared = json.loads(result.stdout)
    rows = {(row["part"], row["backend"], row["what"]): row for row in compared["rows"]}
    assert rows["batch/2", "onnxruntime-cpu", "engine"]["ratio"]["value"] == pytest.approx(3)
    same = rows["batch/1", "onnxruntime-cpu", "engine"]
    assert same["samples"] == [3, 3]
    assert same["ratio"]["value"] == 1 and same["verdict"] == "no difference shown"
    assert any(line.startswith("machine.cpu") for line in compared["differences"])
    table = bench("compare", finished, other)
    assert "| batch/2 | onnxruntime-cpu | engine |" in table.stdout
    assert "machine.cpu" in table.stderr and "WARNING: B: the machine was busy" in table.stderr


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--backend", "cuda"], 8, "no backend"),
        (["--batch", "0"], 3, "--batch"),
        (["--frame", "huge"], 3, "no frame"),
        (["-o", "run.txt"], 3, ".json"),
        (["--checkpoint", "missing.pth"], 5, "no checkpoint"),
    ],
)
def test_mistakes_are_named(shared_bundle, arguments, code, words):
    assert words in bench(shared_bundle, *arguments, code=code).stderr


def test_a_run_of_single_points_has_a_picture_of_them(shared_bundle, tmp_path):
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json")
    picture = cv2.imread(str(tmp_path / "r.png"))
    blue = (picture[..., 0] > 170) & (picture[..., 2] < 60)  # the first backend's colour
    assert blue.sum() > 100


def test_what_is_no_bundle_is_refused(tmp_path):
    assert "is not a bundle" in bench(tmp_path, code=4).stderr


@pytest.mark.parametrize("arguments", [["--help"], ["measure", "--help"], ["compare", "--help"], ["--version"]])
def test_help_and_version(arguments):
    assert bench(*arguments).stdout


def test_pytorch_stays_away_where_none_of_its_rows_is_asked_for(shared_bundle):
    code = f"""
import sys
from glnet_bench.runners import Options, open_runner
from glnet_infer.bundle import Bundle
import glnet_bench.cli, glnet_bench.run, glnet_bench.report, glnet_bench.chart, glnet_bench.fresh
open_runner("onnxruntime-cpu", Bundle.open({str(shared_bundle)!r}), Options(threads=1)).close()
print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False", result.stderr


def test_pytorchs_row_runs_the_bundles_checkpoint(shared_bundle, small_checkpoint):
    import numpy as np

    from glnet_bench import scene
    from glnet_bench.runners import Options, open_runner
    from glnet_infer.bundle import Bundle

    bundle = Bundle.open(shared_bundle)
    batch = scene.batch(2, bundle.manifest.crop.size)
    found = open_runner("torch-fp32", bundle, Options(checkpoint=small_checkpoint))
    expected = open_runner("onnxruntime-cpu", bundle, Options())
    difference = found.backend.run(*batch)["vertices"] - expected.backend.run(*batch)["vertices"]
    assert np.abs(difference).max() < 5e-5  # metres; the bound that exports keep
    assert small_checkpoint.name in found.says


def test_another_checkpoint_is_refused(shared_bundle, tmp_path):
    from glnet_bench.runners import Options, open_runner
    from glnet_infer import CheckpointError
    from glnet_infer.bundle import Bundle

    other = tmp_path / "other.pth"
    other.write_bytes(b"else")
    with pytest.raises(CheckpointError, match="not what the bundle was made from"):
        open_runner("torch-fp32", Bundle.open(shared_bundle), Options(checkpoint=other))
