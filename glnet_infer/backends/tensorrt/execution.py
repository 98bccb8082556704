"""One thread's means to run an engine: contexts, buffers and CUDA graphs, by batch size."""

from __future__ import annotations

import enum
from typing import Any

from numpy.typing import NDArray

from glnet_infer.backends.tensorrt.contexts import bind_shapes, new_context, set_addresses
from glnet_infer.backends.tensorrt.device_memory import DeviceMemory
from glnet_infer.backends.tensorrt.engines import EnginePair
from glnet_infer.backends.tensorrt.tensors import EngineTensor
from glnet_infer.contract import DEFAULT_CAMERA


class Steps(enum.Flag):
    """The steps of a batch, in their order."""

    CROPS = enum.auto()
    """Copy the crops to the GPU."""
    CAMERAS = enum.auto()
    """Copy the cameras to the GPU."""
    ENGINE = enum.auto()
    """Run the engine."""
    OUTPUTS = enum.auto()
    """Copy the results back."""


OF_CROPS = Steps.CROPS | Steps.CAMERAS | Steps.ENGINE | Steps.OUTPUTS
"""For crops of the host."""

OF_FRAME = OF_CROPS & ~Steps.CROPS
"""For crops that are on the GPU already."""


_UPLOADS = {"crops": Steps.CROPS, "cameras": Steps.CAMERAS}

_Key = tuple[int, Steps] | None


def buckets(least: int, most: int) -> tuple[int, ...]:
    """Batch sizes that are run: the powers of two within the profile, and its largest."""
    powers = (1 << exponent for exponent in range(most.bit_length()))
    return (*(size for size in powers if least <= size < most), most)


class Execution:
    """Runs batches of an engine's bucket sizes between fixed buffers. Used by one thread at a time.

    Args:
        engine: The engine to run.
        memory: The GPU's memory, which the execution uses alone; who closes it frees what is allocated here.
        crops: Buffer on the GPU that holds the crops, if something else writes there. None: it makes one.

    Raises:
        BackendError: TensorRT or CUDA refuses.

    Attributes:
        inputs: Pinned arrays for the largest batch, by name: fill the first rows, then :meth:`run`.
        outputs: Arrays on the host, by name; the first rows are the results, until the next run.
        sizes: The buckets.
    """

    def __init__(self, engine: EnginePair, memory: DeviceMemory, crops: Any = None) -> None:
        self._engine = engine.main
        self._memory = memory
        self._given = {} if crops is None else {"crops": crops}
        self._captures = engine.cuda_graphs and not self._engine.captures_itself
        self._contexts: dict[_Key, Any] = {}
        self._bound: dict[_Key, int] = {}
        self._graphs: dict[_Key, Any] = {}
        self._parts: dict[int, dict[str, tuple[Any, Any]]] = {}
        self._device: dict[str, Any] = {}
        self._host: dict[str, Any] = {}
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}
        least, _, most = engine.record.profile
        self.sizes = buckets(least, most)
        # Contexts of one execution never run at once, so they may work in the same memory.
        size = self._engine.scratch_size
        self._scratch: Any = memory.allocate(size) if size else None
        key = self._key(most, OF_CROPS)
        context = self._contexts[key] = new_context(self._engine, self._scratch)
        self._bind(context, most, key)
        for tensor in self._engine.tensors:
            self._allocate(tensor, context, most)
        set_addresses(self._engine, context, self._device)
        # Rows beyond a batch keep what they hold: every byte is a crop's, but zeros are no camera.
        self.inputs["cameras"][:] = DEFAULT_CAMERA  # padding has one before it holds any crop's

    def size_for(self, crops: int) -> int:
        """The smallest bucket that holds so many crops."""
        return next(size for size in self.sizes if size >= crops)

    def run(self, crops: int, steps: Steps = OF_CROPS) -> None:
        """Run the first rows of the inputs, and wait for the results."""
        self.queue(crops, steps)
        self._memory.synchronize()

    def queue(self, crops: int, steps: Steps) -> None:
        """Queue some steps for the first rows of the inputs; for those who time them one by one, too.

        The first run of a size is slow: TensorRT allocates and chooses in it, which a graph must not hold, so the work is
        run once, waited for, and only then captured.
        """
        size = self.size_for(crops)
        if Steps.ENGINE not in steps:
            self._queue_copies(size, steps)
            return
        key = self._key(size, steps)
        context = self._context(size, key)
        if not self._captures:
            self._queue(context, size, steps)
            return
        if key not in self._graphs:
            self._queue(context, size, steps)
            self._memory.synchronize()
            # The copies are in the graph: their buffers are pinned and fixed, and one launch replaces ten calls.
            self._graphs[key] = self._memory.capture(lambda: self._queue(context, size, steps))
        self._memory.launch(self._graphs[key])

    def results(self) -> dict[str, tuple[Any, EngineTensor]]:
        """The outputs' buffers on the GPU, by name; rows as in :attr:`outputs`."""
        return {tensor.name: (self._device[tensor.name], tensor) for tensor in self._engine.tensors if not tensor.is_input}

    def close(self) -> None:
        """Let contexts and graphs go; their memory is freed by who closes that."""
        self.inputs, self.outputs = {}, {}
        self._contexts, self._graphs, self._parts = {}, {}, {}

    def _key(self, size: int, steps: Steps) -> _Key:
        """Which context and graph a batch is run in: its own where there are graphs, else the only context.

        A graph holds on to the shapes and the state of its context: NVIDIA's advice is a context for each. TensorRT for RTX
        captures anew when the shapes of a context change, so it gets one for each size.
        """
        if self._captures:
            return size, steps
        return (size, Steps.ENGINE) if self._engine.captures_itself else None

    def _context(self, size: int, key: _Key) -> Any:
        """A context that is bound to a batch size and to the buffers."""
        context = self._contexts.get(key)
        if context is None:
            context = new_context(self._engine, self._scratch)
            set_addresses(self._engine, context, self._device)
            self._contexts[key] = context
        if self._bound.get(key) != size:
            self._bind(context, size, key)
        return context

    def _bind(self, context: Any, size: int, key: _Key) -> None:
        """Set a context's batch size."""
        self._bound.pop(key, None)
        bind_shapes(self._engine, context, size, {tensor.name: (size, *tensor.row) for tensor in self._engine.tensors})
        self._bound[key] = size

    def _allocate(self, tensor: EngineTensor, context: Any, most: int) -> None:
        """A tensor's buffers on both sides, for the largest batch."""
        size = tensor.size(most)
        # TensorRT may write beyond the tensor's own bytes and says how far.
        reach = 0 if tensor.is_input else int(context.get_max_output_size(tensor.name))
        given = self._given.get(tensor.name)
        self._device[tensor.name] = self._memory.allocate(max(size, reach)) if given is None else given
        self._host[tensor.name], data = self._memory.allocate_staging(size)
        array = data.view(tensor.dtype).reshape(most, *tensor.row)
        (self.inputs if tensor.is_input else self.outputs)[tensor.name] = array

    def _queue(self, context: Any, size: int, steps: Steps) -> None:
        self._queue_copies(size, steps & ~Steps.OUTPUTS)
        mark = self._engine.log.mark()
        if not context.execute_async_v3(self._memory.stream):
            raise self._engine.failure(f"does not run {size} crops", mark)
        self._queue_copies(size, steps & Steps.OUTPUTS)

    def _queue_copies(self, size: int, steps: Steps) -> None:
        """Queue the copies among some steps."""
        parts = self._copies(size)
        for tensor in self._engine.tensors:
            if (_UPLOADS[tensor.name] if tensor.is_input else Steps.OUTPUTS) in steps:
                self._memory.copy(*parts[tensor.name])

    def _copies(self, size: int) -> dict[str, tuple[Any, Any]]:
        """Target and source of each tensor's copy, for a batch size."""
        if size not in self._parts:
            parts = {}
            for tensor in self._engine.tensors:
                device = self._memory.part(self._device[tensor.name], tensor.size(size))
                host = self._memory.part(self._host[tensor.name], tensor.size(size))
                parts[tensor.name] = (device, host) if tensor.is_input else (host, device)
            self._parts[size] = parts
        return self._parts[size]
