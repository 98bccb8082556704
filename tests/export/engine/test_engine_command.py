"""glnet-export engine: an engine for a bundle from its own graphs, where neither torch nor the network can be imported."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest

from glnet_export.engines.add import STAGES, add_to_bundle
from glnet_export.engines.progress import StageReport, quietly
from glnet_export.engines.reference import _bounds, compare_outputs, judge_by_reference, read_reference
from glnet_infer import BackendError, BundleError, ExportError
from glnet_infer.backends import open_backend
from glnet_infer.bundle import Bundle, check_all_files, record_file
from glnet_infer.contract import CROP_REDUCTIONS

# No torch, no onnx, nothing of the network: what a production machine has.
REFUSES = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "glnet", "glnet_render", "glnet_train", "jaxtyping"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
from glnet_export.commands.main import main
main()
"""


def engine(*arguments, code=REFUSES):
    command = [sys.executable, "-c", code, "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_COLOR": "1"})


@pytest.fixture
def without_engine(exported, tmp_path):
    """The bundle of the real export as ``--mixed`` leaves it."""
    path = shutil.copytree(exported[0], tmp_path / "small")
    manifest = Bundle.open(path).manifest
    for record in manifest.engines:
        (path / record.file.file).unlink()
        (path / record.crop.file.file).unlink()
    dataclasses.replace(manifest, engines=()).write(path)
    assert not check_all_files(path).engines
    return path


def test_the_engine_is_that_of_an_export(exported, without_engine, content):
    before = content(without_engine)
    done = engine(without_engine, "--sm", "89", "--flavor", "tensorrt-rtx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(without_engine)
    lines = [line for line in done.stderr.splitlines() if line[:1].isdigit()]
    assert [line.split()[1:3] for line in lines] == [[name, "done"] for name in STAGES]
    (expected,), (found,) = (Bundle.open(path).manifest.engines for path in (exported[0], without_engine))
    assert found.file.file == expected.file.file and found.crop.file.file == expected.crop.file.file
    assert found.tensors == expected.tensors and found.precision == expected.precision == "mixed"
    assert found.layers == expected.layers and found.graph == expected.graph == "model.mixed.onnx"
    # Times and addresses lie in an engine; its size is its kernels' and weights'.
    assert found.file.bytes == pytest.approx(expected.file.bytes, rel=0.01)
    assert found.crop.file.bytes == pytest.approx(expected.crop.file.bytes, rel=0.01)
    assert check_all_files(without_engine)
    after = content(without_engine)
    assert all(after[name] == data for name, data in before.items() if name != "manifest.json")


def test_an_engine_of_the_same_name_is_replaced_and_others_stay(exported, tmp_path):
    path = shutil.copytree(exported[0], tmp_path / "small")
    (path / "cache").mkdir()
    (path / "cache" / "kernels").write_bytes(b"compiled")
    old = tmp_path / "old.engine"  # the same file: what is written into the bundle's engine is seen in it
    old.hardlink_to(path / "model.rtx-sm89.mixed.engine")
    before = old.read_bytes()
    for sm, engines in (("89", 1), ("86", 2)):
        done = engine(path, "--sm", sm, "--batch", "1:2:2", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["engines"]
        assert len(found) == engines and found[-1]["profile"] == [1, 2, 2]
    assert (path / "cache" / "kernels").read_bytes() == b"compiled" and check_all_files(path)
    assert old.read_bytes() == before != (path / "model.rtx-sm89.mixed.engine").read_bytes()


@pytest.mark.parametrize("case", ["linked", "no links here", "a symbolic link", "read-only"])
def test_a_new_engine_takes_the_files_of_the_bundle_without_copying(exported, ada, tmp_path, monkeypatch, case):
    path = shutil.copytree(exported[0], tmp_path / "small")
    model = path / "model.onnx"
    if case == "no links here":
        monkeypatch.setattr(pathlib.Path, "hardlink_to", Mock(side_effect=OSError(errno.EPERM, "no links")))
    elif case == "a symbolic link":
        model = model.rename(tmp_path / "elsewhere.onnx")
        (path / "model.onnx").symlink_to(model)
    elif case == "read-only":
        monkeypatch.setattr(os, "access", lambda file, mode: False)
    seen = []

    def stage(name):
        if name == "build":
            (beside,) = tmp_path.glob(".small.partial-*")
            seen.append((beside / "model.onnx").samefile(model))
            assert not (beside / "model.onnx").is_symlink() and (beside / "model.onnx").read_bytes() == model.read_bytes()
            raise KeyboardInterrupt
        return quietly(name)

    with pytest.raises(KeyboardInterrupt):
        add_to_bundle(path, ada, stage=stage)
    assert seen == [case == "linked"] and check_all_files(path)


def test_of_the_cache_nothing_but_files_is_copied(exported, ada, tmp_path):
    path = shutil.copytree(exported[0], tmp_path / "small")
    (path / "cache").mkdir()
    (path / "cache" / "kernels").write_bytes(b"compiled")
    (path / "cache" / "secret").symlink_to("/etc/hostname")
    if hasattr(os, "mkfifo"):
        os.mkfifo(path / "cache" / "pipe")
    seen = []

    def stage(name):
        if name == "build":
            (beside,) = tmp_path.glob(".small.partial-*")
            seen.extend(each.name for each in (beside / "cache").iterdir())
            raise KeyboardInterrupt
        return quietly(name)

    with pytest.raises(KeyboardInterrupt):
        add_to_bundle(path, ada, stage=stage)
    assert seen == ["kernels"]


@pytest.mark.parametrize(
    "arrays, why",
    [
        ({"crops": np.zeros((2, 8, 8, 3), np.uint8), "cameras": np.ones((2, 4), np.float32)}, "crops is (2, 8, 8, 3)"),
        ({"crops": np.zeros((2, 256, 256, 3), np.uint8), "cameras": np.ones((3, 4), np.float32)}, "cameras is (3, 4)"),
        ({"crops": np.zeros((2, 256, 256, 3), np.uint8)}, "lacks cameras"),
    ],
)
def test_persons_to_compare_on_are_checked(exported, tmp_path, arrays, why):
    path = shutil.copytree(exported[0], tmp_path / "small")
    np.savez(path / "reference.npz", **arrays)
    bundle = Bundle.open(path)
    with pytest.raises(BundleError, match="was not read") as error:
        read_reference(bundle, record_file(path / "reference.npz"))
    assert why in error.value.why


def test_a_bound_that_is_no_number_is_damage(exported, tmp_path):
    path = shutil.copytree(exported[0], tmp_path / "small")
    document = json.loads((path / "manifest.json").read_text())
    for graph in document["graphs"]:
        graph["parity"] = {"bounds": {"vertices_mean_mm": "many"}}
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is damaged") as error:
        _bounds(Bundle.open(path))
    assert "'many'" in error.value.why


def test_a_bundle_without_graphs_for_engines_says_how_to_get_them(shared_bundle, tmp_path):
    path = shutil.copytree(shared_bundle, tmp_path / "small")
    done = engine(path, "--sm", "89")
    assert done.returncode == ExportError.exit_code == 7
    assert "no graphs that engines are built from" in done.stderr and "--mixed" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["small"]


def test_a_crop_graph_of_an_earlier_version_is_refused(without_engine, content):
    path = without_engine / "manifest.json"
    document = json.loads(path.read_text())
    (crops,) = (graph for graph in document["graphs"] if graph["purpose"] == "crops")
    assert crops.pop("reductions") == list(CROP_REDUCTIONS)
    path.write_text(json.dumps(document))
    before = content(without_engine)
    done = engine(without_engine, "--sm", "89")
    assert done.returncode == ExportError.exit_code
    assert "crop.onnx cuts other crops" in done.stderr and "averaging" in done.stderr and "--mixed" in done.stderr
    assert content(without_engine) == before


def test_a_damaged_bundle_is_refused_untouched(without_engine, content):
    (without_engine / "model.mixed.onnx").write_bytes(b"damaged")
    before = content(without_engine)
    done = engine(without_engine, "--sm", "89")
    assert done.returncode == BundleError.exit_code == 4 and "model.mixed.onnx" in done.stderr
    assert content(without_engine) == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_the_bundle_and_the_next_one_cleans_up(without_engine, content, number):
    before = content(without_engine)
    command = [sys.executable, "-c", REFUSES, "engine", str(without_engine), "--sm", "89"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(without_engine.parent.glob(".small.partial-*")):
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(60)
    assert content(without_engine) == before
    assert engine(without_engine, "--sm", "89").returncode == 0
    assert [each.name for each in without_engine.parent.iterdir()] == ["small"]


def test_an_engine_is_compared_with_float32_on_the_persons_of_the_bundle(exported):
    bundle = Bundle.open(exported[0])
    float32 = open_backend("onnxruntime-cpu", bundle)

    class Played:
        """ONNX Runtime plays an engine."""

        name, buckets = "played", (1, 2)
        run = staticmethod(float32.run)

    report = StageReport()
    found = judge_by_reference(bundle)(Played(), report)
    assert found["crops"] == 2 and found["vertices_max_mm"] < 0.05 and found["pixel_agreement"] == 1
    assert found["reference"] == "onnxruntime-cpu" and "2 crops against float32" in report.lines[0]

    class Far(Played):
        @staticmethod
        def run(crops, cameras):
            outputs = float32.run(crops, cameras)
            return {**outputs, "vertices": outputs["vertices"] + np.float32((0.2, 0, 0))}

    with pytest.raises(ExportError, match="too far from float32") as error:
        judge_by_reference(bundle)(Far(), StageReport())
    assert "200.00 mm on average" in error.value.why


def test_distances_are_between_crops_that_choose_the_same_pixel():
    draw = np.random.default_rng(0)
    one = {
        "vertices": draw.normal(size=(4, 5, 3)),
        "joints": np.zeros((4, 29, 3)),
        "reference_pixel": np.zeros((4, 2), int),
    }
    other = {name: values.copy() for name, values in one.items()}
    other["vertices"][:, :, 0] += np.array([0.001, 0.001, 0.001, 0.5])[:, None]
    other["reference_pixel"][3] = 7
    found = compare_outputs(one, other)
    assert found.vertices_mean_mm == pytest.approx(1) and found.pixel_agreement == found.small_effect == 0.75
    other["reference_pixel"][:] = 9
    assert not np.isfinite(compare_outputs(one, other).vertices_mean_mm)


def test_hints_of_the_runtime_name_this_command(exported, monkeypatch):
    import glnet_infer.devices
    from glnet_infer.devices import Gpu

    bundle = Bundle.open(exported[0])
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: [Gpu("NVIDIA GeForce RTX 3090", "8.6")])
    with pytest.raises(BackendError) as error:
        open_backend("tensorrt", bundle)
    assert f"glnet-export engine {bundle.directory} --sm 86" in error.value.fix
    with pytest.raises(BackendError) as error:
        open_backend("tensorrt", dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, engines=())))
    assert f"glnet-export engine {bundle.directory}" in error.value.fix


def test_the_graph_that_cuts_crops_is_in_the_bundle(exported):
    session = onnxruntime.InferenceSession(exported[0] / "crop.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["frame", "squares"]
    assert session.get_inputs()[1].shape[1:] == [len(CROP_REDUCTIONS), 4]
