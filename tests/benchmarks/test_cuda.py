"""CUDA's driver API, on a stand-in that keeps what is created until it is freed."""

from enum import IntEnum

import pytest

from glnet_bench.machine import cuda
from glnet_bench.machine.clocks import CudaEvents
from glnet_bench.machine.cuda import CudaDriver
from glnet_infer import BackendError


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100


class Driver:
    """``cuda.bindings.driver``: each event is stamped with a time that grows by a quarter of a second."""

    def __init__(self, failing=(), after=0):
        self.failing, self.after = failing, after
        self.handles, self.stamps, self.streams, self.waited, self.open = 0, {}, [], [], set()

    def __getattr__(self, name):
        known = getattr(Driver, f"_{name.removeprefix('cu')}", lambda *_: ())

        def function(*arguments):
            if name in self.failing and self.handles >= self.after:
                return (CUresult.CUDA_ERROR_NO_DEVICE, None)
            return (CUresult.CUDA_SUCCESS, *known(self, *arguments))

        return function

    def _new(self, kind):
        self.handles += 1
        self.open.add((kind, self.handles))
        return (self.handles,)

    def _DeviceGet(self, ordinal):  # noqa: N802, as CUDA calls it
        return (ordinal,)

    def _DevicePrimaryCtxRetain(self, device):  # noqa: N802
        return ("primary",)

    def _CtxSetCurrent(self, context):  # noqa: N802
        assert context == "primary"
        return ()

    def _EventCreate(self, flags):  # noqa: N802
        return self._new("event")

    def _EventDestroy(self, event):  # noqa: N802
        self.open.remove(("event", event))
        return ()

    def _StreamCreate(self, flags):  # noqa: N802
        assert flags == 1  # it does not wait for the default stream
        return self._new("stream")

    def _StreamDestroy(self, stream):  # noqa: N802
        self.open.remove(("stream", stream))
        return ()

    def _MemAlloc(self, size):  # noqa: N802
        return self._new("memory")

    def _MemFree(self, address):  # noqa: N802
        self.open.remove(("memory", address))
        return ()

    def _EventRecord(self, event, stream):  # noqa: N802
        self.stamps[event] = 250.0 * (len(self.streams) + 1)
        self.streams.append(stream)
        return ()

    def _EventSynchronize(self, event):  # noqa: N802
        self.waited.append(event)
        return ()

    def _EventElapsedTime(self, start, end):  # noqa: N802
        assert end in self.waited
        return (self.stamps[end] - self.stamps[start],)

    def _DeviceGetPCIBusId(self, length, device):  # noqa: N802
        return (b"0000:17:00.0".ljust(length, b"\0"),)


@pytest.mark.parametrize("given", [None, 77])
def test_events_are_recorded_on_the_stream_and_waited_for_and_freed(given):
    api = Driver()
    events = CudaEvents(CudaDriver(api).start(), given)
    for _ in range(20):  # events are used again
        start, end = events.mark(), events.mark()
        assert events.milliseconds(start, end) == 250
    assert set(api.streams) == {events.stream} and given in (None, events.stream)
    assert sum(kind == "event" for kind, _ in api.open) == 8
    assert any(kind == "stream" for kind, _ in api.open) == (given is None)  # another's stream is another's to free
    events.close()
    events.close()
    assert not api.open


def test_events_that_cannot_all_be_created_are_freed():
    api = Driver({"cuEventCreate"}, after=5)
    with pytest.raises(BackendError, match="cuEventCreate failed"):
        CudaEvents(CudaDriver(api).start())
    assert api.handles == 5 and not api.open


def test_memory_is_freed_whatever_happens():
    api = Driver()
    with pytest.raises(RuntimeError), CudaDriver(api).start().memory(64) as address:
        assert ("memory", address) in api.open
        raise RuntimeError
    assert not api.open


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuEventCreate"])
def test_a_status_is_never_ignored(function):
    with pytest.raises(BackendError, match=f"{function} failed") as error:
        CudaDriver(Driver({function})).start().new_event()
    assert "CUDA_ERROR_NO_DEVICE" in error.value.why


def test_the_gpu_has_an_address():
    assert CudaDriver(Driver()).bus() == "0000:17:00.0"


def test_bindings_without_a_driver_are_no_traceback():
    class Missing:
        def cuInit(self, flags):  # noqa: N802
            raise RuntimeError('"cuda" is an NVIDIA driver library\nand was not found')

    with pytest.raises(BackendError, match="no NVIDIA driver"):
        CudaDriver(Missing())


def test_missing_bindings_are_named_where_there_is_a_driver(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cuda.importlib, "import_module", missing)
    monkeypatch.setattr(cuda, "newest_cuda", lambda: "13.0")
    with pytest.raises(BackendError, match="cuda-bindings is not installed") as error:
        CudaDriver()
    assert "[bench]" in error.value.fix
    monkeypatch.setattr(cuda, "newest_cuda", lambda: "")
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        CudaDriver()


def test_the_real_bindings_have_what_is_called():
    """The stand-in would answer to any name."""
    api = pytest.importorskip("cuda.bindings.driver")
    names = {name for name in dir(Driver) if name.startswith("_") and name[1].isupper()}
    assert len(names) >= 12
    for name in (*names, "_Init", "_MemcpyDtoDAsync"):
        assert callable(getattr(api, f"cu{name[1:]}"))
