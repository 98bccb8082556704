"""Tensors as a checkpoint describes them: shape, type and place. Their numbers are read later, if at all."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from glnet.pickles import ARRAYS, SCALARS, InertUnpickler, Name, PickledObject

MOST_DIMENSIONS = 16
LARGEST_SIZE = 1 << 48  # bytes of a storage, or numbers along an axis


@dataclass(frozen=True)
class Storage:
    """Bytes of a checkpoint that tensors are views of.

    Attributes:
        key: Its name in the file.
        size: How many bytes there are.
        start: Byte where this view of it begins.
        dtype: Type of its numbers; None where the tensor says it.
    """

    key: str
    size: int
    start: int = 0
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A plain tensor in a file, of which no number has been read.

    Attributes:
        storage: The bytes.
        dtype: Type of the numbers.
        shape: Lengths.
        stride: Numbers from one element to the next, along each axis.
        offset: Numbers before the first element.
    """

    storage: Storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class OddTensor:
    """A tensor that no weights can be taken from; ``words`` say why, such as ``a sparse tensor``."""

    words: str


def is_tensor(value: Any) -> bool:
    """Whether a value of a checkpoint stands for a tensor, or for an array of numpy."""
    return isinstance(value, StoredTensor | OddTensor) or (isinstance(value, PickledObject) and value.kind in ARRAYS)


_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    )
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST_SIZE


def _are_counts(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS and all(_is_count(each) for each in value)


def stored(storage: Any, dtype: torch.dtype | None, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    """A tensor that lies within its storage.

    Raises:
        pickle.UnpicklingError: It does not, or is no tensor.
    """
    if not isinstance(storage, Storage) or dtype is None or not _is_count(offset):
        raise pickle.UnpicklingError("a tensor has no storage")
    if not _are_counts(shape) or not _are_counts(stride) or len(shape) != len(stride):
        raise pickle.UnpicklingError("a tensor has an impossible shape")
    last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    if 0 not in shape and (last + 1) * dtype.itemsize > storage.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    return StoredTensor(storage, dtype, shape, stride, offset)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    return stored(storage, getattr(storage, "dtype", None), offset, shape, stride)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> StoredTensor:
    found = _DTYPES.get(dtype.name) if isinstance(dtype, Name) and dtype.module == "torch" else None
    return stored(storage, found, offset, shape, stride)


def _itself(value: Any, *_: Any) -> Any:
    return value


def _size(lengths: Any = (), *_: Any) -> Any:
    return tuple(lengths) if isinstance(lengths, list | tuple) else ()


def _odd(words: str) -> Callable[..., OddTensor]:
    return lambda *_: OddTensor(words)


def _of_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with attributes of its own, or of a class of its own."""
    rebuild = _REBUILD.get(function) if isinstance(function, Name) else None
    return (
        rebuild(*arguments) if rebuild is not None and isinstance(arguments, tuple) else OddTensor("of a class of its own")
    )


def _in_torch(**functions: Callable[..., Any]) -> dict[Name, Callable[..., Any]]:
    return {Name("torch._utils", f"_rebuild_{name}"): function for name, function in functions.items()}


_REBUILD = _in_torch(
    tensor=_tensor,
    tensor_v2=_tensor,
    tensor_v3=_typed_tensor,
    parameter=_itself,
    parameter_with_state=_itself,
    device_tensor_from_numpy=_itself,
    device_tensor_from_cpu_tensor=_itself,
    xla_tensor=_itself,
    sparse_tensor=_odd("a sparse tensor"),
    qtensor=_odd("a quantised tensor"),
    nested_tensor=_odd("a nested tensor"),
    meta_tensor_no_storage=_odd("a tensor without values, of the meta device"),
    wrapper_subclass=_odd("of a class of its own"),
)


class TensorUnpickler(InertUnpickler):
    """Gives a checkpoint's content as data, tensors as descriptions of them.

    Attributes:
        storages: All storages that the pickle names, by their keys.
    """

    kind_of_file = "checkpoint"
    actions = {  # noqa: RUF012 - a table of the class, as in those that it extends
        **SCALARS,
        **_REBUILD,
        Name("torch", "Size"): _size,
        Name("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    }

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: Any) -> Any:
        """A storage, by what PyTorch writes of it: its class, key, device, length, and which part of it is meant."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            if isinstance(pid, tuple) and pid and pid[0] == "module":  # a class with its source, of old PyTorch
                return pid[1] if len(pid) > 1 else None
            raise pickle.UnpicklingError("it refers to what lies elsewhere")
        _, kind, key, _, length, *view = pid
        dtype = None
        if not isinstance(kind, Name) or (kind.name != "UntypedStorage" and kind.name not in _STORAGES):
            raise pickle.UnpicklingError("it holds numbers of an unknown type")
        dtype = _STORAGES.get(kind.name)
        width = 1 if dtype is None else dtype.itemsize
        if not isinstance(key, str) or len(key) > 64 or not _is_count(length):
            raise pickle.UnpicklingError("a storage has no name or length")
        whole = Storage(key, length * width, 0, dtype)
        if self.storages.setdefault(key, whole).size != whole.size:
            raise pickle.UnpicklingError("a storage has two lengths")
        if not view or view[0] is None:
            return whole
        part = view[0]
        if not isinstance(part, tuple) or len(part) != 3 or not _is_count(part[1]) or not _is_count(part[2]):
            raise pickle.UnpicklingError("a part of a storage has no length")
        if part[1] + part[2] > length:
            raise pickle.UnpicklingError("a part reaches beyond its storage")
        return Storage(key, part[2] * width, part[1] * width, dtype)
