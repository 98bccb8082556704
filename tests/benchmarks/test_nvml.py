"""How a GPU fares, on a stand-in for nvidia-ml-py."""

import types

import pytest

from glnet_bench.machine import nvml as nvmls
from glnet_bench.machine.nvml import Nvml
from glnet_infer import BackendError

BUS = "0000:17:00.0"
CONSTANTS = {
    "NVML_CLOCK_SM": 1,
    "NVML_CLOCK_MEM": 2,
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_PERF_POLICY_POWER": 0,
    "NVML_PERF_POLICY_THERMAL": 1,
    "nvmlClocksThrottleReasonSwPowerCap": 0x4,
    "nvmlClocksThrottleReasonHwSlowdown": 0x8,
    "nvmlClocksThrottleReasonSwThermalSlowdown": 0x20,
    "nvmlClocksThrottleReasonHwThermalSlowdown": 0x40,
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": 0x80,
}


class Management:
    """``pynvml`` of a GPU that is too hot."""

    class NVMLError(Exception):
        pass

    def __init__(self, refused=()):
        self.refused, self.running = refused, 0
        vars(self).update(CONSTANTS)

    def __getattr__(self, name):
        known = getattr(Management, f"_{name}", None)
        if known is None:
            raise AttributeError(name)

        def function(*arguments):
            if name in self.refused:
                raise self.NVMLError("Not Supported")
            assert self.running or name == "nvmlInit"
            return known(self, *arguments)

        return function

    def _nvmlInit(self):  # noqa: N802, as NVML calls it
        self.running += 1

    def _nvmlShutdown(self):  # noqa: N802
        self.running -= 1

    def _nvmlDeviceGetHandleByPciBusId(self, bus):  # noqa: N802
        assert bus == BUS
        return "gpu"

    def _nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "580.1"

    def _nvmlDeviceGetClockInfo(self, gpu, kind):  # noqa: N802
        return {1: 1710, 2: 2619}[kind]

    def _nvmlDeviceGetMaxClockInfo(self, gpu, kind):  # noqa: N802
        return {1: 1980}[kind]

    def _nvmlDeviceGetTemperature(self, gpu, sensor):  # noqa: N802
        return {0: 91}[sensor]

    def _nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        return 72_500

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu):  # noqa: N802
        return 0x1 | 0x40

    def _nvmlDeviceGetUtilizationRates(self, gpu):  # noqa: N802
        return types.SimpleNamespace(gpu=97, memory=40)

    def _nvmlDeviceGetMemoryInfo(self, gpu):  # noqa: N802
        return types.SimpleNamespace(total=99999, free=87654, used=12345)

    def _nvmlDeviceGetViolationStatus(self, gpu, policy):  # noqa: N802
        return types.SimpleNamespace(referenceTime=1, violationTime={0: 2_500_000_000, 1: 0}[policy])


def test_clocks_and_throttling_are_read():
    nvml = Nvml(BUS, Management())
    state = nvml.state()
    assert (state.sm_mhz, state.sm_max_mhz, state.memory_mhz) == (1710, 1980, 2619)
    assert (state.celsius, state.watts, state.load_percent) == (91, 72.5, 97)
    assert state.throttled == ("thermal (hardware)",)  # idling is no reason to complain
    assert state.held_back_seconds == {"power cap": 2.5, "temperature": 0}
    assert nvml.used_memory() == 12345
    assert nvml.sm_clock() == 1710
    assert nvml.driver() == "580.1"


def test_what_is_not_told_is_none():
    names = ["nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrentClocksThrottleReasons"]
    names += ["nvmlDeviceGetUtilizationRates", "nvmlDeviceGetViolationStatus", "nvmlDeviceGetMemoryInfo"]
    nvml = Nvml(BUS, Management({*names, "nvmlSystemGetDriverVersion"}))
    state = nvml.state()
    assert state.sm_mhz is state.watts is state.throttled is state.load_percent is None
    assert state.held_back_seconds == {"power cap": None, "temperature": None}
    assert nvml.used_memory() is None and nvml.driver() is None


def test_nvml_without_the_gpu_is_an_os_error():
    with pytest.raises(OSError, match="finds no GPU"):
        Nvml(BUS, Management({"nvmlDeviceGetHandleByPciBusId"}))


def test_nvml_at_a_known_address_does_not_start_cuda(monkeypatch):
    """Starting CUDA is part of what a backend's start-up time is about."""

    def refused():
        raise AssertionError("CUDA was started")

    api = Management()
    monkeypatch.setattr(nvmls, "CudaDriver", refused)
    monkeypatch.setattr(nvmls.importlib, "import_module", lambda name: api)
    with nvmls.opened(BUS) as nvml:
        assert nvml.bus == BUS and api.running == 1
    assert api.running == 0  # and it is let go


def test_a_machine_without_nvidia_ml_py_has_no_nvml(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(nvmls.importlib, "import_module", missing)
    with nvmls.opened(BUS) as nvml:
        assert nvml is None


def test_a_machine_without_a_driver_has_no_nvml(monkeypatch):
    def refused():
        raise BackendError("There is no NVIDIA driver.")

    monkeypatch.setattr(nvmls, "CudaDriver", refused)
    with nvmls.opened() as nvml:
        assert nvml is None


def test_the_real_package_has_what_is_asked_for():
    """With the same numbers, which are NVML's."""
    api = pytest.importorskip("pynvml")
    assert {name: getattr(api, name) for name in CONSTANTS} == CONSTANTS
    names = [name[1:] for name in dir(Management) if name.startswith("_nvml")]
    assert len(names) >= 12 and all(callable(getattr(api, name)) for name in names)
    assert issubclass(api.NVMLError, Exception)
    assert {"referenceTime", "violationTime"} <= {name for name, _ in api.c_nvmlViolationTime_t._fields_}
