"""What was measured on: processors, driver, versions, and how quiet the machine was meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glnet_bench.nvidia import Nvml
from glnet_infer.devices import cores, gpus
from glnet_infer.version import __version__

_PROC, _CPU = Path("/proc"), Path("/sys/devices/system/cpu/cpu0")

DISTRIBUTIONS = (
    "numpy",
    "opencv-python-headless",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "tensorrt",
    "tensorrt-lean",
    "tensorrt-rtx",
    "cuda-core",
)
"""Packages that times depend on."""

BUSY = 0.2
"""Load per core, from others, at which a machine is called busy."""


def describe(nvml: Nvml | None) -> dict[str, Any]:
    """The machine, in plain values; nothing that names its owner."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "cpu_governor": _text(_CPU / "cpufreq/scaling_governor"),
        "memory_bytes": _memory_total(),
        "gpus": [f"{gpu.name}, compute capability {gpu.compute_capability}" for gpu in gpus()],
        "driver": nvml.driver() if nvml else None,
        "versions": _versions(),
    }


def watch(nvml: Nvml | None) -> dict[str, Any]:
    """Clocks, throttling and load now; None for what cannot be read here."""
    throttled = _text(_CPU / "thermal_throttle/core_throttle_count")
    frequency = _text(_CPU / "cpufreq/scaling_cur_freq")
    return {
        "load_average": os.getloadavg()[0],
        "cpu_mhz": int(frequency) / 1000 if frequency else _listed_mhz(),
        "cpu_throttle_count": int(throttled) if throttled else None,
        "gpu": nvml.state() if nvml else None,
    }


def warnings(watched: list[dict[str, Any]], cores_used: int) -> list[str]:
    """What in the notes of a run speaks against its figures.

    Args:
        watched: From :func:`watch`, the first before anything ran. The first note of every sitting of a run that was
            interrupted and resumed says ``began``: what happened between sittings is no matter of the run.
        cores_used: Cores of the machine.
    """
    found: list[str] = []
    if not watched:
        return found
    load = watched[0]["load_average"]
    if load > BUSY * cores_used:
        found.append(f"the machine was busy with other work before the run began (load {load:.1f} on {cores_used} cores)")
    throttled = _grown(watched, lambda note: note["cpu_throttle_count"])
    if throttled:
        found.append(f"the CPU throttled {throttled} times")
    reasons = sorted({reason for note in watched for reason in ((note["gpu"] or {}).get("throttled") or [])})
    if reasons:
        found.append(f"the GPU's clocks were held back: {', '.join(reasons)}")
    for policy, seconds in _held_back(watched).items():
        found.append(f"the GPU was held back by its {policy} for {seconds:.1f} s")
    # A GPU at rest lowers its clock: before the run, and where a part of it was another device's.
    parts = [note["gpu"] for note in watched[1:] if not note.get("began")]
    at_work = [gpu for gpu in parts if gpu and gpu.get("load_percent") != 0]
    clocks = [gpu["sm_mhz"] for gpu in at_work if gpu["sm_mhz"]]
    if clocks and min(clocks) < 0.9 * max(clocks):
        found.append(f"the GPU's clock was not constant: {min(clocks)} to {max(clocks)} MHz")
    return found


def _held_back(watched: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of the run in which the GPU was slowed down, by what; tenths of a second and more."""

    def seconds(note: dict[str, Any]) -> dict[str, float | None]:
        return (note["gpu"] or {}).get("held_back_seconds") or {}

    policies = dict.fromkeys(policy for note in watched for policy in seconds(note))
    grown = {policy: _grown(watched, lambda note, policy=policy: seconds(note).get(policy)) for policy in policies}
    return {policy: total for policy, total in grown.items() if total >= 0.1}


def _grown(watched: list[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]) -> float:
    """By how much a counter of the machine grew within the sittings of a run."""
    total: float = 0
    before = None
    for note in watched:
        count = read(note)
        if before is not None and count is not None and not note.get("began"):
            total += max(count - before, 0)
        if count is not None or note.get("began"):
            before = count
    return total


def peak_memory() -> int | None:
    """Most bytes of host memory that this process has held at once."""
    return _status("VmHWM")


def memory() -> int | None:
    """Bytes of host memory that this process holds."""
    return _status("VmRSS")


def _status(key: str) -> int | None:
    """From the kernel, not from getrusage: that starts a child with what its parent held."""
    for line in (_text(_PROC / "self/status") or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _versions() -> dict[str, str]:
    found = {"glnet-infer": __version__}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    for line in (_text(_PROC / "cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _listed_mhz() -> float | None:
    for line in (_text(_PROC / "cpuinfo") or "").splitlines():
        if line.startswith("cpu MHz"):
            return float(line.partition(":")[2])
    return None


def _memory_total() -> int | None:
    for line in (_text(_PROC / "meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
