"""TensorRT and TensorRT for RTX: the runtime's own backend, and a session on the same engine whose steps are timed."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from glnet_bench.machine.clocks import CudaEvents, Stopwatch
from glnet_bench.machine.cuda import CudaDriver
from glnet_bench.runners.base import Runner
from glnet_bench.runners.staged import StagedCalls
from glnet_infer.backends import Outputs
from glnet_infer.backends.tensorrt import TensorRtBackend
from glnet_infer.backends.tensorrt.choice import choose_engine
from glnet_infer.backends.tensorrt.device_memory import DeviceMemory
from glnet_infer.backends.tensorrt.engines import EnginePair
from glnet_infer.backends.tensorrt.execution import Execution, Steps
from glnet_infer.backends.tensorrt.products import PRODUCTS
from glnet_infer.bundle import Bundle


def open_tensorrt(bundle: Bundle, stopwatch: Stopwatch | None = None) -> Runner:
    """Open both, each with its own copy of the engine's weights.

    Args:
        bundle: Bundle with engines of one flavor.
        stopwatch: Clock to use in place of CUDA events.

    Raises:
        BackendError: No GPU, no TensorRT, or no engine that fits both.
    """
    choice = choose_engine(bundle)
    record = choice.record
    with contextlib.ExitStack() as opened:
        backend = opened.enter_context(TensorRtBackend(bundle))
        memory = DeviceMemory(PRODUCTS[record.runtime].extra)
        opened.callback(memory.close)
        with memory.active():
            steps = SessionSteps(EnginePair(bundle, choice), memory)
        opened.callback(steps.close)
        stopwatch = stopwatch or CudaEvents(CudaDriver().start(), memory.stream)
        opened.callback(stopwatch.close)
        close = opened.pop_all().close

    return Runner(
        name=record.flavor,
        backend=backend,
        staged=StagedCalls(record.flavor, steps, stopwatch),
        device="cuda",
        precision=record.precision,
        clock=stopwatch.what,
        description=f"{PRODUCTS[record.runtime].title} {choice.trt.__version__}, {record.file.file}",
        most_crops=record.profile[2],
        close=close,
    )


class SessionSteps:
    """A session's work in three steps, so that the engine can be timed alone.

    The product's CUDA graph holds copies and engine; here the graph holds the engine alone.
    """

    def __init__(self, engine: EnginePair, memory: DeviceMemory) -> None:
        self._engine = engine
        self._memory = memory
        self._execution = Execution(engine, memory)
        self._count = 0

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._count = len(crops)
        self._execution.inputs["crops"][: self._count] = crops
        self._execution.inputs["cameras"][: self._count] = cameras
        with self._memory.active():
            self._execution.queue(self._count, Steps.CROPS | Steps.CAMERAS)

    def execute(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        with self._memory.active():
            self._execution.queue(self._count, Steps.ENGINE)

    def download(self) -> Outputs:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        with self._memory.active():
            self._execution.queue(self._count, Steps.OUTPUTS)
            self._memory.synchronize()
        return {name: array[: self._count].copy() for name, array in self._execution.outputs.items()}

    def close(self) -> None:
        """Let the session and the engine go. Calling it twice is allowed."""
        if not self._execution.inputs:
            return
        with self._memory.active():
            self._execution.close()
            self._engine.release()
