"""Numbers that others hand in, as float64, or refused: an array that is turned in silence shows only as a bad result."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError, one_line

_DEEPEST = 4
"""Lists in lists. A list may hold itself."""

_MOST = 1 << 22
"""Numbers at a time: a million boxes. An array that repeats one number may claim any size."""


def is_number(value: Any) -> bool:
    """Whether a value is one finite real number; true and false are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, ValueError):
        return False


def as_floats(values: Any, what: str, *, fix: str, up_to: float = 0) -> NDArray[np.float64]:
    """Numbers of any library as a new array; nothing is guessed.

    Tensors are taken without their gradients, in every type of floating point.

    Args:
        values: Array, tensor, number, or lists of them.
        what: What happened where they are no numbers, a sentence.
        fix: What the user can do about it.
        up_to: A number that may occur. Whole numbers of a type that does not reach so far have wrapped around elsewhere.

    Raises:
        InputError: They are text, true and false, complex, dates, masked, on a GPU, too many, or beyond floating point.
    """
    try:
        array = _array(_plain(values))
        if array.dtype.kind in "iu" and np.iinfo(array.dtype).max < up_to:
            raise TypeError(f"their type, {array.dtype}, ends at {np.iinfo(array.dtype).max}: they may have wrapped around")
        with np.errstate(all="ignore"):  # infinity is for the caller to judge
            return np.array(array, np.float64)
    except Exception as error:  # arrays of other libraries raise what they like
        raise InputError(what, why=one_line(error), fix=fix) from error


def _plain(values: Any, depth: int = 0) -> Any:
    """The same without gradients, and without what NumPy would take for numbers."""
    if isinstance(values, list | tuple):
        if depth > _DEEPEST or len(values) > _MOST:
            raise ValueError("there are too many lists in lists" if depth > _DEEPEST else f"they are {len(values)} items")
        return [_plain(each, depth + 1) for each in values]
    if isinstance(values, bool | np.bool_):
        raise TypeError(f"{values} is not a number")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError("some of them are masked")
    if hasattr(values, "detach"):  # a tensor of torch, which is not imported here
        values = values.detach()
        if "bfloat16" in str(values.dtype) or "float8" in str(values.dtype):  # NumPy has no such types
            values = values.float()
    return values


def _array(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size > _MOST:
        raise ValueError(f"they are {array.size} numbers")
    if array.dtype.kind == "O":  # whole numbers of any length, fractions, decimals
        wrong = next((each for each in array.ravel() if not _is_real(each)), None)
        if wrong is not None or None in array:
            raise TypeError(f"one is a {type(wrong).__name__}")
    # Libraries bring further types of floating point along, which NumPy counts among its own as "V".
    elif array.dtype.kind not in "iuf" and not (array.dtype.kind == "V" and "float" in array.dtype.name):
        raise TypeError(f"their type is {array.dtype}")
    return array


def _is_real(value: Any) -> bool:
    # A decimal calls itself no real number, and turns into one exactly.
    return not isinstance(value, bool) and (isinstance(value, numbers.Real) or type(value).__name__ == "Decimal")
