"""NVIDIA's driver and its management library by ctypes: events, streams, copies, clocks. Nothing to install."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from glnet_infer.errors import BackendError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

THROTTLE_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}
"""Bits of NVML's clocks event reasons that cost speed; idle and application clocks are not among them."""


POLICIES = {0: "power cap", 1: "temperature"}
"""NVML's performance policies that cost speed, of which it counts the time."""


class CudaDriver:
    """The driver's API on the first GPU's primary context, which PyTorch, ONNX Runtime and TensorRT work in too.

    Args:
        library: ``libcuda``; tests give another.

    Raises:
        BackendError: There is no driver or no GPU.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            self._library = library or ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BackendError("There is no NVIDIA driver.", why=str(error), fix="measure on the CPU") from error
        self._device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)

    def start(self) -> CudaDriver:
        """Make the GPU the calling thread's own; everything below needs it."""
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        return self

    def bus(self) -> str:
        """The GPU's PCI address, by which NVML finds the same one."""
        text = ctypes.create_string_buffer(32)
        self._call("cuDeviceGetPCIBusId", text, len(text), self._device)
        return text.value.decode()

    def stream(self) -> int:
        """A stream's handle; it lives as long as the process."""
        handle = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(handle), _NON_BLOCKING)
        return int(handle.value or 0)

    def event(self) -> int:
        """An event's handle; it lives as long as the process."""
        handle = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(handle), 0)
        return int(handle.value or 0)

    def record(self, event: int, stream: int) -> None:
        """Note the time at which a stream reaches this place."""
        self._call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def wait(self, event: int) -> None:
        """Until a recorded event has happened."""
        self._call("cuEventSynchronize", ctypes.c_void_p(event))

    def elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        value = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(value), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return value.value

    @contextlib.contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of so many bytes on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        try:
            yield address.value
        finally:
            self._call("cuMemFree_v2", ctypes.c_uint64(address.value))

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy within the GPU's memory."""
        self._call(
            "cuMemcpyDtoDAsync_v2",
            ctypes.c_uint64(target),
            ctypes.c_uint64(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(stream),
        )

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise BackendError(f"{name} failed.", why=f"CUresult {status}", fix="see nvidia-smi and glnet-doctor")


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Violation(ctypes.Structure):
    _fields_ = (("reference", ctypes.c_ulonglong), ("nanoseconds", ctypes.c_ulonglong))


class Nvml:
    """NVML for one GPU. What a machine does not tell is None.

    Args:
        bus: The GPU's PCI address: CUDA and NVML count GPUs in different orders.
        library: ``libnvidia-ml``; tests give another.

    Raises:
        OSError: NVML is missing or does not start.
    """

    def __init__(self, bus: str, library: Any = None) -> None:
        self.bus = bus
        self._library = library or ctypes.CDLL("libnvidia-ml.so.1")
        self._device = ctypes.c_void_p()
        if self._library.nvmlInit_v2() != 0:
            raise OSError("NVML does not start")
        if self._library.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(self._device)) != 0:
            raise OSError(f"NVML finds no GPU at {bus}")

    def driver(self) -> str | None:
        """The driver's version."""
        text = ctypes.create_string_buffer(96)
        found = self._library.nvmlSystemGetDriverVersion(text, len(text)) == 0
        return text.value.decode() if found else None

    def used_memory(self) -> int | None:
        """Bytes in use on the GPU, by everyone."""
        memory = _Memory()
        found = self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory)) == 0
        return memory.used if found else None

    def sm_clock(self) -> int | None:
        """Of the multiprocessors, MHz."""
        return self._number("nvmlDeviceGetClockInfo", 1)

    def state(self) -> dict[str, Any]:
        """Clocks in MHz, temperature in degrees Celsius, power in watts, load in percent, and what slowed it down.

        ``throttled`` is about this moment, ``held_back_seconds`` about all the time since the driver was loaded: a GPU that
        rests now may have been too hot a second ago.
        """
        power = self._number("nvmlDeviceGetPowerUsage")
        reasons = ctypes.c_ulonglong()
        known = self._library.nvmlDeviceGetCurrentClocksThrottleReasons(self._device, ctypes.byref(reasons)) == 0
        load = _Utilization()
        has_load = self._library.nvmlDeviceGetUtilizationRates(self._device, ctypes.byref(load)) == 0
        return {
            "sm_mhz": self.sm_clock(),
            "sm_max_mhz": self._number("nvmlDeviceGetMaxClockInfo", 1),
            "memory_mhz": self._number("nvmlDeviceGetClockInfo", 2),
            "celsius": self._number("nvmlDeviceGetTemperature", 0),
            "watts": None if power is None else power / 1000,
            "load_percent": load.gpu if has_load else None,
            "throttled": [text for bit, text in THROTTLE_REASONS.items() if reasons.value & bit] if known else None,
            "held_back_seconds": {text: self._held_back(policy) for policy, text in POLICIES.items()},
        }

    def _held_back(self, policy: int) -> float | None:
        spent = _Violation()
        found = self._library.nvmlDeviceGetViolationStatus(self._device, policy, ctypes.byref(spent)) == 0
        return spent.nanoseconds / 1e9 if found else None

    def _number(self, function: str, *arguments: int) -> int | None:
        value = ctypes.c_uint()
        status = getattr(self._library, function)(self._device, *arguments, ctypes.byref(value))
        return value.value if status == 0 else None


def open_nvml(bus: str | None = None) -> Nvml | None:
    """NVML, or None on a machine without it.

    Args:
        bus: The GPU's PCI address; where it is not given, CUDA is started to learn its first GPU's.
    """
    try:
        return Nvml(bus or CudaDriver().bus())
    except (BackendError, OSError):
        return None
