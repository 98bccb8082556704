"""What is measured on: processors, driver, versions; and how they fare at a moment."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from glnet_bench.machine.nvml import Nvml
from glnet_bench.record.surroundings import Machine, Note, ProcessorTime
from glnet_infer.backends.registry import kinds
from glnet_infer.devices import cores, gpus
from glnet_infer.version import __version__

_PROC, _CPU = Path("/proc"), Path("/sys/devices/system/cpu/cpu0")

OTHERS = ("numpy", "opencv-python-headless", "onnx", "torch")
"""Packages that times depend on, beside those of the backends."""


def describe(nvml: Nvml | None) -> Machine:
    """The machine; nothing that names its owner."""
    return Machine(
        platform=platform.platform(),
        python=platform.python_version(),
        cpu=_cpu_name(),
        cores=cores(),
        cpu_governor=_text(_CPU / "cpufreq/scaling_governor"),
        memory_bytes=_memory_total(),
        gpus=tuple(f"{gpu.name}, compute capability {gpu.compute_capability}" for gpu in gpus()),
        driver=nvml.driver() if nvml else None,
        versions=_versions(),
    )


def watch(nvml: Nvml | None, *, began: bool = False, after: str | None = None) -> Note:
    """Clocks, throttling, load and processor time now.

    Args:
        nvml: NVML of the GPU, where there is one.
        began: Whether a sitting of the run begins.
        after: Name of the measurement that has just ended.
    """
    throttled = _text(_CPU / "thermal_throttle/core_throttle_count")
    frequency = _text(_CPU / "cpufreq/scaling_cur_freq")
    return Note(
        load_average=os.getloadavg()[0] if sys.platform != "win32" else None,
        cpu_mhz=int(frequency) / 1000 if frequency else _listed_mhz(),
        cpu_throttle_count=int(throttled) if throttled else None,
        gpu=nvml.state() if nvml else None,
        cpu_seconds=_processor_time(),
        began=began,
        after=after,
    )


def peak_memory() -> int | None:
    """Most bytes of host memory that this process has held at once."""
    return _status("VmHWM")


def memory() -> int | None:
    """Bytes of host memory that this process holds."""
    return _status("VmRSS")


def _status(key: str) -> int | None:
    """A figure of the kernel. Not getrusage's: that starts a child with what its parent held."""
    for line in (_text(_PROC / "self/status") or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _processor_time() -> ProcessorTime | None:
    """Seconds of the processors since the machine started; None where Linux does not tell."""
    line = next(iter((_text(_PROC / "stat") or "").splitlines()), "")
    ticks = [int(value) for value in line.split()[1:9]] if line.startswith("cpu ") else []
    if len(ticks) < 8 or not any(ticks):
        return None
    # proc(5): guests' time is part of user and nice, so the first eight are all there is.
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = ticks
    second = os.sysconf("SC_CLK_TCK")
    return ProcessorTime(
        all=sum(ticks) / second,
        busy=(user + nice + system + interrupts + soft_interrupts) / second,
        own=sum(os.times()[:4]),
        stolen=stolen / second,
    )


def _versions() -> dict[str, str]:
    found = {"glnet-infer": __version__}
    for name in (*OTHERS, *(package for kind in kinds().values() for package in kind.packages)):
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
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
