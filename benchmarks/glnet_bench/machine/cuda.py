"""CUDA's driver API through cuda-bindings: streams, events, memory and copies on the first GPU."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from glnet_infer.devices import newest_cuda
from glnet_infer.errors import BackendError, first_line, install_hint, one_line

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class CudaDriver:
    """The first GPU's primary context, which PyTorch, ONNX Runtime and TensorRT work in too.

    Args:
        api: The module ``cuda.bindings.driver``; tests give another.

    Raises:
        BackendError: There is no driver, no GPU, or no cuda-bindings.
    """

    def __init__(self, api: Any = None) -> None:
        self._api = api or _import_driver()
        try:
            self._call("cuInit", 0)
        except RuntimeError as error:  # cuda-bindings looks for the driver in the first call
            raise BackendError("There is no NVIDIA driver.", why=one_line(error), fix="measure on the CPU") from error
        self._device = self._call("cuDeviceGet", 0)

    def start(self) -> CudaDriver:
        """Make the GPU the calling thread's own; everything below needs it.

        The context stays the process's: whoever computes on the GPU after us works in it.
        """
        self._call("cuCtxSetCurrent", self._call("cuDevicePrimaryCtxRetain", self._device))
        return self

    def bus(self) -> str:
        """The GPU's PCI address, by which NVML finds the same one."""
        text: bytes = self._call("cuDeviceGetPCIBusId", 32, self._device)
        return text.split(b"\0")[0].decode()

    def new_stream(self) -> int:
        """A stream's handle, for :meth:`free_stream`."""
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def free_stream(self, stream: int) -> None:
        """Let a stream go; work that is queued on it is still done."""
        self._call("cuStreamDestroy", stream)

    def new_event(self) -> int:
        """An event's handle, for :meth:`free_event`."""
        return int(self._call("cuEventCreate", 0))

    def free_event(self, event: int) -> None:
        """Let an event go."""
        self._call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Note the time at which a stream reaches this place."""
        self._call("cuEventRecord", event, stream)

    def wait(self, event: int) -> None:
        """Wait until a recorded event has happened."""
        self._call("cuEventSynchronize", event)

    def elapsed(self, start: int, end: int) -> float:
        """Milliseconds between two events that have happened."""
        return float(self._call("cuEventElapsedTime", start, end))

    @contextlib.contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of so many bytes on the GPU."""
        address = self._call("cuMemAlloc", size)
        try:
            yield int(address)
        finally:
            self._call("cuMemFree", address)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Queue a copy within the GPU's memory."""
        self._call("cuMemcpyDtoDAsync", target, source, size, stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a function gives besides its status.

        Raises:
            BackendError: The status is not success.
        """
        status, *values = getattr(self._api, name)(*arguments)
        if int(status) != 0:
            raise BackendError(
                f"{name} failed.", why=getattr(status, "name", f"CUresult {status}"), fix="see nvidia-smi and glnet-doctor"
            )
        return values[0] if values else None


def _import_driver() -> Any:
    if not newest_cuda():  # whatever is installed
        raise BackendError("There is no NVIDIA driver.", why="libcuda.so.1 does not load", fix="measure on the CPU")
    try:
        return importlib.import_module("cuda.bindings.driver")
    except Exception as error:  # bindings of another CUDA fail in several ways
        raise BackendError("cuda-bindings is not installed.", why=first_line(error), fix=install_hint("bench")) from error
