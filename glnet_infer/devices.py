"""What this machine computes on. GPUs are asked of the driver itself: no CUDA toolkit or Python binding needed."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver API


_INT8_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}
_BF16_PRODUCTS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux calls the instructions, on x86 and on ARM."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver names it.

    Attributes:
        name: Its product name.
        compute_capability: Such as ``8.9``.
    """

    name: str
    compute_capability: str


def newest_cuda() -> str:
    """The newest version of CUDA that the driver runs, such as ``13.0``; empty where there is no driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL(_DRIVER).cuDriverGetVersion(ctypes.byref(version)) != 0:
            return ""
    except OSError:
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def physical_cores() -> int:
    """Cores that this process may use, two hardware threads of one counted once; as :func:`cores` where none says which."""
    if sys.platform != "linux":
        return cores()
    topology = Path("/sys/devices/system/cpu")
    try:
        files = (topology / f"cpu{each}/topology/thread_siblings_list" for each in os.sched_getaffinity(0))
        return len({file.read_bytes() for file in files})
    except OSError:
        return cores()


def cpu_flags() -> frozenset[str]:
    """Instructions of the processor by Linux's names; nothing where it does not say what it has."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return frozenset(flags.partition(":")[2].split())


def has_int8_dot_products() -> bool:
    """Whether the processor multiplies and adds int8 in one instruction; true where it does not say what it has."""
    return _has(_INT8_DOT_PRODUCTS)


def has_bf16_products() -> bool:
    """Whether the processor multiplies bfloat16 by itself; true where it does not say what it has."""
    return _has(_BF16_PRODUCTS)


def _has(instructions: set[str]) -> bool:
    flags = cpu_flags()
    return not flags or not flags.isdisjoint(instructions)


def gpus() -> list[Gpu]:
    """The GPUs that the driver offers to this process; none where there is no driver."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    found = []
    for ordinal in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        found.append(Gpu(name.value.decode(), f"{major.value}.{minor.value}"))
    return found
