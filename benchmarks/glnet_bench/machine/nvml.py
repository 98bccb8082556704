"""How a GPU fares, read by NVIDIA's management library through nvidia-ml-py (module ``pynvml``)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from glnet_bench.machine.cuda import CudaDriver
from glnet_bench.record.surroundings import GpuState
from glnet_infer.errors import BackendError

# Reasons that cost speed, by the names of NVML's bits; idle and application clocks are not among them.
_THROTTLE_REASONS = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "thermal (software)",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "thermal (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}

# Policies that cost speed, of which NVML counts the time.
_POLICIES = {"NVML_PERF_POLICY_POWER": "power cap", "NVML_PERF_POLICY_THERMAL": "temperature"}


class Nvml:
    """NVML for one GPU. What a machine does not tell is None.

    Args:
        bus: The GPU's PCI address: CUDA and NVML count GPUs in different orders.
        api: The module ``pynvml``; tests give another.

    Raises:
        ImportError: nvidia-ml-py is not installed.
        OSError: NVML is missing, does not start, or does not know the GPU.
    """

    def __init__(self, bus: str, api: Any = None) -> None:
        self.bus = bus
        self._api = api or importlib.import_module("pynvml")
        try:
            self._api.nvmlInit()
            self._gpu = self._api.nvmlDeviceGetHandleByPciBusId(bus)
        except self._api.NVMLError as error:
            raise OSError(f"NVML finds no GPU at {bus}: {error}") from error

    def driver(self) -> str | None:
        """The driver's version."""
        version = self._read("nvmlSystemGetDriverVersion")
        return None if version is None else str(version)

    def used_memory(self) -> int | None:
        """Bytes in use on the GPU, by everyone."""
        memory = self._ask("nvmlDeviceGetMemoryInfo")
        return None if memory is None else int(memory.used)

    def sm_clock(self) -> int | None:
        """Clock of the multiprocessors, MHz."""
        return self._number("nvmlDeviceGetClockInfo", self._api.NVML_CLOCK_SM)

    def state(self) -> GpuState:
        """The GPU at this moment."""
        api = self._api
        milliwatts = self._number("nvmlDeviceGetPowerUsage")
        reasons = self._number("nvmlDeviceGetCurrentClocksThrottleReasons")
        load = self._ask("nvmlDeviceGetUtilizationRates")
        return GpuState(
            sm_mhz=self.sm_clock(),
            sm_max_mhz=self._number("nvmlDeviceGetMaxClockInfo", api.NVML_CLOCK_SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", api.NVML_CLOCK_MEM),
            celsius=self._number("nvmlDeviceGetTemperature", api.NVML_TEMPERATURE_GPU),
            watts=None if milliwatts is None else milliwatts / 1000,
            load_percent=None if load is None else int(load.gpu),
            throttled=None
            if reasons is None
            else tuple(text for name, text in _THROTTLE_REASONS.items() if reasons & getattr(api, name)),
            held_back_seconds={text: self._held_back(getattr(api, name)) for name, text in _POLICIES.items()},
        )

    def close(self) -> None:
        """Let NVML go."""
        self._read("nvmlShutdown")

    def _held_back(self, policy: int) -> float | None:
        spent = self._ask("nvmlDeviceGetViolationStatus", policy)
        return None if spent is None else spent.violationTime / 1e9

    def _number(self, function: str, *arguments: int) -> int | None:
        value = self._ask(function, *arguments)
        return None if value is None else int(value)

    def _ask(self, function: str, *arguments: int) -> Any:
        """What NVML says of the GPU."""
        return self._read(function, self._gpu, *arguments)

    def _read(self, function: str, *arguments: Any) -> Any:
        try:
            return getattr(self._api, function)(*arguments)
        except self._api.NVMLError:
            return None


@contextlib.contextmanager
def opened(bus: str | None = None) -> Iterator[Nvml | None]:
    """NVML until the end of the block, or None on a machine without it.

    Args:
        bus: The GPU's PCI address; where it is not given, CUDA is started to learn its first GPU's.
    """
    try:
        nvml = Nvml(bus or CudaDriver().bus())
    except (BackendError, ImportError, OSError):
        yield None
        return
    with contextlib.closing(nvml):
        yield nvml
