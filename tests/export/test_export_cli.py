"""glnet-export: what is written, said and refused. One real export; the others reuse its kind of graph."""

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_runs import failed
from onnx import numpy_helper
from typer.testing import CliRunner

from glnet.checkpoint import Checkpoint
from glnet.random_init import random_recovery
from glnet_export import pipeline
from glnet_export.commands.main import app
from glnet_export.engines.progress import StageReport
from glnet_export.pipeline import STAGES, export
from glnet_export.sources import Source
from glnet_infer import (
    BodyError,
    CheckpointError,
    ExportError,
    MeshRecoverer,
    OutputError,
    __version__,
)
from glnet_infer.bundle import Bundle


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})


def usage_error(result, *words):
    assert result.exit_code == 2 and result.stdout == ""
    for word in words:
        assert word in result.stderr, result.stderr


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def random_export(config_file, tmp_path_factory):
    """The one real export here: random weights, JSON on stdout."""
    target = tmp_path_factory.mktemp("random") / "fast"
    return run("--random-init", config_file, "--seed", 5, "-o", target, "--json"), target


def test_random_weights_give_a_bundle_whose_manifest_is_printed(random_export):
    result, target = random_export
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    assert manifest == json.loads((target / "manifest.json").read_text())
    assert tree(target) == ["manifest.json", "model.onnx", "skin.npz", "topology.npz"]
    assert tree(target.parent) == ["fast", *(f"fast/{name}" for name in tree(target))]


def test_the_manifest_admits_random_weights(random_export):
    network = json.loads(random_export[0].stdout)["network"]
    assert (network["weights"], network["source"], network["sha256"]) == ("random", "seed 5", "")
    assert network["name"] == "small"


def test_every_stage_is_told_on_stderr_in_order(random_export):
    lines = random_export[0].stderr.splitlines()
    assert [line.split()[:3] for line in lines] == [[f"{i}/5", name, "done"] for i, name in enumerate(STAGES, 1)]
    assert "random" in lines[0] and "opset 20" in lines[2] and "16 crops" in lines[3] and "mm" in lines[3]


def test_random_weights_run_and_are_named_so(random_export, photograph):
    with MeshRecoverer(random_export[1], "onnxruntime-cpu") as recoverer:
        assert "random weights" in repr(recoverer)
        meshes = recoverer(photograph)
    assert np.isfinite(meshes.vertices).all() and (meshes.vertices[..., 2] > 0).all()


def test_the_seed_decides_the_weights(small_config, demo_body):
    weights = [random_recovery(small_config, demo_body, seed).network.coarse.weight for seed in (5, 5, 6)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_hashes_and_sizes_are_those_of_the_files(shared_bundle, random_export):
    for folder in (shared_bundle, random_export[1]):
        manifest = json.loads((folder / "manifest.json").read_text())
        for record in (manifest["graphs"][0]["file"], manifest["body"]["topology"]):
            path = folder / record["file"]
            assert record["sha256"] == sha256(path) and record["bytes"] == path.stat().st_size


def test_the_checkpoints_hash_and_configuration_are_recorded(shared_bundle, small_checkpoint, small_config):
    manifest = json.loads((shared_bundle / "manifest.json").read_text())
    network = manifest["network"]
    assert network["weights"] == "checkpoint" and network["source"] == small_checkpoint.name
    assert network["sha256"] == sha256(small_checkpoint)
    assert network["config"] == json.loads(json.dumps(small_config.to_dict()))
    assert manifest["body"]["name"] == "demo" and manifest["body"]["vertices"] == 12_408
    assert manifest["versions"]["torch"] == torch.__version__ and manifest["versions"]["onnx"] == onnx.__version__
    assert manifest["versions"]["glnet-infer"] == __version__
    assert manifest["crop"] == {"size": 256, "padding": 1.25, "aspect": 1.0}


def test_topology_is_the_bodys(shared_bundle, demo_body):
    assert np.array_equal(Bundle.open(shared_bundle).faces, demo_body.data.faces)


def test_the_bodys_file_is_recorded(shared_bundle):
    recorded = json.loads((shared_bundle / "manifest.json").read_text())["body"]["source"]
    file = Path(__file__).parents[2] / "models/demo/body.npz"
    assert recorded == {"file": "body.npz", "sha256": sha256(file), "bytes": file.stat().st_size}


def test_the_bundle_does_not_contain_paths_of_the_machine_that_made_it(shared_bundle, small_checkpoint):
    # Bundles are passed on; users' names and folders are not theirs to tell.
    for path in shared_bundle.iterdir():
        data = path.read_bytes()
        assert str(small_checkpoint.parent).encode() not in data, path.name
        assert str(Path(__file__).parents[2]).encode() not in data, path.name


def test_bare_state_dict_with_its_configuration(state_file, config_file, traced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(state_file, "--config", config_file, "--body", "demo")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "weights\n"  # without -o, named after the checkpoint
    manifest = Bundle.open(tmp_path / "weights").manifest
    assert manifest.network.weights == "checkpoint" and manifest.network.source == "weights.pth"
    assert manifest.network.sha256 == sha256(state_file)
    # The graph in place of the trace was exported from the same weights: PyTorch agrees only if all were loaded.
    assert manifest.graph.parity["vertices_mm"] < 0.05 and manifest.graph.parity["pixel_agreement"] == 1


def test_bare_state_dict_without_configuration(state_file, tmp_path):
    failed(run(state_file, "-o", tmp_path / "b"), CheckpointError, "bare state dict", "--config")
    assert tree(tmp_path) == []


def test_bare_state_dict_with_another_configuration(state_file, tmp_path):
    result = run(state_file, "--config", "w18-small", "--body", "demo", "-o", tmp_path / "b")
    failed(result, CheckpointError, "do not fit", "w18-small")
    assert tree(tmp_path) == []


def test_bare_state_dict_without_its_body(state_file, config_file, tmp_path):
    # Weights do not say which body they were trained with, and on another one meshes are distorted.
    failed(run(state_file, "--config", config_file, "-o", tmp_path / "b"), BodyError, "which body", "--body")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["w99", "nothing.json"])
def test_unknown_configuration(name, tmp_path):
    failed(run("--random-init", name, "-o", tmp_path / "b"), CheckpointError, name, "w32", "cliff-hr48")
    assert tree(tmp_path) == []


def test_missing_checkpoint(tmp_path):
    failed(run(tmp_path / "nothing.pth", "-o", tmp_path / "b"), CheckpointError, "nothing.pth", "what to do")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    failed(run(tmp_path / "c.pth", "-o", tmp_path / "b"), CheckpointError, "c.pth", "what to do")
    assert tree(tmp_path) == ["c.pth"]


def test_missing_body(small_checkpoint, tmp_path):
    result = run(small_checkpoint, "--body", tmp_path / "nowhere.pkl", "-o", tmp_path / "b")
    failed(result, BodyError, "nowhere.pkl", "smpl.is.tue.mpg.de", "--body demo")
    assert tree(tmp_path) == []
    assert "1/5 load" in result.stderr and "failed" in result.stderr and result.stdout == ""


def test_an_installation_without_the_export_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "glnet_export.pipeline", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    failed(run("--random-init", "w32", "-o", tmp_path / "b"), ExportError, "not installed", "export]")
    assert tree(tmp_path) == []


def test_errors_as_json(tmp_path):
    result = run(tmp_path / "nothing.pth", "-o", tmp_path / "b", "--json")
    failed(result, CheckpointError)
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "CheckpointError" and error["exit_code"] == 5 and error["what"] and error["fix"]


def test_neither_checkpoint_nor_random_weights():
    usage_error(run(), "--random-init")


def test_checkpoint_and_random_weights(small_checkpoint):
    usage_error(run(small_checkpoint, "--random-init", "w32"), "--random-init")


def test_random_weights_and_a_configuration():
    usage_error(run("--random-init", "w32", "--config", "w32"), "--config")


@pytest.mark.parametrize(
    "option, value",
    [
        ("--parity-crops", 15),
        ("--min-pixel-agreement", 1.1),
        ("--min-pixel-agreement", -1),
        ("--min-pixel-agreement", "nan"),
        ("--max-vertex-error", -1),
        ("--max-vertex-error", "nan"),
        ("--max-vertex-error", "inf"),
        ("--seed", "x"),
        ("--seed", -1),
        ("--seed", 1 << 31),
    ],
)
def test_values_out_of_range_are_usage_errors(option, value):
    usage_error(run("--random-init", "w32", option, value), option)


@pytest.mark.parametrize("where", ["file/bundle", "file"])
def test_output_that_cannot_be_written(small_checkpoint, tmp_path, where):
    (tmp_path / "file").write_text("in the way")
    result = run(small_checkpoint, "-o", tmp_path / where)
    failed(result, OutputError, str(tmp_path / where), "-o")
    assert tree(tmp_path) == ["file"] and "load" not in result.stderr  # said at once, not after minutes


def test_a_directory_that_is_no_bundle_is_not_overwritten(small_checkpoint, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/notes.txt").write_text("mine")
    failed(run(small_checkpoint, "-o", tmp_path / "b"), OutputError, "will not be overwritten")
    assert tree(tmp_path) == ["b", "b/notes.txt"]


def test_a_missed_bound_fails_and_leaves_nothing(small_checkpoint, traced, tmp_path):
    result = run(small_checkpoint, "-o", tmp_path / "b", "--max-vertex-error", 0)
    failed(result, ExportError, "too far from PyTorch", "bound 0", "vertices_mm", "constraints.txt", "--help")
    assert tree(tmp_path) == [] and result.stdout == ""
    assert "4/5 parity" in result.stderr and "publish" not in result.stderr


def test_a_failed_export_keeps_the_earlier_bundle(small_checkpoint, bundle, monkeypatch):
    def half(_, path):
        path.write_bytes(b"half a graph")

    monkeypatch.setattr("glnet_export.pipeline.trace", half)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    failed(run(small_checkpoint, "-o", bundle), ExportError, "not valid ONNX")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert tree(bundle.parent) == ["bundle", *(f"bundle/{name}" for name in sorted(before))]


def test_a_graph_with_other_weights_is_caught(small_checkpoint, shared_bundle, traced, tmp_path):
    # What a mistake in the tracer would look like: one bias of the coarse estimate is off by a hundredth.
    model = onnx.load(shared_bundle / "model.onnx")
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm" and len(node.input) == 3)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == gemm.input[2])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.01), tensor.name))
    (tmp_path / "wrong").mkdir()
    onnx.save(model, tmp_path / "wrong/model.onnx")
    traced(tmp_path / "wrong/model.onnx")
    failed(run(small_checkpoint, "-o", tmp_path / "b"), ExportError, "bound")
    assert tree(tmp_path) == ["wrong", "wrong/model.onnx"]


def test_an_export_of_nothing_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match="nothing to export"):
        export(Source(), tmp_path / "b")
    assert tree(tmp_path) == []


def test_stages_are_told_to_callers_of_the_library(small_checkpoint, traced, tmp_path):
    told = []

    @contextlib.contextmanager
    def stage(name):
        report = StageReport()
        yield report
        told.append((name, report.lines))

    manifest = export(Source(small_checkpoint), tmp_path / "b", parity_crops=17, stage=stage)
    assert [name for name, _ in told] == list(STAGES) and all(found for _, found in told)
    assert manifest.graph.parity["crops"] == 17
    assert json.loads(json.dumps(manifest.to_document())) == json.loads((tmp_path / "b/manifest.json").read_text())


def test_exported_graphs_refuse_crops_of_another_size(shared_bundle):
    session = onnxruntime.InferenceSession(str(shared_bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="crops"):
        session.run(None, {"crops": np.zeros((1, 128, 128, 3), np.uint8), "cameras": np.ones((1, 4), np.float32)})


def test_help_explains_the_options():
    result = run("--help")
    assert result.exit_code == 0
    for option in ("--output", "--config", "--random-init", "--body", "--max-vertex-error", "--json"):
        assert option in result.stdout


# What is said of weights and bodies


@pytest.fixture
def smpl_sized_body(tmp_path):
    """Makes a body file with as many vertices as SMPL's, under a name of SMPL's."""

    def make(name):
        vertices = 6890
        arrays = {
            "v_template": np.random.default_rng(3).normal(scale=0.3, size=(vertices, 3)),
            "shapedirs": np.zeros((vertices, 3, 10)),
            "J_regressor": np.full((24, vertices), 1 / vertices),
            "weights": np.full((vertices, 24), 1 / 24),
            "f": np.zeros((2, 3), np.uint32),
        }
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return make


@pytest.mark.parametrize("file, name", [("SMPL_MALE.npz", "smpl-male"), ("SMPL_NEUTRAL.npz", "smpl")])
@pytest.mark.parametrize("bare", [True, False])
def test_smpls_male_body_is_warned_of_where_the_network_knows_the_neutral_one(
    small_checkpoint, smpl_sized_body, tmp_path, file, name, bare
):
    document = torch.load(small_checkpoint, weights_only=True)
    document["config"]["body"] = "smpl"
    (tmp_path / "config.json").write_text(json.dumps(document["config"]))
    torch.save(document["state_dict"] if bare else document, tmp_path / "trained.pth")
    config = str(tmp_path / "config.json") if bare else None
    source = Source(tmp_path / "trained.pth", config, body=str(smpl_sized_body(file)))
    loaded, report = source.load(), StageReport()
    assert loaded.recovery.decoder.body.data.name == name
    pipeline._load(source, report)
    said = "; ".join(report.lines)
    assert ("smpl-male" in said) == (name == "smpl-male")
    assert ("neutral" in said or "trained with the body 'smpl'" in said) == (name == "smpl-male")
    assert "WARNING: the body is odd: " in said  # a cloud of points has no head


def test_the_stage_of_loading_says_where_weights_were_found(small_checkpoint, tmp_path):
    document = torch.load(small_checkpoint, weights_only=True)
    state = {f"_orig_mod.{name}": value for name, value in document["state_dict"].items()}
    torch.save({**document, "state_dict": state}, tmp_path / "compiled.pth")
    report = StageReport()
    pipeline._load(Source(tmp_path / "compiled.pth"), report)
    assert "'_orig_mod.' taken off their names" in report.lines
    failed(run(tmp_path / "compiled.pth", "--weights-key", "ema"), CheckpointError, "'ema'")
    usage_error(run("--random-init", "demo", "--weights-key", "ema"), "--weights-key")


def test_a_checkpoint_that_changes_while_it_is_read_is_refused(small_checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "training.pth"
    path.write_bytes(small_checkpoint.read_bytes())
    load = Checkpoint.load

    def while_training(*arguments):
        found = load(*arguments)
        with path.open("ab") as other:
            other.write(b"the next step's")
        return found

    monkeypatch.setattr(Checkpoint, "load", while_training)
    with pytest.raises(ExportError, match="changed while it was read"):
        Source(path).load()
