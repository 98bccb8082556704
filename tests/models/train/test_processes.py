"""Two processes that train together on the CPU (gloo), as torchrun starts them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from glnet.config import CropSpec

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def folder(small_config, tmp_path):
    config = dataclasses.replace(small_config, crop=CropSpec(size=64), keypoint_origin="pixel", keypoints=29)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return tmp_path


def test_processes_see_different_crops_and_end_with_the_same_weights(folder):
    script = Path(__file__).with_name("two_processes.py")
    subprocess.run([*TORCHRUN, script, folder], check=True, env=ENVIRONMENT, timeout=120)
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(2))
    assert first["losses"] != second["losses"]
    assert first["agreed"] == second["agreed"] == [True, False]
    assert all(torch.equal(a, b) for a, b in zip(first["parameters"], second["parameters"], strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_terminated_training_of_two_is_saved_and_goes_on(folder):
    program = Path(sys.executable).with_name("glnet-train")
    command = [*TORCHRUN, "--no-python", program, "fit", folder / "run", "--config", folder / "config.json"]
    command += ["--batch", "4", "--pool", "1", "--refresh", "100000", "--precision", "float32", "--steps"]
    running = subprocess.Popen([*command, "100000"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    log = folder / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert "the same command goes on" in said, said
    assert said.count("stopping after this step") == 1
    state = torch.load(folder / "run" / "state.pt", weights_only=True)
    assert state["step"] == len(log.read_text().splitlines())
