"""Starts a real Triton server on a repository of ours, on the loopback."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


@dataclass
class Running:
    """A server that is ready: its ports, its process, and the Python that its models run in."""

    grpc: int
    http: int
    metrics: int
    process: subprocess.Popen
    python: Path


def on_the_cpu(repository: Path) -> None:
    """Make the repository one for a server that has the python backend alone: the graph becomes a python model."""
    config = repository / "glnet" / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    text = text.replace('backend: "onnxruntime"', 'backend: "python"').replace('default_model_filename: "model.onnx"\n', "")
    config.write_text(text, encoding="utf-8")
    shutil.copy(Path(__file__).with_name("network_model.py"), repository / "glnet" / "1" / "model.py")
    # Triton's python backend has a model's folder on its path, and takes no PYTHONPATH.
    (repository / "glnet_frames" / "1" / "glnet_infer").symlink_to(ROOT / "glnet_infer")


@contextmanager
def served(repository: Path, triton: Path, log: Path):
    """A server on a repository, ended afterwards.

    Args:
        repository: From glnet-export triton, and :func:`on_the_cpu`.
        triton: Directory that make_triton.sh made.
        log: File for what the server says.
    """
    ports = free_ports(3)
    packages = triton / "environment" / "lib" / "python3.11" / "site-packages"
    names = ("http", "grpc", "metrics")
    command = [
        packages / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={triton / 'backends'}",
        *(f"--{name}-port={port}" for name, port in zip(names, ports, strict=True)),
        *(f"--{name}-address=127.0.0.1" for name in names),
        "--exit-timeout-secs=5",
    ]
    environment = {
        **os.environ,
        "PATH": f"{triton / 'environment' / 'bin'}:{os.environ['PATH']}",  # the backend's Python is the first there
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        http, grpc, metrics = ports
        wait_until_ready(process, http, log)
        yield Running(grpc, http, metrics, process, triton / "environment" / "bin" / "python")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process, http, log):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports
