"""One thread's means to run an engine: contexts, buffers and CUDA graphs, by batch size."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from glnet_infer.backends.device_memory import DeviceMemory
from glnet_infer.backends.engine import Engine, EngineTensor
from glnet_infer.errors import one_line

_OWN_CAMERA = 1000 / 256
"""Focal length of the camera that padding has before it holds any crop's, in crop sides."""


def buckets(least: int, most: int) -> tuple[int, ...]:
    """Batch sizes that are run: the powers of two within the profile, and its largest."""
    powers = (1 << exponent for exponent in range(most.bit_length()))
    return (*(size for size in powers if least <= size < most), most)


class Session:
    """Runs batches of an engine's bucket sizes between fixed buffers. Used by one thread at a time.

    Args:
        engine: What to run.
        memory: The GPU's memory, which the session uses alone and closes.

    Raises:
        BackendError: TensorRT or CUDA refuses.

    Attributes:
        inputs: Pinned arrays for the largest batch, by name: fill the first rows, then :meth:`run`.
        outputs: Likewise; the first rows are the results, until the next run.
        sizes: The buckets.
    """

    def __init__(self, engine: Engine, memory: DeviceMemory) -> None:
        self._engine = engine
        self._memory = memory
        # A captured graph holds on to the shapes and the state of its context: NVIDIA's advice is a context for each.
        self._captures = engine.cuda_graphs and not engine.captures_itself
        self._contexts: dict[int, Any] = {}
        self._bound: dict[int, int] = {}
        self._graphs: dict[int, Any] = {}
        self._parts: dict[int, tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]] = {}
        self._device: dict[str, Any] = {}
        self._host: dict[str, Any] = {}
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}
        least, _, most = engine.record.profile
        self.sizes = buckets(least, most)
        # Contexts of one session never run at once, so they may work in the same memory.
        self._scratch: Any = memory.allocate(engine.scratch_size) if engine.scratch_size else None
        context = self._new_context(most)
        self._bind(context, most)
        for tensor in engine.tensors:
            self._allocate(tensor, context, most)
        self._set_addresses(context)
        # Rows beyond a batch keep what they hold: every byte is a crop's, but zeros are no camera.
        self.inputs["cameras"][:] = (_OWN_CAMERA, _OWN_CAMERA, 0, 0)

    def size_for(self, crops: int) -> int:
        """The smallest bucket that holds so many crops."""
        return next(size for size in self.sizes if size >= crops)

    def run(self, crops: int) -> None:
        """Run the first rows of the inputs.

        The first run of a size is slow: TensorRT allocates and chooses in it, which a graph must not hold, so the work is
        run once, waited for, and only then captured.
        """
        size = self.size_for(crops)
        context = self._context(size)
        if not self._captures:
            self._queue(context, size)
        else:
            if size not in self._graphs:
                self._queue(context, size)
                self._memory.synchronize()
                # The copies are in the graph: their buffers are pinned and fixed, and one launch replaces ten calls.
                self._graphs[size] = self._memory.capture(lambda: self._queue(context, size))
            self._memory.launch(self._graphs[size])
        self._memory.synchronize()

    def close(self) -> None:
        """Free everything."""
        self.inputs, self.outputs = {}, {}
        self._contexts, self._graphs, self._parts = {}, {}, {}
        self._memory.close()

    def _context(self, size: int) -> Any:
        """A context that is bound to a batch size and to the buffers."""
        context = self._contexts.get(self._key(size))
        if context is None:
            context = self._new_context(size)
            self._set_addresses(context)
        if self._bound.get(self._key(size)) != size:
            self._bind(context, size)
        return context

    def _key(self, size: int) -> int:
        """Which context a batch size is run in: its own where graphs are captured, else the only one."""
        return size if self._captures else 0

    def _new_context(self, size: int) -> Any:
        context = self._engine.new_context()
        if self._scratch is not None:
            context.set_device_memory(int(self._scratch.handle), self._engine.scratch_size)
        self._contexts[self._key(size)] = context
        return context

    def _bind(self, context: Any, size: int) -> None:
        """Set a context's batch size."""
        engine = self._engine
        self._bound.pop(self._key(size), None)
        mark = engine.log.mark()
        for tensor in engine.tensors:
            if tensor.is_input and not context.set_input_shape(tensor.name, (size, *tensor.shape)):
                raise engine.failure(f"refuses {size} {tensor.name}", mark)
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise engine.failure(f"finds no shapes for {size} crops", mark, one_line(error)) from error
        if missing:
            raise engine.failure(f"finds no shapes for {size} crops", mark, f"not specified: {', '.join(missing)}")
        for tensor in engine.tensors:
            shape = tuple(context.get_tensor_shape(tensor.name))
            if shape != (size, *tensor.shape):
                raise engine.failure(
                    f"would give {tensor.name} of shape {shape}", mark, f"the bundle promises {(size, *tensor.shape)}"
                )
        self._bound[self._key(size)] = size

    def _allocate(self, tensor: EngineTensor, context: Any, most: int) -> None:
        """A tensor's buffers on both sides, for the largest batch."""
        size = tensor.size(most)
        # TensorRT may write beyond the tensor's own bytes and says how far.
        reach = 0 if tensor.is_input else int(context.get_max_output_size(tensor.name))
        self._device[tensor.name] = self._memory.allocate(max(size, reach))
        self._host[tensor.name], data = self._memory.allocate_staging(size)
        array = data.view(tensor.dtype).reshape(most, *tensor.shape)
        (self.inputs if tensor.is_input else self.outputs)[tensor.name] = array

    def _set_addresses(self, context: Any) -> None:
        mark = self._engine.log.mark()
        for name, buffer in self._device.items():
            if not context.set_tensor_address(name, int(buffer.handle)):
                raise self._engine.failure(f"refuses the buffer of {name}", mark)

    def _queue(self, context: Any, size: int) -> None:
        """Queue the copies to the GPU, the engine and the copies back."""
        uploads, downloads = self._copies(size)
        for target, source in uploads:
            self._memory.copy(target, source)
        self._queue_engine(context, size)
        for target, source in downloads:
            self._memory.copy(target, source)

    def _queue_engine(self, context: Any, size: int) -> None:
        """Queue the engine alone."""
        mark = self._engine.log.mark()
        if not context.execute_async_v3(self._memory.stream):
            raise self._engine.failure(f"does not run {size} crops", mark)

    def _copies(self, size: int) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
        """Targets and sources of the copies of a batch size, before and after the engine."""
        if size not in self._parts:
            uploads, downloads = [], []
            for tensor in self._engine.tensors:
                device = self._memory.part(self._device[tensor.name], tensor.size(size))
                host = self._memory.part(self._host[tensor.name], tensor.size(size))
                if tensor.is_input:
                    uploads.append((device, host))
                else:
                    downloads.append((host, device))
            self._parts[size] = uploads, downloads
        return self._parts[size]
