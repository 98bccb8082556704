"""TensorRT, TensorRT for RTX and TensorRT's lean runtime, on an NVIDIA GPU."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends import device_memory
from glnet_infer.backends.base import Outputs
from glnet_infer.backends.engine import Engine
from glnet_infer.backends.engine_choice import choose_engine
from glnet_infer.backends.session import Session
from glnet_infer.backends.tensorrt_module import EXTRAS
from glnet_infer.bundle import Bundle
from glnet_infer.errors import BackendError


class TensorRtBackend:
    """Runs the bundle's engine for this machine's first GPU.

    A batch is padded to the next bucket (1, 2, 4, ... and the most that the engine takes) and the results cut; a larger
    batch is run in pieces. The first run of every bucket is slow.

    One thread at a time may use it: :meth:`clone` makes another on the same engine for another thread.

    Args:
        bundle: The opened bundle.
        cuda_graphs: Replay the work from CUDA graphs: one launch in place of hundreds.
        cache_directory: Where TensorRT for RTX keeps the kernels that it compiled. None: the bundle's own ``cache``
            folder, or ``~/.cache/glnet-infer`` where the bundle cannot be written.

    Raises:
        BundleError: The engine's file is missing or damaged.
        BackendError: No GPU, no TensorRT, no engine that fits both, or TensorRT refuses it; TensorRT's own words are in the
            message.
    """

    def __init__(self, bundle: Bundle, *, cuda_graphs: bool = True, cache_directory: Path | None = None) -> None:
        choice = choose_engine(bundle)
        memory = device_memory.DeviceMemory(EXTRAS[choice.record.flavor])
        try:
            self._start(Engine(bundle, choice, cuda_graphs, cache_directory), memory)
        except BaseException:
            memory.close()
            raise

    def _start(self, engine: Engine, memory: device_memory.DeviceMemory) -> None:
        """Take over a share of an engine, given back if that fails, and memory for it."""
        self._lock = threading.Lock()
        self._engine = engine
        self._memory = memory
        self._session: Session | None = None
        self.name = engine.name
        try:
            self._session = Session(engine, memory)
        except BaseException:
            engine.release()
            raise

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes that are run."""
        return self._open().sizes

    def __repr__(self) -> str:
        record = self._engine.record
        return f"TensorRtBackend({record.file.file}, {record.precision}, {self.name}, {self._engine.gpu.name})"

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`; not while another thread runs this backend."""
        if not self._lock.acquire(blocking=False):
            raise BackendError(
                f"The {self.name} backend is running in another thread.",
                why="one execution context serves one thread at a time",
                fix="give each thread its own backend on the same engine, with clone()",
            )
        try:
            session = self._open()
            given: dict[str, NDArray[Any]] = {"crops": crops, "cameras": cameras}
            self._check(given, session)
            self._memory.activate()
            count, most = len(crops), self._engine.most_crops
            results = {
                name: np.empty((count, *array.shape[1:]), dtype=array.dtype) for name, array in session.outputs.items()
            }
            for start in range(0, count, most):
                stop = min(start + most, count)
                for name, array in given.items():
                    session.inputs[name][: stop - start] = array[start:stop]
                session.run(stop - start)
                for name, result in results.items():
                    result[start:stop] = session.outputs[name][: stop - start]
            return results
        finally:
            self._lock.release()

    def clone(self) -> TensorRtBackend:
        """Another backend on the same engine, with a context, a stream and buffers of its own, for another thread.

        The engine's weights are on the GPU once. Each clone is closed by itself, in any order.

        Raises:
            BackendError: This backend is closed, or the GPU's memory does not suffice.
        """
        self._open()
        memory = device_memory.DeviceMemory(EXTRAS[self._engine.record.flavor])
        try:
            self._engine.share()
            other = TensorRtBackend.__new__(TensorRtBackend)
            other._start(self._engine, memory)
        except BaseException:
            memory.close()
            raise
        return other

    def close(self) -> None:
        """Free what the backend holds, once a run in another thread is over. Calling it twice is allowed."""
        with self._lock:
            session, self._session = self._session, None
            if session is None:
                return
            try:
                self._memory.activate()
                self._engine.release()
            finally:
                session.close()

    def __enter__(self) -> TensorRtBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Session:
        if self._session is None:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new one")
        return self._session

    def _check(self, given: dict[str, NDArray[Any]], session: Session) -> None:
        """Refuse arrays that NumPy would convert or stretch to the inputs' shapes."""
        for name, array in given.items():
            wanted = session.inputs[name]
            if array.dtype != wanted.dtype or array.shape != (len(given["crops"]), *wanted.shape[1:]):
                raise BackendError(
                    f"{self.name} failed on {len(given['crops'])} crops.",
                    why=f"{name} is {array.dtype} {array.shape}, and must be {wanted.dtype} N x "
                    + " x ".join(str(side) for side in wanted.shape[1:]),
                    fix="cut crops with glnet_infer.crops",
                )
