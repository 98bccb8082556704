"""TensorRT's contexts: made, bound to shapes and buffers, every status checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glnet_infer.backends.tensorrt.engines import LoadedEngine
from glnet_infer.backends.tensorrt.tensors import Shape
from glnet_infer.errors import one_line


def new_context(engine: LoadedEngine, scratch: Any) -> Any:
    """A context that works in some memory on the GPU, or without where the engine needs none.

    Raises:
        BackendError: TensorRT makes none.
    """
    context = engine.new_context()
    if scratch is not None:
        context.set_device_memory(int(scratch.handle), engine.scratch_size)
    return context


def bind_shapes(engine: LoadedEngine, context: Any, crops: int, shapes: Mapping[str, Shape]) -> None:
    """Set the shapes of a context's inputs, and check those of its outputs.

    Args:
        engine: The context's engine.
        context: The context to bind.
        crops: Number of crops, for messages.
        shapes: Shapes of all tensors, by name.

    Raises:
        BackendError: TensorRT refuses them, or would give others.
    """
    mark = engine.log.mark()
    for tensor in engine.tensors:
        if tensor.is_input and not context.set_input_shape(tensor.name, shapes[tensor.name]):
            raise engine.failure(f"refuses {tensor.name} of shape {shapes[tensor.name]}", mark)
    try:
        missing = context.infer_shapes()
    except RuntimeError as error:
        raise engine.failure(f"finds no shapes for {crops} crops", mark, one_line(error)) from error
    if missing:
        raise engine.failure(f"finds no shapes for {crops} crops", mark, f"not specified: {', '.join(missing)}")
    for tensor in engine.tensors:
        shape = tuple(context.get_tensor_shape(tensor.name))
        if shape != shapes[tensor.name]:
            raise engine.failure(
                f"would give {tensor.name} of shape {shape}", mark, f"the bundle promises {shapes[tensor.name]}"
            )


def set_addresses(engine: LoadedEngine, context: Any, buffers: Mapping[str, Any]) -> None:
    """Tell a context where tensors lie.

    Raises:
        BackendError: TensorRT refuses an address.
    """
    mark = engine.log.mark()
    for name, buffer in buffers.items():
        if not context.set_tensor_address(name, int(buffer.handle)):
            raise engine.failure(f"refuses the buffer of {name}", mark)
