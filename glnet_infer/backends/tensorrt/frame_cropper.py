"""Crops cut out of a frame on the GPU, into the buffer that the main engine reads them from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import Frame
from glnet_infer.backends.tensorrt.contexts import bind_shapes, new_context, set_addresses
from glnet_infer.backends.tensorrt.device_memory import DeviceMemory
from glnet_infer.backends.tensorrt.engines import LoadedEngine
from glnet_infer.backends.tensorrt.tensors import Shape
from glnet_infer.contract import CROP_REDUCTIONS, NO_SQUARE
from glnet_infer.device_arrays import DeviceFrame

ALIGNMENT = 256
"""Bytes that TensorRT asks of addresses (IExecutionContext::setTensorAddress)."""

WHOLE_FRAME = ((0, 0, 1, 1), *(NO_SQUARE for _ in CROP_REDUCTIONS[1:]))
"""The square of padding before it holds any crop's: middle and half sides of the frame itself, which is not reduced."""


class FrameCropper:
    """Uploads frames and runs the crop engine on them. Used by one thread at a time.

    The buffers for frames grow with the largest frame that came; the engine's scratch memory is for the largest that may.

    Args:
        engine: The crop engine.
        memory: The GPU's memory; who closes it frees what is allocated here.

    Raises:
        BackendError: TensorRT or CUDA refuses.

    Attributes:
        squares: Pinned array for the largest batch: fill the first rows, then :meth:`queue`.
        crops: Buffer on the GPU that the crops are written to.
    """

    def __init__(self, engine: LoadedEngine, memory: DeviceMemory) -> None:
        self._engine = engine
        self._memory = memory
        tensors = {tensor.name: tensor for tensor in engine.tensors}
        self._frame, self._squares, self._crops = tensors["frame"], tensors["squares"], tensors["crops"]
        most = engine.most_crops
        self._scratch: Any = memory.allocate(engine.scratch_size) if engine.scratch_size else None
        self._context: Any = new_context(engine, self._scratch)
        self._bound: tuple[int, Shape] | None = None
        self._bind(most, self._frame.most)
        reach = int(self._context.get_max_output_size("crops"))
        self.crops = memory.allocate(max(self._crops.size(most), reach))
        self._device_squares = memory.allocate(self._squares.size(most))
        self._host_squares, data = memory.allocate_staging(self._squares.size(most))
        self.squares: NDArray[np.float32] = data.view(np.float32).reshape(most, *self._squares.row)
        self.squares[:] = WHOLE_FRAME
        self._staging: tuple[Any, NDArray[np.uint8]] | None = None
        self._device_frame: Any = None
        self._host_crops: tuple[Any, NDArray[np.uint8]] | None = None
        self._shape: Shape = ()

    def obstacle(self, width: int, height: int) -> str:
        """Why the engine does not take a frame of this size; empty where it does."""
        (least, *_), (most_height, most_width, _) = self._frame.least, self._frame.most
        if width > most_width or height > most_height:
            return (
                f"the crop engine was built for frames up to {most_width} x {most_height}, and this is {width} x {height}"
            )
        if min(width, height) < least:
            return f"the crop engine was built for frames with sides from {least} on, and this is {width} x {height}"
        return ""

    def load(self, frame: Frame) -> None:
        """Take a frame, H x W x 3, for the crops to come; the work on an earlier one must be over."""
        self._shape = tuple(frame.shape)
        size = int(np.prod(self._shape))
        if isinstance(frame, DeviceFrame):
            source = self._memory.foreign_buffer(frame, size)
            if frame.address % ALIGNMENT == 0:
                self._set_frame(source)
                return
        else:
            source = self._staged(frame, size)
        target = self._memory.part(self._buffer(size), size)
        self._memory.copy(target, source)
        self._set_frame(target)

    def queue(self, size: int) -> None:
        """Queue the cutting of so many crops, by the first rows of the squares, out of the loaded frame."""
        self._bind(size, self._shape)
        part, count = self._memory.part, self._squares.size(size)
        self._memory.copy(part(self._device_squares, count), part(self._host_squares, count))
        mark = self._engine.log.mark()
        if not self._context.execute_async_v3(self._memory.stream):
            raise self._engine.failure(f"does not cut {size} crops", mark)

    def fetch(self, size: int) -> NDArray[np.uint8]:
        """Wait for the queued crops and bring so many to the host; valid until the next call."""
        if self._host_crops is None:
            self._host_crops = self._memory.allocate_staging(self._crops.size(self._engine.most_crops))
        buffer, array = self._host_crops
        part, count = self._memory.part, self._crops.size(size)
        self._memory.copy(part(buffer, count), part(self.crops, count))
        self._memory.synchronize()
        return array[:count].reshape(size, *self._crops.row)

    def close(self) -> None:
        """Let the context go; its memory is freed by who closes that."""
        self._context, self._bound = None, None

    def _bind(self, size: int, frame: Shape) -> None:
        if self._bound == (size, frame):
            return
        self._bound = None
        shapes = {"frame": frame, "squares": (size, *self._squares.row), "crops": (size, *self._crops.row)}
        bind_shapes(self._engine, self._context, size, shapes)
        self._bound = size, frame

    def _set_frame(self, frame: Any) -> None:
        buffers = {"frame": frame, "squares": self._device_squares, "crops": self.crops}
        set_addresses(self._engine, self._context, buffers)

    def _staged(self, frame: NDArray[np.uint8], size: int) -> Any:
        """A frame of the host in pinned memory."""
        if self._staging is None or self._staging[1].size < size:
            if self._staging is not None:
                self._memory.free(self._staging[0])
                self._staging = None
            self._staging = self._memory.allocate_staging(size)
        buffer, array = self._staging
        array[:size].reshape(frame.shape)[:] = frame
        return self._memory.part(buffer, size)

    def _buffer(self, size: int) -> Any:
        """The buffer for frames, large enough."""
        if self._device_frame is None or self._device_frame.size < size:
            if self._device_frame is not None:
                self._memory.free(self._device_frame)
                self._device_frame = None
            self._device_frame = self._memory.allocate(size)
        return self._device_frame
