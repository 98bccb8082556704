"""Backends in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from glnet_bench import fresh, processes
from glnet_bench.processes import ProcessDiedError, growth, is_flat, run_fresh
from glnet_bench.runners import Options
from glnet_bench.scene import Scene
from glnet_bench.settings import Frame
from glnet_infer import BackendError

FRAME = Frame("small", 160, 120)


def readings(values):
    return [{"frame": index, "host": value, "device": None} for index, value in enumerate(values)]


def test_memory_that_stays_is_flat():
    filling = [100 << 20] * 10 + [500 << 20] * 90
    assert growth(readings(filling), "host") == 0
    assert is_flat(readings(filling), "host")


def test_a_leak_of_a_kilobyte_per_frame_is_seen():
    leaking = readings((100 << 20) + 1024 * frame for frame in range(0, 20_000, 100))
    assert growth(leaking, "host") == pytest.approx(1024 * 10_000, rel=0.02)
    assert is_flat(leaking, "host") is False


def test_memory_that_is_not_read_is_not_judged():
    assert growth(readings([1] * 8), "device") is None
    assert is_flat(readings([1] * 8), "device") is None
    assert is_flat(readings([1, 2]), "host") is None


def test_readings_are_spread_over_the_frames():
    calls = []
    found = fresh.soak(lambda image, boxes: calls.append(1), Scene.make(FRAME, 1), 250, None)
    assert len(calls) == 250
    assert [reading["frame"] for reading in found][-1] == 250
    assert len(found) == fresh.READINGS
    assert found[0]["host"] and found[0]["device"] is None


@pytest.mark.parametrize(
    "stdout, stderr, words, died",
    [
        ("", "Traceback\nImportError: no torch\n", "ImportError: no torch", True),
        ("noise", "", "exit code 9", True),
        ('{"error": {"what": "Refused.", "why": "no engine", "fix": "f"}}', "", "no engine", False),
    ],
)
def test_a_process_that_dies_or_refuses_is_a_reason(monkeypatch, tmp_path, stdout, stderr, words, died):
    result = subprocess.CompletedProcess([], 9, stdout, stderr)
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: result)
    with pytest.raises(BackendError) as error:
        run_fresh(tmp_path, "tensorrt", Options(), FRAME, 1)
    assert words in error.value.why
    assert isinstance(error.value, ProcessDiedError) == died


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("sixty-four persons"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"
        ),
    ],
)
def test_memory_that_runs_out_is_no_death(monkeypatch, capsys, error):
    """Where it does for many persons, few may still be found."""

    def fail(*_):
        raise error

    monkeypatch.setattr(fresh, "start_up", fail)
    monkeypatch.setattr(
        sys, "argv", ["fresh", ".", "torch-fp32", "--spawned", "0", "--frame", "160x120", "--persons", "64"]
    )
    fresh.main()
    result = subprocess.CompletedProcess([], 0, capsys.readouterr().out, "")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: result)
    with pytest.raises(BackendError) as caught:
        run_fresh(Path(), "torch-fp32", Options(), FRAME, 64)
    assert str(error)[:30] in caught.value.why and not isinstance(caught.value, ProcessDiedError)


def test_what_may_have_left_a_broken_gpu_is_a_death(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(fresh, "start_up", fail)
    monkeypatch.setattr(sys, "argv", ["fresh", ".", "torch-fp32", "--spawned", "0", "--frame", "160x120", "--persons", "1"])
    with pytest.raises(RuntimeError, match="illegal"):
        fresh.main()
    assert not capsys.readouterr().out


def test_a_process_that_hangs_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "START_SECONDS", 0.01)
    with pytest.raises(ProcessDiedError, match="did not answer"):
        run_fresh(tmp_path, "tensorrt", Options(), FRAME, 1)


def test_a_start_is_measured(shared_bundle):
    found = run_fresh(shared_bundle, "onnxruntime-cpu", Options(threads=1), FRAME, 2, frames=8)
    seconds = found["seconds"]
    assert all(value > 0 for value in seconds.values())
    assert seconds["total"] == pytest.approx(seconds["import"] + seconds["load"] + seconds["first"], rel=1e-6)
    assert found["host_peak"] > 20 << 20  # bytes; Python, NumPy and OpenCV alone hold more
    assert [reading["frame"] for reading in found["readings"]] == list(range(1, 9))
