"""Inputs and outputs that a bundle records for its engines, compared with those that an engine has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from glnet_infer.backends.tensorrt.choice import obstacle_to_cropping
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.records import EngineRecord, FileRecord
from glnet_infer.contract import CROP_INPUTS, CROP_OUTPUTS, SMALLEST_FRAME, TensorSpec

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""NumPy's names of TensorRT's types; others, bfloat16 say, NumPy has not."""

ANY = -1
"""Marks a side of a shape that the engine does not fix."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: Name in the manifest.
        dtype: NumPy's name of its type.
        shape: With :data:`ANY` for the batch, and for what else is not fixed.
        is_input: Or else an output.
        least: An input's smallest shape.
        most: Its largest.
    """

    name: str
    dtype: str
    shape: Shape
    is_input: bool
    least: Shape = ()
    most: Shape = ()

    @property
    def row(self) -> Shape:
        """The shape of one crop, without the batch."""
        return self.shape[1:]

    def size(self, crops: int) -> int:
        """Bytes of a batch."""
        return crops * math.prod(self.row) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class EngineFile:
    """An engine's file, and what the manifest promises of it.

    Attributes:
        most_crops: Most crops of one call.
    """

    record: FileRecord
    tensors: tuple[EngineTensor, ...]
    most_crops: int


def main_engine(bundle: Bundle, record: EngineRecord) -> EngineFile:
    """The engine that runs the graph."""
    manifest = bundle.manifest
    tensors = _tensors(bundle, record, manifest.inputs, manifest.outputs)
    return EngineFile(record.file, tensors, record.profile[2])


def crop_engine(bundle: Bundle, record: EngineRecord) -> EngineFile | None:
    """The engine that cuts crops; None where the bundle has none that cuts as ``glnet_infer.crops`` does."""
    if record.crop is None or obstacle_to_cropping(bundle, record):
        return None
    return EngineFile(record.crop.file, _tensors(bundle, record, CROP_INPUTS, CROP_OUTPUTS), record.profile[2])


def problems_of(engine: Any, trt: Any, recorded: EngineFile) -> list[str]:
    """Differences between TensorRT's engine and the record, in words."""
    modes = trt.TensorIOMode
    found = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    expected = {tensor.name: tensor for tensor in recorded.tensors}
    problems = [f"it lacks {name}" for name in expected if name not in found]
    problems += [f"it has {name}, which the graph has not" for name in found if name not in expected]
    for name in found:
        if name not in expected:
            continue
        tensor, shape = expected[name], tuple(engine.get_tensor_shape(name))
        dtype = engine.get_tensor_dtype(name).name
        if (engine.get_tensor_mode(name) == modes.INPUT) != tensor.is_input:
            problems.append(f"{name} is not an {'input' if tensor.is_input else 'output'}")
        if DTYPES.get(dtype) != tensor.dtype:
            problems.append(f"{name} is {dtype}, not {tensor.dtype}")
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            problems.append(f"{name} is not in the GPU's memory")
        # A side that the profile fixes may be told as a number: the profile is compared below.
        if len(shape) != len(tensor.shape) or any(
            right != ANY and side not in (ANY, right) for side, right in zip(shape, tensor.shape, strict=True)
        ):
            problems.append(f"{name} is {shape}, not {tensor.shape}")
        if tensor.is_input:
            least, _, most = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))
            if (least, most) != (tensor.least, tensor.most):
                promise = f"{tensor.least} to {tensor.most}"
                problems.append(f"its profile of {name} is {least} to {most}, and the manifest says {promise}")
    return problems


def _tensors(
    bundle: Bundle, record: EngineRecord, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> tuple[EngineTensor, ...]:
    """Specifications with numbers for letters."""
    width, height = record.crop.largest_frame if record.crop is not None else (0, 0)
    least: dict[str | int, int] = {"N": record.profile[0], "H": SMALLEST_FRAME, "W": SMALLEST_FRAME}
    most: dict[str | int, int] = {"N": record.profile[2], "H": height, "W": width}
    fixed: dict[str | int, int] = {"C": bundle.manifest.crop.size}

    def shape(spec: TensorSpec, sides: dict[str | int, int]) -> Shape:
        known = {**fixed, **sides}
        return tuple(side if isinstance(side, int) else known.get(side, ANY) for side in spec.shape)

    return (
        *(EngineTensor(s.name, s.dtype, shape(s, {}), True, shape(s, least), shape(s, most)) for s in inputs),
        *(EngineTensor(s.name, s.dtype, shape(s, {}), False) for s in outputs),
    )
