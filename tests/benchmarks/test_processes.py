"""Backends in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from glnet_bench.measure import alone, failures, processes
from glnet_bench.measure.failures import ProcessDiedError
from glnet_bench.measure.processes import run_alone, soak_seconds
from glnet_bench.measure.scene import Scene
from glnet_bench.record.results import Reading, Soak, Start
from glnet_bench.runners.base import Options
from glnet_bench.settings import Frame
from glnet_infer import BackendError

FRAME = Frame("small", 160, 120)


def readings(values):
    """A hundredth of 10,000 frames apart."""
    return Soak(readings=tuple(Reading(100 * (index + 1), value, None) for index, value in enumerate(values)))


def test_memory_that_stays_is_flat():
    filling = [100 << 20] * 9 + [500 << 20] * 91
    found = readings(filling).growth("host")
    assert (found.bytes, found.share, found.is_flat) == (0, 0, True)


@pytest.mark.parametrize("grown, flat", [(0.009, True), (0.011, False), (-0.2, True)])
def test_memory_is_judged_from_a_tenth_of_the_run_to_its_end(grown, flat):
    """By a hundredth of what was held: 11 of 1,000 MiB are too many, however quietly they came."""
    held = [1000 << 20] * 10 + [int((1000 << 20) * (1 + grown * step / 90)) for step in range(1, 91)]
    found = readings(held).growth("host")
    assert found.bytes == pytest.approx(grown * (1000 << 20), abs=1)
    assert found.share == pytest.approx(grown, rel=1e-6)
    assert found.is_flat == flat


def test_memory_that_is_not_read_is_not_judged():
    assert readings([1] * 8).growth("device") is None
    assert readings([1]).growth("host") is None
    assert readings([]).growth("host") is None


def test_readings_are_spread_over_the_frames():
    calls = []
    found = alone.soak(lambda image, boxes: calls.append(1), Scene.make(FRAME, 1), 250, None)
    assert len(calls) == 250
    assert [reading.frame for reading in found][-1] == 250
    assert len(found) == alone.READINGS
    assert found[0].host and found[0].device is None


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
        run_alone(tmp_path, "tensorrt", Options(), FRAME, 1)
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
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_memory_that_runs_out_is_no_death(monkeypatch, capsys, error):
    """Where it does for many persons, few may still be found."""

    def fail(*_):
        raise error

    monkeypatch.setattr(alone, "start_up", fail)
    monkeypatch.setattr(
        sys, "argv", ["alone", ".", "torch-fp32", "--spawned", "0", "--frame", "160x120", "--persons", "64"]
    )
    alone.main()
    result = subprocess.CompletedProcess([], 0, capsys.readouterr().out, "")
    monkeypatch.setattr(processes.subprocess, "run", lambda *_, **__: result)
    with pytest.raises(BackendError) as caught:
        run_alone(Path(), "torch-fp32", Options(), FRAME, 64)
    assert str(error)[:30] in caught.value.why and not isinstance(caught.value, ProcessDiedError)
    assert failures.failed(Start, caught.value).retry  # others may have held it


def test_what_may_have_left_a_broken_gpu_is_a_death(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(alone, "start_up", fail)
    monkeypatch.setattr(sys, "argv", ["alone", ".", "torch-fp32", "--spawned", "0", "--frame", "160x120", "--persons", "1"])
    with pytest.raises(RuntimeError, match="illegal"):
        alone.main()
    assert not capsys.readouterr().out


def test_a_process_that_hangs_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "START_SECONDS", 0.01)
    with pytest.raises(ProcessDiedError, match="did not answer") as error:
        run_alone(tmp_path, "tensorrt", Options(), FRAME, 1)
    assert failures.failed(Start, error.value).retry
    with pytest.raises(ProcessDiedError, match="did not answer"):
        run_alone(tmp_path, "tensorrt", Options(), FRAME, 1, frames=10_000, seconds=0.01)


def test_a_memory_run_has_ten_times_its_frames_time():
    assert soak_seconds(10_000, 0.008) == processes.START_SECONDS + 800


def test_what_will_fail_again_is_not_tried_again():
    error = BackendError("The bundle has no tensorrt engine.", why="it was exported without one")
    found = failures.failed(Start, error)
    assert found == Start(reason="The bundle has no tensorrt engine. it was exported without one") and not found.retry


def test_a_start_is_measured(shared_bundle):
    found = run_alone(shared_bundle, "onnxruntime-cpu", Options(threads=1), FRAME, 2, frames=8)
    seconds = found.seconds
    assert all(value > 0 for value in vars(seconds).values())
    assert seconds.total == pytest.approx(seconds.importing + seconds.loading + seconds.first_call, rel=1e-6)
    assert found.host_peak > 20 << 20  # bytes; Python, NumPy and OpenCV alone hold more
    assert found.persons == 2
    assert [reading.frame for reading in found.readings] == list(range(1, 9))
