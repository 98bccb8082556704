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

from glnet_infer.device_arrays import COPY_TO_HOST, DeviceFrame, gpu_of
from glnet_infer.errors import BackendError, InputError, install_hint, one_line


def import_cuda_core(extra: str) -> Any:
    """The module ``cuda.core``.

    Args:
        extra: The extra of this library that installs it, for the message.

    Raises:
        BackendError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("cuda.core")
    except Exception as error:  # without its bindings, or with those of another CUDA, it fails in several ways
        raise BackendError("cuda-core is not installed.", why=one_line(error), fix=install_hint(extra)) from error


def _import_driver() -> Any:
    """CUDA's driver API, which comes with cuda-core's bindings."""
    return importlib.import_module("cuda.bindings.driver")


class DeviceMemory:
    """A stream of one GPU, buffers for the work on it, and CUDA graphs of that work.

    Used by one thread at a time, within :meth:`active`. What is allocated lives until :meth:`close`.

    Args:
        extra: The extra of this library that installs cuda-core, for the message.
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
            self._driver = _import_driver()
            self._device = core.Device(ordinal)
            with self.active():
                # A stream of our own: on the default stream TensorRT synchronises the whole device at every call.
                self._stream: Any = self._device.create_stream()
                # A pool of our own: what is freed to the GPU's usual one stays with the process. Virtual GPUs may have
                # no pools.
                pools = self._device.properties.memory_pools_supported
                options = core.DeviceMemoryResourceOptions()
                self._pool: Any = core.DeviceMemoryResource(self._device, options) if pools else None
                self._on_device = self._device.memory_resource if self._pool is None else self._pool
                # Pages that the driver may copy from and to without a detour; from the plain allocator, since pools of
                # pinned memory are not supported on every GPU.
                self._on_host = core.LegacyPinnedMemoryResource()

    @property
    def stream(self) -> int:
        """The stream's CUDA handle."""
        return int(self._stream.handle)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU's primary context the calling thread's own meanwhile; all work needs it.

        What was current before is so again afterwards: PyCUDA's programs have a context of their own, and torch's may have
        chosen another GPU.
        """
        with _failures_said("use the GPU"):
            _, before = self._driver.cuCtxGetCurrent()
            self._device.set_current()
        try:
            yield
        finally:
            self._driver.cuCtxSetCurrent(before)

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
        self._check_place(array)
        try:
            view = self._core.utils.StridedMemoryView.from_any_interface(array, stream_ptr=self.stream)
            shape, strides, dtype = tuple(view.shape), view.strides, view.dtype
        except Exception as error:  # of any library
            raise InputError(
                f"The {type(array).__name__} on the GPU was not taken.", why=one_line(error), fix=COPY_TO_HOST
            ) from error
        if not view.is_device_accessible or view.device_id != self._ordinal:
            raise self._elsewhere(array, view.device_id)
        return DeviceFrame(int(view.ptr), shape, dtype, None if strides is None else tuple(strides), (view, array))

    def _check_place(self, array: Any) -> None:
        """Refuse arrays of another GPU or context before any order is kept with their streams: CUDA's words would say less.

        Raises:
            InputError: The array is one.
        """
        gpu = gpu_of(array)
        if gpu is not None:
            if gpu != self._ordinal:
                raise self._elsewhere(array, gpu)
            return
        address, driver = array.__cuda_array_interface__["data"][0], self._driver
        wanted = driver.CUpointer_attribute
        status, gpu = driver.cuPointerGetAttribute(wanted.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address)
        if int(status) == 0 and int(gpu) != self._ordinal:
            raise self._elsewhere(array, int(gpu))
        status, context = driver.cuPointerGetAttribute(wanted.CU_POINTER_ATTRIBUTE_CONTEXT, address)
        _, own = driver.cuCtxGetCurrent()
        if int(status) == 0 and int(context) not in (0, int(own)):  # memory of pools belongs to none
            raise InputError(
                f"The {type(array).__name__} lies in another CUDA context.",
                why="the backend works in the GPU's primary context, as torch and CuPy do",
                fix=f"with PyCUDA, import pycuda.autoprimaryctx in place of pycuda.autoinit; or {COPY_TO_HOST}",
            )

    def _elsewhere(self, array: Any, gpu: int) -> InputError:
        return InputError(
            f"The {type(array).__name__} is not on this backend's GPU.",
            why=f"it is on GPU {gpu}, and the backend runs on GPU {self._ordinal}",
            fix=f"make it on the first GPU that CUDA offers (CUDA_VISIBLE_DEVICES chooses), or {COPY_TO_HOST}",
        )

    def foreign_buffer(self, array: DeviceFrame, size: int) -> Any:
        """The first bytes of another library's array, as a buffer."""
        return self._view(array.address, size, owner=array.owner)

    def strided(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """The first bytes of a buffer as an array that speaks DLPack; for any thread, at any time."""
        size = int(np.prod(shape)) * dtype.itemsize
        with self.active():
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
                with contextlib.suppress(Exception):  # the first failure is the one to report
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
        with contextlib.ExitStack() as meanwhile:
            with contextlib.suppress(Exception):  # a failed GPU must not keep anything from being freed
                meanwhile.enter_context(self.active())
            with contextlib.suppress(Exception):
                self._stream.sync()
            for part in (*self._graphs, *self._buffers, self._stream, self._pool):
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
