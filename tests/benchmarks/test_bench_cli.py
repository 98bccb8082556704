"""The program as it is typed, on the small bundle."""

import dataclasses
import json
import subprocess
import sys

import cv2
import pytest

from glnet_bench.measure import run as runs
from glnet_bench.measure.forecast import FRAMES, measurements
from glnet_bench.record.files import read_run
from glnet_bench.record.names import STAGES
from glnet_bench.report.page import TIMED_REGION
from glnet_bench.settings import Frame, Settings
from glnet_infer import BackendError

ARGUMENTS = ["--backend", "onnxruntime-cpu,torch-cuda-graph,tensorrt", "--batch", "1,2", "--persons", "1,2"]
ARGUMENTS += ["--frame", "160x120,320x240", "--samples", "3", "--seconds", "0.02", "--threads", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Where a run's files lie, once a test has made them."""
    return tmp_path_factory.mktemp("run") / "a.json"


@pytest.fixture
def document(bench, shared_bundle, finished):
    if not finished.exists():
        bench(shared_bundle, *ARGUMENTS, "--soak", "8", "-o", finished)
    return json.loads(finished.read_text())


def test_every_part_is_measured(document, finished):
    assert document["finished"]
    settings = Settings(
        ("onnxruntime-cpu", "torch-cuda-graph", "tensorrt"),
        (1, 2),
        (1, 2),
        (Frame("160x120", 160, 120), Frame("320x240", 320, 240)),
        soak=8,
    )
    assert read_run(finished).parts() == {part for parts in measurements(settings).values() for part in parts}
    for part, stages in (
        ("batch/2", {"network", "end_to_end"}),
        ("frame/320x240/2", {"end_to_end", "crop", "network", "packing"}),
    ):
        row = document["rows"][part]["onnxruntime-cpu"]
        assert set(row["times"]) == stages
        assert row["warm_up"]["calls"] >= 1
        for found in row["times"].values():
            assert sum(len(turn) for turn in found["turns"]) == found["summary"]["samples"] == 3
    rate = document["rows"]["batch/2"]["onnxruntime-cpu"]["times"]["network"]
    assert rate["per_second"] == pytest.approx(2000 / rate["summary"]["mean"], rel=1e-3)
    assert set(document["rows"]["frame/160x120/1"]["host"]["times"]) == {"decode", "overlay"}


def test_backends_that_cannot_run_say_why(document):
    backends = document["backends"]
    assert backends["onnxruntime-cpu"]["clock"] == "monotonic clock"
    assert "GPU" in backends["torch-cuda-graph"]["reason"]
    assert "no tensorrt engine" in backends["tensorrt"]["reason"]
    assert document["starts"]["tensorrt"] == {"reason": "It does not run. the test says so"}


def test_the_floor_is_there_for_every_batch(document):
    times = document["floor"]["times"]
    assert set(times) == {"cpu/fp32/1", "cpu/fp32/2"}
    assert all(0 < entry["bound"] <= entry["by_layer"] for entry in times.values())


def test_provenance_is_kept(document, shared_bundle):
    import hashlib

    graph = hashlib.sha256((shared_bundle / "model.onnx").read_bytes()).hexdigest()
    assert document["bundle"]["graph_sha256"] == graph
    assert document["machine"]["versions"]["onnxruntime"]
    assert document["machine"]["cpu"] and document["machine"]["cores"] >= 1
    assert [note.get("after") for note in document["watched"]] == [
        None,
        *("start/torch-cuda-graph", "start/onnxruntime-cpu", "start/tensorrt", "floor"),
        *("soak/torch-cuda-graph", "soak/onnxruntime-cpu", "soak/tensorrt", "batch/1", "batch/2", FRAMES),
    ]


def test_the_report_says_what_is_timed_and_has_every_table(document, finished):
    text = finished.with_suffix(".md").read_text()
    assert TIMED_REGION in text
    assert "code: commit c0c0c0c0c0c0 with changes, sources 505050505050" in text
    titles = ("Backends", "Network and end-to-end", "Floor", "Growth", "Stages", "Start and memory", "Memory over 8 frames")
    for title in titles:
        assert f"\n## {title}" in text
    assert all(f" {stage} |" in text for stage in STAGES)
    assert text.count("cannot run:") >= 4
    assert "![Chart](a.png)" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert blocks and all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_the_plot_is_a_picture(document, finished):
    image = cv2.imread(str(finished.with_suffix(".png")))
    assert image is not None and image.shape[1] == 900
    assert image.std() > 5


def test_an_interrupted_run_goes_on(bench, shared_bundle, tmp_path, monkeypatch):
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
    assert "batch/1" in kept["rows"] and "batch/2" not in kept["rows"] and not kept.get("finished")
    assert len(kept["watched"]) == len(read_run(path).parts()) + 1  # what the last finished part met is not lost
    assert "going on" in bench(*arguments).stderr
    done = json.loads(path.read_text())
    assert done["rows"]["batch/1"] == kept["rows"]["batch/1"]
    assert done["finished"]
    count = len(measured)
    bench(*arguments)
    assert len(measured) == count  # nothing is left to do
    assert json.loads(path.read_text()) == done  # nor to say: the machine may be busy by now
    bench(*arguments, "--samples", "4", code=3)


def test_a_run_of_backends_none_of_which_runs_is_an_error(bench, shared_bundle, tmp_path):
    arguments = ["--backend", "tensorrt,torch-cuda-graph", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    result = bench(shared_bundle, *arguments, "-o", tmp_path / "r.json", code=BackendError.exit_code)
    assert "None of the backends ran" in result.stderr and "torch-cuda-graph: " in result.stderr
    assert (tmp_path / "r.md").exists()


def test_all_frames_and_persons_take_turns(bench, shared_bundle, tmp_path, monkeypatch):
    """Else what changes between two parts of a run would be taken for growth."""
    together, measure = [], runs.measure

    def listening(cases, plan, **options):
        together.append({(str(part), backend) for part, backend in (case.key for case in cases)})
        return measure(cases, plan, **options)

    monkeypatch.setattr(runs, "measure", listening)
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1,2", "--frame", "160x120,320x240"]
    bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json")
    parts = {f"frame/{frame}/{persons}" for frame in ("160x120", "320x240") for persons in (1, 2)}
    names = ("onnxruntime-cpu", "host")
    assert together == [{("batch/1", "onnxruntime-cpu")}, {(part, name) for part in parts for name in names}]


def test_end_to_end_times_of_batches_are_compared_on_the_same_frame(bench, document, finished, tmp_path):
    other = json.loads(json.dumps(document))
    other["settings"]["frames"].reverse()
    (tmp_path / "b.json").write_text(json.dumps(other))
    rows = json.loads(bench("compare", finished, tmp_path / "b.json", "--json").stdout)["rows"]
    assert {row["what"] for row in rows if row["part"] == "batch/1"} == {"network"}


def test_two_runs_are_compared(bench, document, finished, tmp_path):
    slower = json.loads(json.dumps(document))
    slower["machine"]["cpu"] = "another"
    slower["code"]["commit"] = "c1"
    slower["watched"][0]["load_average"] = 100
    for row in slower["rows"]["batch/2"].values():
        found = row["times"]["network"]
        found["turns"] = [[3 * value for value in turn] for turn in found["turns"]]
    other = tmp_path / "b.json"
    other.write_text(json.dumps(slower))
    result = bench("compare", finished, other, "--json")
    compared = json.loads(result.stdout)
    rows = {(row["part"], row["backend"], row["what"]): row for row in compared["rows"]}
    assert rows["batch/2", "onnxruntime-cpu", "network"]["ratio"]["value"] == pytest.approx(3)
    same = rows["batch/1", "onnxruntime-cpu", "network"]
    assert same["samples"] == same["turns"] == [3, 3]
    assert same["ratio"]["value"] == 1 and same["verdict"] == "too few turns"
    assert any(line.startswith("machine.cpu") for line in compared["differences"])
    assert any(line.startswith("code.commit") for line in compared["differences"])
    table = bench("compare", finished, other)
    assert "| batch/2 | onnxruntime-cpu | network |" in table.stdout
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
def test_mistakes_are_named(bench, shared_bundle, arguments, code, words):
    assert words in bench(shared_bundle, *arguments, code=code).stderr


def test_a_run_of_single_points_has_a_picture_of_them(bench, shared_bundle, tmp_path):
    arguments = ["--backend", "onnxruntime-cpu", "--batch", "1", "--persons", "1", "--frame", "160x120"]
    bench(shared_bundle, *arguments, "--samples", "2", "--seconds", "0.02", "-o", tmp_path / "r.json")
    picture = cv2.imread(str(tmp_path / "r.png"))
    blue = (picture[..., 0] > 150) & (picture[..., 2] < 80)  # the first backend's colour
    assert blue.sum() > 100


def test_what_is_no_bundle_is_refused(bench, tmp_path):
    assert "is not a bundle" in bench(tmp_path, code=4).stderr


@pytest.mark.parametrize("arguments", [["--help"], ["measure", "--help"], ["compare", "--help"], ["--version"]])
def test_help_and_version(bench, arguments):
    assert bench(*arguments).stdout


def test_pytorch_stays_away_where_none_of_its_rows_is_asked_for(shared_bundle):
    code = f"""
import sys
from glnet_bench.runners.base import Options
from glnet_bench.runners.registry import open_runner
from glnet_infer.bundle import Bundle
import glnet_bench.cli, glnet_bench.measure.run, glnet_bench.measure.alone
import glnet_bench.report.page, glnet_bench.report.chart
open_runner("onnxruntime-cpu", Bundle.open({str(shared_bundle)!r}), Options(threads=1)).close()
print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False", result.stderr


def test_pytorchs_row_runs_the_bundles_checkpoint(shared_bundle, small_checkpoint):
    import numpy as np

    from glnet_bench.measure import scene
    from glnet_bench.runners.base import Options
    from glnet_bench.runners.registry import open_runner
    from glnet_infer.bundle import Bundle

    bundle = Bundle.open(shared_bundle)
    batch = scene.batch(2, bundle.manifest.crop.size)
    found = open_runner("torch-fp32", bundle, Options(checkpoint=small_checkpoint))
    expected = open_runner("onnxruntime-cpu", bundle, Options())
    difference = found.backend.run(*batch)["vertices"] - expected.backend.run(*batch)["vertices"]
    assert np.abs(difference).max() < 5e-5  # metres; the bound that exports keep
    assert small_checkpoint.name in found.description


def test_another_checkpoint_is_refused(shared_bundle, tmp_path):
    from glnet_bench.runners.base import Options
    from glnet_bench.runners.registry import open_runner
    from glnet_infer import CheckpointError
    from glnet_infer.bundle import Bundle

    other = tmp_path / "other.pth"
    other.write_bytes(b"else")
    with pytest.raises(CheckpointError, match="not what the bundle was made from"):
        open_runner("torch-fp32", Bundle.open(shared_bundle), Options(checkpoint=other))


@pytest.mark.parametrize("key", ["", "ema"])
@pytest.mark.parametrize("form", ["small", "hybrik-resnet-34"])
def test_pytorchs_rows_take_the_weights_that_were_exported(shared_bundle, small_checkpoint, tmp_path, form, key):
    import torch
    from public_layouts import state_dict

    from glnet_bench.runners import torch_runners
    from glnet_bench.runners.base import Options
    from glnet_infer.bundle import Bundle, record_file

    adopted = form != "small"
    state = state_dict(form, seed=1) if adopted else torch.load(small_checkpoint, weights_only=True)["state_dict"]
    name, path = "decshape.bias" if adopted else "coarse.bias", tmp_path / "both.pth"
    torch.save({"ema": {**state, name: state[name] + 1}, "state_dict": state}, path)
    bundle = Bundle.open(shared_bundle)
    changes = {"sha256": record_file(path).sha256, "weights_key": key}
    if adopted:
        changes["config"] = {"adopted": form, "flip_test": False}
    network = dataclasses.replace(bundle.manifest.network, **changes)
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, network=network))
    recovery, _ = torch_runners._recovery(bundle, Options(checkpoint=path))
    assert torch.equal(recovery.network.state_dict()[name], state[name] + (1 if key else 0))
