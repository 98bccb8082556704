"""TensorRT, TensorRT for RTX and TensorRT's lean runtime, on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import DeviceOutputs, Frame
from glnet_infer.backends.tensorrt import device_memory
from glnet_infer.backends.tensorrt.choice import choose_engine
from glnet_infer.backends.tensorrt.engines import EnginePair
from glnet_infer.backends.tensorrt.execution import OF_CROPS, OF_FRAME, Execution, Steps
from glnet_infer.backends.tensorrt.frame_cropper import FrameCropper
from glnet_infer.backends.tensorrt.products import PRODUCTS
from glnet_infer.backends.tensorrt.tensors import EngineTensor
from glnet_infer.bundle import Bundle
from glnet_infer.device_arrays import DeviceArray, DeviceFrame, DeviceMeshes, Lease
from glnet_infer.errors import BackendError
from glnet_infer.forks import HomeProcess, OfThisProcess, keep_for_ever


class TensorRtBackend(OfThisProcess):
    """Runs the bundle's engine for this machine's first GPU.

    A batch is padded to the next bucket (1, 2, 4, ... and the most that the engine takes) and the results cut; a larger
    batch is run in pieces. The first run of every bucket is slow. Where the bundle has a crop engine, crops are cut on the
    GPU, from frames of the host or of the GPU.

    One thread at a time may use it: :meth:`clone` makes another on the same engine for another thread.

    Args:
        bundle: The opened bundle.
        int8: Run an engine in int8, which is never taken otherwise.
        cuda_graphs: Replay the work from CUDA graphs: one launch in place of hundreds.
        cache_directory: Where TensorRT for RTX keeps the kernels that it compiled. None: the bundle's own ``cache``
            folder, or ``~/.cache/glnet-infer`` where the bundle cannot be written.

    Raises:
        BundleError: The engine's file is missing or damaged.
        BackendError: No GPU, no TensorRT, no engine that fits both, or TensorRT refuses it; TensorRT's own words are in the
            message.
    """

    def __init__(
        self, bundle: Bundle, *, int8: bool = False, cuda_graphs: bool = True, cache_directory: Path | None = None
    ) -> None:
        choice = choose_engine(bundle, int8)
        memory = device_memory.DeviceMemory(PRODUCTS[choice.record.runtime].extra)
        try:
            with memory.active():
                self._start(EnginePair(bundle, choice, cuda_graphs, cache_directory), memory)
        except BaseException:
            memory.close()
            raise

    def _start(self, engine: EnginePair, memory: device_memory.DeviceMemory) -> None:
        """Take over a share of an engine, given back if that fails, and memory for it."""
        self._home = HomeProcess()
        self._lock = threading.Lock()
        self._runner: int | None = None  # the thread that runs it
        self._closes_after_run = False
        self._engine = engine
        self._memory = memory
        self._execution: Execution | None = None
        self._cropper: FrameCropper | None = None
        self._lease = Lease()
        self.name = engine.name
        try:
            if engine.crop is not None:
                self._cropper = FrameCropper(engine.crop, memory)
            self._execution = Execution(engine, memory, None if self._cropper is None else self._cropper.crops)
        except BaseException:
            engine.release()
            raise
        # Also for who forgets to close: compiled kernels are kept, and TensorRT's threads are gone before the interpreter.
        self._let_go = weakref.finalize(self, _let_go, self._home, self._execution, self._cropper, engine, memory)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes that are run."""
        return self._open().sizes

    @property
    def batch_size(self) -> int:
        """Number of crops that suit it in one call: the most that the engine takes."""
        return self._engine.main.most_crops

    def __repr__(self) -> str:
        record = self._engine.record
        return f"TensorRtBackend({record.file.file}, {record.precision}, {self.name}, {self._engine.gpu.name})"

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> DeviceOutputs:
        """See :class:`glnet_infer.backends.base.Backend`; not while another thread runs this backend."""
        with self._alone() as execution:
            self._check({"crops": crops, "cameras": cameras}, execution)
            self._lease.end("the backend was called again")

            def fill(rows: slice) -> None:
                execution.inputs["crops"][: len(crops[rows])] = crops[rows]

            return self._run_pieces(execution, cameras, fill, OF_CROPS)

    def frame_obstacle(self, width: int, height: int) -> str:
        """See :class:`glnet_infer.backends.base.FrameBackend`."""
        if self._cropper is None:
            return self._engine.crop_obstacle
        return self._cropper.obstacle(width, height)

    def view(self, array: Any) -> DeviceFrame:
        """See :class:`glnet_infer.backends.base.FrameBackend`."""
        with self._alone():
            return self._memory.foreign(array)

    def run_frame(self, frame: Frame, squares: NDArray[np.float32], cameras: NDArray[np.float32]) -> DeviceOutputs:
        """See :class:`glnet_infer.backends.base.FrameBackend`; not while another thread runs this backend."""
        with self._alone() as execution:
            cropper = self._cropper_for(frame)
            self._check({"squares": squares, "cameras": cameras}, execution)
            self._lease.end("the backend was called again")

            def fill(rows: slice) -> None:
                _queue_crops(cropper, execution, squares[rows])

            cropper.load(frame)
            return self._run_pieces(execution, cameras, fill, OF_FRAME)

    def cut(self, frame: Frame, squares: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The crops that :meth:`run_frame` would run: to look at, or to compare. Results on the GPU stay what they are.

        Args:
            frame: The frame, as in :meth:`run_frame`.
            squares: The crops' places, as in :meth:`run_frame`.

        Returns:
            N x C x C x 3, RGB.

        Raises:
            BackendError: It does not take the frame, or TensorRT or CUDA fails.
        """
        with self._alone() as execution:
            cropper = self._cropper_for(frame)
            self._check({"squares": squares}, execution)
            if len(squares):
                cropper.load(frame)
            crops = np.empty((len(squares), *execution.inputs["crops"].shape[1:]), dtype=np.uint8)
            for rows in self._pieces(len(squares)):
                _queue_crops(cropper, execution, squares[rows])
                crops[rows] = cropper.fetch(rows.stop - rows.start)
            return crops

    def _pieces(self, count: int) -> Iterator[slice]:
        """Rows of so many crops, at most as many at once as the engine takes."""
        most = self._engine.main.most_crops
        for start in range(0, count, most):
            yield slice(start, min(start + most, count))

    def _run_pieces(
        self, execution: Execution, cameras: NDArray[np.float32], fill: Callable[[slice], None], steps: Steps
    ) -> DeviceOutputs:
        """Run all crops, piece by piece.

        Args:
            execution: Runs the engine.
            cameras: Cameras of all crops, N x 4.
            fill: Brings some rows' crops into place.
            steps: The steps of the execution.
        """
        count = len(cameras)
        results = {
            name: np.empty((count, *array.shape[1:]), dtype=array.dtype) for name, array in execution.outputs.items()
        }
        for rows in self._pieces(count):
            here = rows.stop - rows.start
            execution.inputs["cameras"][:here] = cameras[rows]
            fill(rows)
            execution.run(here, steps)
            for name, result in results.items():
                result[rows] = execution.outputs[name][:here]
        if not 0 < count <= self._engine.main.most_crops:
            return DeviceOutputs(results, None)
        self._lease = Lease()
        return DeviceOutputs(results, self._device_meshes(execution, count))

    def _device_meshes(self, execution: Execution, count: int) -> DeviceMeshes:
        """Views of the first rows of an execution's results. They hold on to the backend: its end would be theirs."""

        def view(buffer: Any, tensor: EngineTensor) -> DeviceArray:
            shape, dtype = (count, *tensor.row), np.dtype(tensor.dtype)
            strided = functools.partial(self._strided, buffer, shape, dtype)
            return DeviceArray(int(buffer.handle), shape, dtype, self._lease, strided)

        return DeviceMeshes(**{name: view(*result) for name, result in execution.results().items()})

    def _strided(self, buffer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self._memory.strided(buffer, shape, dtype)

    def clone(self) -> TensorRtBackend:
        """Another backend on the same engine, with a context, a stream and buffers of its own, for another thread.

        The engine's weights are on the GPU once. Each clone is closed by itself, in any order.

        Raises:
            BackendError: This backend is closed, or the GPU's memory does not suffice.
        """
        self._open()
        memory = device_memory.DeviceMemory(PRODUCTS[self._engine.record.runtime].extra)
        try:
            self._engine.share()
            other = TensorRtBackend.__new__(TensorRtBackend)
            with memory.active():
                other._start(self._engine, memory)
        except BaseException:
            memory.close()
            raise
        return other

    def close(self) -> None:
        """Free what the backend holds, once a run is over. Calling it twice is allowed."""
        if self._runner == threading.get_ident():  # a signal's handler: the run that it interrupted goes on after it
            self._closes_after_run = True
            return
        with self._lock:
            self._execution = None
            self._lease.end("the backend was closed")
            self._let_go()

    def __enter__(self) -> TensorRtBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Execution:
        if self._execution is None:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new one")
        return self._execution

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Execution]:
        """The execution, for this thread alone.

        After a failure, whatever was queued is waited for: it may read the caller's memory.
        """
        self._home.check(f"{self.name} backend", "make the backend after the fork")
        if not self._lock.acquire(blocking=False):
            raise BackendError(
                f"The {self.name} backend is running in another thread.",
                why="one execution context serves one thread at a time",
                fix="give each thread its own backend on the same engine, with clone()",
            )
        self._runner = threading.get_ident()
        try:
            execution = self._open()
            with self._memory.active():
                try:
                    yield execution
                except BaseException:
                    self._memory.settle()
                    raise
        finally:
            self._runner = None
            self._lock.release()
            if self._closes_after_run:
                self.close()

    def _cropper_for(self, frame: Frame) -> FrameCropper:
        """The cropper, if it takes a frame."""
        height, width = frame.shape[:2]
        why = self.frame_obstacle(width, height)
        if not why and (len(frame.shape) != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8):
            why = f"it is {frame.dtype} {tuple(frame.shape)}, and must be uint8 H x W x 3"
        if why or self._cropper is None:
            raise BackendError(
                f"{self.name} cannot cut crops from this frame.", why=why, fix="cut crops with glnet_infer.crops"
            )
        return self._cropper

    def _check(self, given: dict[str, NDArray[Any]], execution: Execution) -> None:
        """Refuse arrays that NumPy would convert or stretch to the inputs' shapes."""
        count = len(next(iter(given.values())))
        inputs = {**execution.inputs, **({} if self._cropper is None else {"squares": self._cropper.squares})}
        for name, array in given.items():
            wanted = inputs[name]
            if array.dtype != wanted.dtype or array.shape != (count, *wanted.shape[1:]):
                raise BackendError(
                    f"{self.name} failed on {count} crops.",
                    why=f"{name} is {array.dtype} {array.shape}, and must be {wanted.dtype} N x "
                    + " x ".join(str(side) for side in wanted.shape[1:]),
                    fix="cut crops with glnet_infer.crops",
                )


def _queue_crops(cropper: FrameCropper, execution: Execution, squares: NDArray[np.float32]) -> None:
    """Queue the cutting of one piece's crops."""
    count = len(squares)
    cropper.squares[:count] = squares
    cropper.queue(execution.size_for(count))


def _let_go(
    home: HomeProcess,
    execution: Execution,
    cropper: FrameCropper | None,
    engine: EnginePair,
    memory: device_memory.DeviceMemory,
) -> None:
    """Free what a backend holds: contexts before the engine and its kernels, which they use, and memory last."""
    if not home.is_here:  # all of it is the parent's
        for part in (execution, cropper, engine, memory):
            keep_for_ever(part)
        return
    try:
        with memory.active():
            memory.settle()
            if cropper is not None:
                cropper.close()
            execution.close()
            engine.release()
    finally:
        memory.close()
