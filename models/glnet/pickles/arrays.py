"""Arrays and numbers of a pickle, from its records of numpy's objects: plain numbers alone.

Numpy's own types are not made from a pickle: the state of a forged ``dtype`` may declare raw bytes to be Python objects.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet.pickles.machine import Name, PickledObject

DEEPEST = 8
"""Levels of lists, or of objects that wrap an array."""

SPARE_NUMBERS = 1 << 22
"""Numbers that a conversion may give beyond four for each byte of the file: sparse matrices are small in it."""

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")


class Conversion:
    """Turns values of one pickle into arrays, and bounds what all of them together may cost.

    Args:
        kinds: What turns an object into an array, by the class or function that made it.
        file_size: Bytes of the file.
    """

    def __init__(self, kinds: Mapping[Name, Callable[[PickledObject, Conversion], NDArray[Any]]], file_size: int) -> None:
        self._kinds = kinds
        self._left = SPARE_NUMBERS + 4 * file_size
        self._depth = 0

    def spend(self, numbers: int) -> None:
        """Say that so many numbers are about to be made.

        Raises:
            pickle.UnpicklingError: They are more than a file of this size holds.
        """
        self._left -= numbers + 1
        if self._left < 0:
            raise pickle.UnpicklingError("it stands for more numbers than a file of its size holds")

    def array(self, value: Any) -> NDArray[Any]:
        """A value as an array: an object that stands for one, a number, a text, or nested lists of numbers.

        Raises:
            pickle.UnpicklingError: It stands for no array.
        """
        self._depth += 1
        if self._depth > DEEPEST:
            raise pickle.UnpicklingError("it is nested too deeply")
        try:
            if isinstance(value, PickledObject):
                if value.kind not in self._kinds:
                    raise pickle.UnpicklingError(f"it is a {value.kind}, which is not read as numbers")
                return self._kinds[value.kind](value, self)
            if type(value) in (list, tuple):
                return self._of_lists(value)
            self.spend(1)
            if not isinstance(value, int | float | str | bytes):
                raise pickle.UnpicklingError(f"it is a {type(value).__name__}, not numbers")
            return _of_numbers(value)
        finally:
            self._depth -= 1

    def _of_lists(self, value: Any) -> NDArray[Any]:
        """Nested lists, level by level: a list may hold itself, or the same one a thousand times."""
        shape: list[int] = []
        level = [value]
        while all(type(each) in (list, tuple) for each in level):
            lengths = {len(each) for each in level}
            if len(lengths) != 1 or len(shape) == DEEPEST:
                raise pickle.UnpicklingError("it is lists of unequal lengths, or nested too deeply")
            shape.append(lengths.pop())
            self.spend(len(level) * shape[-1])
            level = [item for each in level for item in each]
            if not level:
                break
        if all(isinstance(each, int | float) for each in level):
            return _of_numbers(level).reshape(shape)
        if any(type(each) in (list, tuple) for each in level):
            raise pickle.UnpicklingError("it is lists beside other things")
        rows = [self.array(each) for each in level]
        return np.stack(rows).reshape(*shape, *rows[0].shape)

    def plain(self, value: Any) -> Any:
        """A value with arrays in place of the objects that stand for them, inside lists too.

        Raises:
            pickle.UnpicklingError: Something in it stands for no array.
        """
        if isinstance(value, PickledObject):
            return self.array(value)
        if type(value) not in (list, tuple):
            return value
        self._depth += 1
        if self._depth > DEEPEST:
            raise pickle.UnpicklingError("it is nested too deeply")
        self.spend(len(value))
        try:
            return [self.plain(item) for item in value]
        finally:
            self._depth -= 1


def _of_numbers(value: Any) -> NDArray[Any]:
    found = np.asarray(value)
    if found.dtype.kind == "O":  # whole numbers beyond 64 bits
        raise pickle.UnpicklingError("it holds a number that is too large")
    return found


def _dtype(record: Any) -> np.dtype[Any]:
    """A dtype of plain numbers."""
    if not isinstance(record, PickledObject) or record.kind != Name("numpy", "dtype"):
        raise pickle.UnpicklingError("it holds an array of something else than raw numbers")
    code = record.arguments[0] if record.arguments else None
    code = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
        shown = repr(code)[:20] if isinstance(code, str) else "an unknown kind"
        raise pickle.UnpicklingError(f"it holds an array of type {shown}, not of numbers")
    order: Any = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "|"
    order = order.decode("latin1") if isinstance(order, bytes) else order
    if order not in ("<", ">", "|", "="):
        raise pickle.UnpicklingError("it holds an array of an unknown byte order")
    found: np.dtype[Any] = np.dtype(code).newbyteorder(order)
    return found


def _numbers(dtype: Any, data: Any, shape: Any, fortran: bool, conversion: Conversion | None = None) -> NDArray[Any]:
    """An array of raw bytes whose length has been checked."""
    resolved = _dtype(dtype)
    if (
        not isinstance(shape, tuple)
        or len(shape) > 32
        or not all(type(side) is int and 0 <= side < 1 << 62 for side in shape)
    ):
        raise pickle.UnpicklingError("it holds an array of an impossible shape")
    if conversion is not None:
        conversion.spend(math.prod(shape))
    if isinstance(data, str):
        data = data.encode("latin1")  # Python 2's strings
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("it holds an array of something else than raw numbers")
    if len(data) != math.prod(shape) * resolved.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, resolved).reshape(shape, order="F" if fortran else "C")


def _of_state(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``_reconstruct`` starts an array, and its state fills it."""
    if not isinstance(record.state, tuple) or len(record.state) != 5:
        raise pickle.UnpicklingError("an array has no content")
    _, shape, dtype, fortran, data = record.state
    return _numbers(dtype, data, shape, bool(fortran), conversion)


def _of_buffer(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``_frombuffer``, which newer pickles use."""
    if len(record.arguments) != 4:
        raise pickle.UnpicklingError("an array has no content")
    data, dtype, shape, order = record.arguments
    return _numbers(dtype, data, shape, order == "F", conversion)


ARRAYS: dict[Name, Callable[[PickledObject, Conversion], NDArray[Any]]] = {
    Name("numpy", "ndarray"): _of_state,
    **{Name(module, "_reconstruct"): _of_state for module in _MULTIARRAY},
    **{Name(module, "_frombuffer"): _of_buffer for module in _NUMERIC},
}
"""What turns numpy's objects into arrays, under the modules that have held them over the years."""


def _scalar(*arguments: Any) -> Any:
    """Numpy's number as Python's; what is none stays a record."""
    try:
        dtype, data = arguments
        return _numbers(dtype, data, (), False).item()
    except (pickle.UnpicklingError, ValueError):
        return PickledObject(Name("numpy", "generic"), arguments)


SCALARS: dict[Name, Callable[..., Any]] = {Name(module, "scalar"): _scalar for module in _MULTIARRAY}
"""What turns numpy's single numbers into Python's."""
