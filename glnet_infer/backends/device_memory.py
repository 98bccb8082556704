"""GPU memory, copies and CUDA graphs by cuda-core: the only module that knows it.

cuda-core works in the GPU's primary context, which TensorRT and PyTorch use too, so pointers pass freely between them.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.device_arrays import COPY_TO_HOST, DeviceFrame
from glnet_infer.errors import BackendError, InputError, install_hint, one_line


def import_cuda_core(extra: str) -> Any:
    """The module ``cuda.core``.

    Args:
        extra: What of this library brings it, for the message.

    Raises:
        BackendError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("cuda.core")
    except Exception as error:  # without its bindings, or with those of another CUDA, it fails in several ways
        raise BackendError("cuda-core is not installed.", why=one_line(error), fix=install_hint(extra)) from error


class DeviceMemory:
    """A stream of one GPU, buffers for the work on it, and CUDA graphs of that work.

    Used by one thread at a time. What is allocated lives until :meth:`close`.

    Args:
        extra: What of this library brings cuda-core, for the message.
        ordinal: Which GPU, in CUDA's order.

    Raises:
        BackendError: cuda-core is missing, or the GPU does not start.
    """

    def __init__(self, extra: str, ordinal: int = 0) -> None:
        core = import_cuda_core(extra)
        self._core = core
        self._ordinal = ordinal
        self._view = core.Buffer.from_handle
        self._buffers: list[Any] = []
        self._graphs: list[Any] = []
        with _failures_said("start the GPU", _START):
            self._device = core.Device(ordinal)
            self._device.set_current()
            # A stream of our own: on the default stream TensorRT synchronises the whole device at every call.
            self._stream: Any = self._device.create_stream()
            # A pool of our own: what is freed to the GPU's usual one stays with the process.
            self._on_device = core.DeviceMemoryResource(self._device, core.DeviceMemoryResourceOptions())
            # Pages that the driver may copy from and to without a detour; from the plain allocator, since pools of
            # pinned memory are not supported on every GPU.
            self._on_host = core.LegacyPinnedMemoryResource()

    @property
    def stream(self) -> int:
        """The stream's CUDA handle."""
        return int(self._stream.handle)

    def activate(self) -> None:
        """Make the GPU the calling thread's own; needed in every thread that uses it."""
        with _failures_said("use the GPU"):
            self._device.set_current()

    def allocate(self, size: int) -> Any:
        """A buffer on the GPU of so many bytes; its address is ``int(buffer.handle)``."""
        with _failures_said(f"allocate {size} bytes on the GPU"):
            buffer = self._on_device.allocate(size, stream=self._stream)
        self._buffers.append(buffer)
        return buffer

    def allocate_staging(self, size: int) -> tuple[Any, NDArray[np.uint8]]:
        """A pinned buffer on the host of so many bytes, zeroed, and the array of its bytes."""
        with _failures_said(f"allocate {size} bytes of pinned memory"):
            buffer = self._on_host.allocate(size)
        self._buffers.append(buffer)
        # cuda-core's buffers do not offer Python's buffer protocol, so the array is laid over the address.
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(buffer.handle)))
        array[:] = 0
        return buffer, array

    def part(self, buffer: Any, size: int) -> Any:
        """The first bytes of a buffer, as a buffer: copies take whole ones."""
        return self._view(int(buffer.handle), size, owner=buffer)

    def free(self, buffer: Any) -> None:
        """Free a buffer before the end; nothing that was queued may use it any more."""
        self._buffers.remove(buffer)
        buffer.close()

    def foreign(self, array: Any) -> DeviceFrame:
        """Look at an array of another library; what is queued from now on waits for the work that makes it.

        The order is kept by cuda-core, on the GPU: it hands our stream to ``__dlpack__``, or lets our stream wait for the
        ``stream`` of ``__cuda_array_interface__``. Only reading follows, so read-only arrays are welcome.

        Raises:
            InputError: The array's library or cuda-core refuses, or it lies elsewhere.
        """
        try:
            view = self._core.utils.StridedMemoryView.from_any_interface(array, stream_ptr=self.stream)
            shape, strides, dtype = tuple(view.shape), view.strides, view.dtype
        except Exception as error:  # of any library
            raise InputError(
                f"The {type(array).__name__} on the GPU was not taken.", why=one_line(error), fix=COPY_TO_HOST
            ) from error
        if not view.is_device_accessible or view.device_id != self._ordinal:
            raise InputError(
                f"The {type(array).__name__} is not on this backend's GPU.",
                why=f"it is on GPU {view.device_id}, and the backend runs on GPU {self._ordinal}",
                fix=f"make it on the first GPU that CUDA offers (CUDA_VISIBLE_DEVICES chooses), or {COPY_TO_HOST}",
            )
        return DeviceFrame(int(view.ptr), shape, dtype, None if strides is None else tuple(strides), (view, array))

    def foreign_buffer(self, array: DeviceFrame, size: int) -> Any:
        """The first bytes of another library's array, as a buffer."""
        return self._view(array.address, size, owner=array.owner)

    def strided(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """The first bytes of a buffer as an array that speaks DLPack."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self._core.utils.StridedMemoryView.from_buffer(self.part(buffer, size), shape, dtype=dtype)

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy between buffers of one size, at most one of them on the host."""
        with _failures_said("copy"):
            target.copy_from(source, stream=self._stream)

    def synchronize(self) -> None:
        """Wait for all that was queued; failures of kernels surface here."""
        with _failures_said("finish the work"):
            self._stream.sync()

    def settle(self) -> None:
        """Wait after a failure, whatever comes of it: nothing may be at work on memory that its owner then takes back."""
        with contextlib.suppress(Exception):
            self._stream.sync()

    def capture(self, work: Callable[[], None]) -> Any:
        """A CUDA graph of what a function queues on the stream; the function is called once and nothing runs."""
        with _failures_said("capture a CUDA graph", "do without: TensorRtBackend(bundle, cuda_graphs=False)"):
            builder = self._stream.create_graph_builder()
            try:
                # Only this thread is barred from what would break the capture: clones run on in theirs.
                builder.begin_building("thread_local")
                work()
                graph = builder.end_building().complete()
            except BaseException:
                with contextlib.suppress(Exception):  # the first failure is the one to tell
                    builder.close()  # else the stream would go on capturing
                raise
            builder.close()
        self._graphs.append(graph)
        return graph

    def launch(self, graph: Any) -> None:
        """Queue a captured graph."""
        with _failures_said("launch a CUDA graph"):
            graph.launch(self._stream)

    def close(self) -> None:
        """Wait for the work and free everything. Calling it twice is allowed."""
        if self._stream is None:
            return
        with contextlib.suppress(Exception):  # a failed GPU must not keep the rest from being freed
            self._stream.sync()
        for part in (*self._graphs, *self._buffers, self._stream, self._on_device):
            with contextlib.suppress(Exception):
                part.close()
        self._graphs, self._buffers, self._stream = [], [], None


_START = (
    "free memory of the GPU if it is full (nvidia-smi); else compare the driver with the CUDA of the installed packages "
    "(glnet-doctor) and update what is older"
)
_FIX = "free memory of the GPU (nvidia-smi lists its users), or start the program again; see glnet-doctor"


@contextlib.contextmanager
def _failures_said(doing: str, fix: str = _FIX) -> Iterator[None]:
    """Turn cuda-core's exceptions, which share no public base class, into errors of this library."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"CUDA failed to {doing}.", why=one_line(error), fix=fix) from error
