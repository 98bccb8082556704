"""glnet-doctor: what it says of a machine and of a bundle."""

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tensorrt_stand_in import bundle_of
from typer.testing import CliRunner

import glnet_infer.commands.doctor
from glnet_infer import BundleError, __version__
from glnet_infer.commands.doctor import app
from glnet_infer.devices import Gpu

pytestmark = pytest.mark.usefixtures("plain_output_and_nobodys_files")


def doctor(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_doctor_says_versions_backends_gpus_and_bodies(monkeypatch):
    monkeypatch.setattr(glnet_infer.commands.doctor, "gpus", lambda: [Gpu("NVIDIA L4", "8.9")])
    lines = [line.split() for line in doctor().splitlines()]
    assert ["glnet-infer", __version__] in lines and ["numpy", np.__version__] in lines
    assert ["onnxruntime-cpu", "available"] in lines
    assert ["NVIDIA", "L4,", "compute", "capability", "8.9"] in lines
    assert any(line[:3] == ["no", "SMPL", "file"] for line in lines)


def test_doctor_as_json():
    report = json.loads(doctor("--json"))
    assert set(report) == {"system", "packages", "backends", "gpus", "bodies"}
    assert report["system"]["glnet-infer"] == __version__
    assert report["system"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["packages"]["opencv-python-headless"].split(".")[0] == cv2.__version__.split(".")[0]
    assert report["backends"]["onnxruntime-cpu"] == "available"
    assert set(report["backends"]) == {
        *("tensorrt", "tensorrt-int8", "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-int8"),
        *("openvino", "openvino-bf16"),
        *("triton", "triton+http"),
    }
    assert "no SMPL file" in report["bodies"][0]


def test_doctor_where_almost_nothing_is_installed(monkeypatch):
    # What a machine with the runtime alone, without any backend, looks like.
    for name in ("onnxruntime", "tensorrt", "tensorrt_lean", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(glnet_infer.commands.doctor, "gpus", list)
    report = json.loads(doctor("--json"))
    assert all("cannot be loaded" in report["backends"][f"onnxruntime-{kind}"] for kind in ("cpu", "cuda"))
    assert "TensorRT is not installed. pip install" in report["backends"]["tensorrt"]
    assert "[rtx]" in report["backends"]["tensorrt"]
    assert report["gpus"] == []
    assert "none" in doctor()


@pytest.mark.parametrize(
    ("gpus", "cuda_core", "expected"),
    [
        ([Gpu("NVIDIA L4", "8.9")], True, "available: TensorRT for RTX 1.7.1"),
        ([], True, "no GPU (TensorRT for RTX 1.7.1)"),
        ([Gpu("NVIDIA L4", "8.9")], False, "cuda-core is not installed"),
    ],
)
def test_doctor_says_whether_tensorrt_can_start(monkeypatch, gpus, cuda_core, expected):
    for name in ("tensorrt", "tensorrt_lean"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace(__version__="1.7.1"))
    monkeypatch.setitem(sys.modules, "cuda.core", SimpleNamespace() if cuda_core else None)
    monkeypatch.setattr(glnet_infer.devices, "gpus", lambda: gpus)
    assert expected in json.loads(doctor("--json"))["backends"]["tensorrt"]


def test_doctor_says_whether_a_bundle_is_whole(tmp_path):
    bundle_of(tmp_path / "bundle")
    said = doctor(str(tmp_path / "bundle"))
    assert "files     all as the manifest records them" in said
    assert "model.tensorrt.engine (" in said and "sm 8.9, run)" in said
    (runners,) = [
        line.split()[1:] for line in said.partition("bundle:")[2].splitlines() if line.split()[:1] == ["backends"]
    ]
    assert {"tensorrt,", "onnxruntime-cpu,"} <= set(runners) and not [name for name in runners if "int8" in name]
    for name in ("crop.tensorrt.engine", "model.tensorrt.engine", "topology.npz", "model.onnx"):
        path = tmp_path / "bundle" / name
        path.write_bytes(path.read_bytes()[:-1])
        result = CliRunner().invoke(app, [str(tmp_path / "bundle")])
        assert result.exit_code == BundleError.exit_code and name in result.stderr, name
        assert "system:" in result.stdout and "files " not in result.stdout


def test_doctor_finds_the_users_body_files(monkeypatch, tmp_path):
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"")
    monkeypatch.setenv("GLNET_BODY_DIR", str(tmp_path))
    assert str(tmp_path / "SMPL_NEUTRAL.pkl") in json.loads(doctor("--json"))["bodies"]
