"""The driver and NVML by ctypes, on stand-ins that check how they are called."""

import ctypes

import pytest

from glnet_bench.machine import nvidia
from glnet_bench.machine.clocks import CudaEvents
from glnet_bench.machine.cuda import CudaDriver, Nvml
from glnet_infer import BackendError


class Driver:
    """``libcuda``: each event is stamped with a time that grows by a quarter of a second."""

    def __init__(self, failing=()):
        self.failing, self.count, self.stamps, self.streams, self.waited = failing, 0, {}, [], []

    def __getattr__(self, name):
        known = vars(Driver).get(f"_{name}", lambda *_: 0)

        def function(*arguments):
            return 100 if name in self.failing else known(self, *arguments)

        return function

    def _cuEventCreate(self, handle, flags):  # noqa: N802, as CUDA calls it
        self.count += 1
        handle._obj.value = self.count
        return 0

    def _cuStreamCreate(self, handle, flags):  # noqa: N802
        assert flags == 1
        handle._obj.value = 77
        return 0

    def _cuEventRecord(self, event, stream):  # noqa: N802
        self.stamps[event.value] = 250.0 * (len(self.streams) + 1)
        self.streams.append(stream.value)
        return 0

    def _cuEventSynchronize(self, event):  # noqa: N802
        self.waited.append(event.value)
        return 0

    def _cuEventElapsedTime(self, target, start, end):  # noqa: N802
        assert end.value in self.waited
        target._obj.value = self.stamps[end.value] - self.stamps[start.value]
        return 0

    def _cuDeviceGetPCIBusId(self, text, length, device):  # noqa: N802
        text.value = b"0000:17:00.0"
        return 0


def test_events_are_recorded_on_the_stream_and_waited_for():
    library = Driver()
    driver = CudaDriver(library).start()
    events = CudaEvents(driver, driver.stream())
    for _ in range(20):  # events are used again
        start, end = events.mark(), events.mark()
        assert events.milliseconds(start, end) == 250
    assert set(library.streams) == {77}
    assert library.count == 8


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuEventCreate"])
def test_a_status_is_never_ignored(function):
    with pytest.raises(BackendError, match=f"{function} failed") as error:
        CudaDriver(Driver({function})).start().event()
    assert "100" in error.value.why


class Management:
    """``libnvidia-ml`` of a GPU that is too hot."""

    def __init__(self, refused=()):
        self.refused = refused

    def __getattr__(self, name):
        values = {
            "nvmlDeviceGetClockInfo": 1710,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetTemperature": 91,
            "nvmlDeviceGetPowerUsage": 72_500,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x1 | 0x40,
        }

        def function(*arguments):
            if name in self.refused:
                return 3
            if name == "nvmlDeviceGetHandleByPciBusId_v2":
                assert arguments[0] == b"0000:17:00.0"
            if name == "nvmlDeviceGetViolationStatus":
                arguments[-1]._obj.nanoseconds = {0: 2_500_000_000, 1: 0}[arguments[1]]
            if name in values:
                arguments[-1]._obj.value = values[name]
            if name == "nvmlDeviceGetMemoryInfo":
                arguments[-1]._obj.used = 12345
            if name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.1"
            return 0

        return function


def test_clocks_and_throttling_are_read():
    nvml = Nvml(CudaDriver(Driver()).bus(), Management())
    state = nvml.state()
    assert (state["sm_mhz"], state["sm_max_mhz"], state["celsius"], state["watts"]) == (1710, 1980, 91, 72.5)
    assert state["throttled"] == ["thermal (hardware)"]  # idling is no reason to complain
    assert state["held_back_seconds"] == {"power cap": 2.5, "temperature": 0}
    assert nvml.used_memory() == 12345
    assert nvml.sm_clock() == 1710
    assert nvml.driver() == "580.1"


def test_what_is_not_told_is_none():
    names = ["nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrentClocksThrottleReasons"]
    state = Nvml("0000:17:00.0", Management({*names, "nvmlDeviceGetMemoryInfo"})).state()
    refused = Nvml("0000:17:00.0", Management({"nvmlDeviceGetViolationStatus"})).state()
    assert refused["held_back_seconds"] == {"power cap": None, "temperature": None}
    assert state["sm_mhz"] is state["watts"] is state["throttled"] is None
    assert Nvml("0000:17:00.0", Management({"nvmlDeviceGetMemoryInfo"})).used_memory() is None


def test_nvml_without_the_gpu_is_an_os_error():
    with pytest.raises(OSError, match="finds no GPU"):
        Nvml("0000:17:00.0", Management({"nvmlDeviceGetHandleByPciBusId_v2"}))


def test_the_structures_have_nvmls_sizes():
    from glnet_bench.machine.cuda import _Memory, _Utilization, _Violation

    assert [ctypes.sizeof(kind) for kind in (_Memory, _Utilization, _Violation)] == [24, 8, 16]


def test_nvml_at_a_known_address_does_not_start_cuda(monkeypatch):
    """Starting CUDA is part of what a backend's start-up time is about."""

    def refused():
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(nvidia, "CudaDriver", refused)
    monkeypatch.setattr(nvidia.ctypes, "CDLL", lambda name: Management())
    assert nvidia.open_nvml("0000:17:00.0").bus == "0000:17:00.0"
