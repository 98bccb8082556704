"""Repositories for Triton: whole or not at all, nothing of others replaced, engines that Triton cannot run refused."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glnet_export.commands.main import app
from glnet_export.triton import repository as repositories
from glnet_export.triton.repository import MARK, RepositoryOptions, write_repository
from glnet_infer import BundleError, ExportError, InputError, OutputError
from glnet_infer.bundle import Bundle

FILES = {
    "glnet/config.pbtxt",
    "glnet/1/model.onnx",
    "glnet_frames/config.pbtxt",
    "glnet_frames/1/model.py",
    "glnet_frames/1/bundle/manifest.json",
    "glnet_frames/1/bundle/topology.npz",
    "glnet_frames/1/bundle/skin.npz",
}
RTX = {"flavor": "tensorrt-rtx", "version": "1.7.1"}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, ["triton", *map(str, arguments)])

    return run


def test_it_holds_the_graph_the_model_of_images_and_what_says_so(bundle, tmp_path):
    record = write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    found = content(tmp_path / "repository")
    assert set(found) == FILES | {MARK} and set(record.files) == FILES
    for name, original in (("glnet/1/model.onnx", "model.onnx"), ("glnet_frames/1/bundle/topology.npz", "topology.npz")):
        assert found[name] == (bundle / original).read_bytes()
        assert not (tmp_path / "repository" / name).is_symlink()
        assert (tmp_path / "repository" / name).stat().st_nlink == 1  # a copy: who edits it changes no bundle
    assert json.loads(found[MARK])["graph"] == Bundle.open(bundle).manifest.graph.file.sha256
    compile(found["glnet_frames/1/model.py"], "model.py", "exec")
    opened = Bundle.open(tmp_path / "repository" / "glnet_frames" / "1" / "bundle", graph=False)
    assert opened.manifest == Bundle.open(bundle).manifest and opened.skin() is not None
    with pytest.raises(BundleError, match="without its graph"):
        opened.graph_file  # noqa: B018


def test_the_command_says_where_health_and_metrics_are(run, bundle, tmp_path):
    done = run(bundle, "-o", tmp_path / "repository", "--max-batch", 8, "--instances", 2, "--gpu", 0)
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "repository")
    for words in ("tritonserver --model-repository=", "/v2/health/ready", ":8002/metrics", "glnet-infer"):
        assert words in done.stderr
    config = (tmp_path / "repository" / "glnet" / "config.pbtxt").read_text()
    assert "max_batch_size: 8\n" in config and "count: 2\n" in config and "gpus: 0\n" in config and "use_tf32" in config
    document = json.loads(run(bundle, "-o", tmp_path / "repository", "--json").stdout)
    assert document["served"]["backend"] == "onnxruntime" and set(document["files"]) == FILES


def test_an_earlier_one_is_replaced_and_a_changed_one_is_not(bundle, tmp_path):
    target = tmp_path / "repository"
    write_repository(bundle, target, RepositoryOptions())
    compiled = target / "glnet_frames" / "1" / "__pycache__"
    compiled.mkdir()
    (compiled / "model.cpython-311.pyc").write_bytes(b"")
    write_repository(bundle, target, RepositoryOptions(most_crops=4))
    assert "max_batch_size: 4\n" in (target / "glnet" / "config.pbtxt").read_text() and not compiled.exists()

    (target / "glnet" / "config.pbtxt").write_text("name: 'tuned by hand'")
    before = content(target)
    with pytest.raises(OutputError, match="will not be overwritten") as error:
        write_repository(bundle, target, RepositoryOptions())
    assert "glnet/config.pbtxt (changed)" in error.value.why and content(target) == before


@pytest.mark.parametrize(
    "stranger", ["another_model/1/model.onnx", "glnet/2/model.onnx", "notes.txt"], ids=["model", "version", "file"]
)
def test_what_others_put_there_is_not_replaced(bundle, tmp_path, stranger):
    target = tmp_path / "repository"
    write_repository(bundle, target, RepositoryOptions())
    (target / stranger).parent.mkdir(parents=True, exist_ok=True)
    (target / stranger).write_bytes(b"theirs")
    before = content(target)
    with pytest.raises(OutputError, match="will not be overwritten") as error:
        write_repository(bundle, target, RepositoryOptions())
    assert stranger in error.value.why and content(target) == before


@pytest.mark.parametrize("mark", [b"", b"{}", b"[1, 2]", b'{"schema": 1, "files": {"../x": {}}}'])
def test_a_repository_whose_mark_is_damaged_is_not_replaced(bundle, tmp_path, mark):
    target = tmp_path / "repository"
    write_repository(bundle, target, RepositoryOptions())
    (target / MARK).write_bytes(mark)
    before = content(target)
    with pytest.raises(OutputError, match="will not be overwritten"):
        write_repository(bundle, target, RepositoryOptions())
    assert content(target) == before


def test_bundles_and_repositories_do_not_replace_each_other(bundle, tmp_path):
    before = content(bundle)
    for inside in (bundle, bundle / "repository", bundle / "deep" / "repository"):
        with pytest.raises(InputError, match="or the bundle itself"):
            write_repository(bundle, inside, RepositoryOptions())
    other = shutil.copytree(bundle, tmp_path / "other")
    with pytest.raises(OutputError, match="will not be overwritten"):
        write_repository(bundle, other, RepositoryOptions())
    assert content(bundle) == before == content(other)


def test_a_write_that_fails_leaves_nothing(bundle, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    real = Path.write_bytes

    def full(path, data):
        if path.name == "model.py":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="Cannot write the repository") as error:
        write_repository(bundle, folder / "repository", RepositoryOptions())
    assert "No space" in error.value.why and not list(folder.iterdir())


def test_an_interrupted_one_leaves_the_old(bundle, tmp_path, monkeypatch):
    target = tmp_path / "repository"
    write_repository(bundle, target, RepositoryOptions())
    before = content(target)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(repositories, "record_file", interrupted)
    monkeypatch.setattr(repositories, "foreign_entries", lambda directory: [])
    with pytest.raises(KeyboardInterrupt):
        write_repository(bundle, target, RepositoryOptions(most_crops=2))
    assert content(target) == before and sorted(path.name for path in target.parent.iterdir()) == ["bundle", "repository"]


def test_a_damaged_bundle_is_refused_before_anything_is_written(bundle, tmp_path):
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        write_repository(bundle, tmp_path / "repository", RepositoryOptions())
    assert not (tmp_path / "repository").exists()


# Engines


def test_an_engine_is_served_with_what_the_server_needs(with_engines, run, tmp_path):
    bundle = with_engines(RTX, {}, {"precision": "int8"})
    done = run(bundle, "-o", tmp_path / "repository", "--backend", "tensorrt")
    assert done.exit_code == 0, done.stderr
    assert "TensorRT 10.13.2" in done.stderr and "8.9" in done.stderr and "--server-tensorrt" in done.stderr
    assert (tmp_path / "repository" / "glnet" / "1" / "model.plan").read_bytes() == b"engine 1"
    config = (tmp_path / "repository" / "glnet" / "config.pbtxt").read_text()
    assert "max_batch_size: 12\n" in config and 'backend: "tensorrt"\n' in config and "KIND_GPU" in config


@pytest.mark.parametrize(
    "engines, options, why, fix",
    [
        ([], {}, "has none", "--flavor tensorrt"),
        ([RTX], {}, "model.trt0.engine is for TensorRT for RTX", "--flavor tensorrt"),
        ([{}, {"version": "10.14"}], {}, "model.trt0.engine (TensorRT 10.13.2", "--engine"),
        ([{"precision": "int8"}], {}, "it has none but in int8, which is served by name", "--flavor tensorrt"),
        ([{}], {"engine": "model.trt7.engine"}, "there is no model.trt7.engine", "--flavor tensorrt"),
        ([{}, RTX], {"engine": "model.trt1.engine"}, "model.trt1.engine is for TensorRT for RTX", "--flavor tensorrt"),
        ([{"profile": (2, 4, 8)}], {}, "2 crops at least", "--batch 1:4:16"),
        ([{"lean": True}], {}, "model.trt0.engine was built with --lean", "--flavor tensorrt"),
        ([RTX, {"lean": True}], {}, "RTX, and Triton runs TensorRT's engines alone; model.trt1.engine was", "--flavor"),
        (
            [{}],
            {"server_tensorrt": "10.14.1"},
            "built with TensorRT 10.13.2, and the server has 10.14.1",
            "TensorRT 10.14.1",
        ),
        ([{}], {"server_tensorrt": "10.13.20"}, "the server has 10.13.20", "with TensorRT 10.13.20"),
        ([{"version": "10.13.2.6"}], {"server_tensorrt": "10.13.2.7"}, "the server has 10.13.2.7", "--flavor tensorrt"),
        (
            [{}, {"version": "10.14.1"}],
            {"server_tensorrt": "10.14.1", "engine": "model.trt0.engine"},
            "model.trt0.engine was built with TensorRT 10.13.2",
            "with TensorRT 10.14.1",
        ),
    ],
    ids=[
        "none",
        "RTX",
        "two",
        "int8",
        "unknown",
        "named RTX",
        "no single crop",
        "lean",
        "RTX and lean",
        "version",
        "longer version",
        "build",
        "named version",
    ],
)
def test_engines_that_triton_cannot_run_are_refused_with_what_to_build(with_engines, tmp_path, engines, options, why, fix):
    bundle = with_engines(*engines)
    with pytest.raises(ExportError) as error:
        write_repository(bundle, tmp_path / "repository", RepositoryOptions(backend="tensorrt", **options))
    assert why in error.value.why and fix in error.value.fix and not (tmp_path / "repository").exists()


def test_one_of_several_is_named(with_engines, tmp_path):
    bundle = with_engines({}, {"version": "10.14", "precision": "int8"})
    options = RepositoryOptions(backend="tensorrt", engine="model.trt1.engine", most_crops=8)
    record = write_repository(bundle, tmp_path / "repository", options)
    assert record.served.most_crops == 8 and "10.14" in " ".join(record.needs)


@pytest.mark.parametrize("server", ["10.14.1", "10.14.1.48", "10.14.1.48+cuda13.0", "10.14.1.48-1+cuda12.9"])
def test_the_engine_of_the_servers_version_is_taken(with_engines, run, tmp_path, server):
    bundle = with_engines({}, {"version": "10.14.1.48"}, {"version": "10.14.2"}, {"version": "10.14.1.48", "lean": True})
    done = run(bundle, "-o", tmp_path / "repository", "--backend", "tensorrt", "--server-tensorrt", server)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "repository" / "glnet" / "1" / "model.plan").read_bytes() == b"engine 1"
    assert "--server-tensorrt" not in done.stderr


@pytest.mark.parametrize(
    "server", ["", "10", "10.14", "ten", "10.14.x", "10.14.1.48.2", "10.14.1 48", "-10.14.1", "\u0661\u0660.14.1"]
)
def test_what_is_no_version_is_refused(with_engines, tmp_path, server):
    options = RepositoryOptions(backend="tensorrt", server_tensorrt=server)
    with pytest.raises(InputError, match="--server-tensorrt is") as error:
        write_repository(with_engines({}), tmp_path / "repository", options)
    assert "10.13.2" in error.value.fix and not (tmp_path / "repository").exists()


@pytest.mark.parametrize("option, value", [("engine", "model.trt0.engine"), ("server_tensorrt", "10.13.2")])
def test_options_of_engines_are_refused_where_the_graph_is_served(with_engines, tmp_path, option, value):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} is given") as error:
        write_repository(with_engines({}), tmp_path / "repository", RepositoryOptions(**{option: value}))
    assert "--backend tensorrt" in error.value.fix and not (tmp_path / "repository").exists()


def test_a_batch_that_the_engine_does_not_take_is_refused(with_engines, tmp_path):
    with pytest.raises(InputError, match="--max-batch is 13") as error:
        write_repository(with_engines({}), tmp_path / "r", RepositoryOptions(backend="tensorrt", most_crops=13))
    assert "1 to 12" in error.value.why
