"""Reading SMPL's original pickles without chumpy or scipy, and without running their code.

A pickle is a program that names classes and functions. This reader gives it inert stand-ins and nothing else: not even
numpy's own types, which a forged pickle can turn against the process (a dtype's state may declare raw bytes to be Python
objects). Numbers are taken from the stand-ins afterwards, by code that checks them.
"""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import BodyError, first_line


class PickledObject:
    """An object that a pickle built, as data.

    Attributes:
        arguments: Arguments that the pickle called the class with.
        state: State that the pickle then set.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The numbers that the object stands for."""
        raise pickle.UnpicklingError(f"a {type(self).__name__} holds no numbers")


class DType(PickledObject):
    """Stand-in for ``numpy.dtype``: plain numbers alone, no objects, fields or metadata."""

    def resolve(self) -> np.dtype[Any]:
        """The dtype."""
        code = self.arguments[0] if self.arguments else None
        if isinstance(code, bytes):
            code = code.decode("latin1")
        if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}, not of numbers")
        order: Any = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "|"
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it holds an array of byte order {order!r}")
        dtype: np.dtype[Any] = np.dtype(code).newbyteorder(order)
        return dtype


def _numbers(dtype: Any, data: Any, shape: Any, fortran: bool) -> NDArray[Any]:
    """An array of raw bytes whose length has been checked."""
    if isinstance(data, str):
        data = data.encode("latin1")  # Python 2's strings
    if not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray | pickle.PickleBuffer):
        raise pickle.UnpicklingError("it holds an array of something else than raw numbers")
    resolved, data = dtype.resolve(), bytes(data)
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"it holds an array of shape {shape!r}")
    if len(data) != math.prod(shape) * resolved.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(data)} bytes")
    return np.frombuffer(data, resolved).reshape(shape, order="F" if fortran else "C")


class Array(PickledObject):
    """Stand-in for ``numpy.ndarray``: ``_reconstruct`` starts it, and its state fills it."""

    def array(self) -> NDArray[Any]:
        """The array."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise pickle.UnpicklingError("an array has no content")
        _, shape, dtype, fortran, data = self.state
        return _numbers(dtype, data, shape, bool(fortran))


class BufferArray(PickledObject):
    """Stand-in for numpy's ``_frombuffer``, which newer pickles use."""

    def array(self) -> NDArray[Any]:
        """The array."""
        data, dtype, shape, order = self.arguments
        return _numbers(dtype, data, shape, order == "F")


class Scalar(PickledObject):
    """Stand-in for numpy's ``scalar``."""

    def array(self) -> NDArray[Any]:
        """The number, as an array without dimensions."""
        dtype, data = self.arguments
        return _numbers(dtype, data, (), False)


class ChumpyArray(PickledObject):
    """Stand-in for ``chumpy.ch.Ch``, whose numbers are in ``x``."""

    def array(self) -> NDArray[Any]:
        """The wrapped array."""
        return as_array(self.state["x"])


class ChumpySelection(PickledObject):
    """Stand-in for ``chumpy.reordering.Select``: elements ``idxs`` of ``a``, in ``preferred_shape``."""

    def array(self) -> NDArray[Any]:
        """The selected elements."""
        values: NDArray[Any] = as_array(self.state["a"]).ravel()[as_array(self.state["idxs"])]
        shape = self.state.get("preferred_shape", values.shape)
        return values.reshape(tuple(int(side) for side in shape))


class CompressedRows(PickledObject):
    """Stand-in for ``scipy.sparse.csr_matrix``."""

    rows_are_compressed = True

    def array(self) -> NDArray[Any]:
        """The matrix, dense."""
        shape = tuple(int(side) for side in self.state.get("_shape", self.state.get("shape")))
        values, starts = as_array(self.state["data"]), as_array(self.state["indptr"])
        dense = np.zeros(shape, values.dtype)
        major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        minor = as_array(self.state["indices"])
        np.add.at(dense, (major, minor) if self.rows_are_compressed else (minor, major), values)
        return dense


class CompressedColumns(CompressedRows):
    """Stand-in for ``scipy.sparse.csc_matrix``."""

    rows_are_compressed = False


class _Reconstructor:
    """``copyreg._reconstructor``, by which protocols 0 and 1 make an object. A pickle can change nothing in it."""

    __slots__ = ()

    def __call__(self, kind: Any, *_: Any) -> PickledObject:
        if not isinstance(kind, type) or not issubclass(kind, PickledObject):
            raise pickle.UnpicklingError("it builds an object in a way that SMPL files do not")
        return kind()


class _Encoder:
    """``_codecs.encode``, by which protocol 2 holds Python 2's strings."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
            raise pickle.UnpicklingError("it encodes something else than text")
        return text.encode(encoding)


_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")

_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
    **{(module, "_reconstruct"): Array for module in _ARRAY_MODULES},
    **{(module, "scalar"): Scalar for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): BufferArray for module in _BUFFER_MODULES},
    ("_codecs", "encode"): _Encoder(),
    ("copy_reg", "_reconstructor"): _Reconstructor(),
    ("copyreg", "_reconstructor"): _Reconstructor(),
    ("__builtin__", "object"): PickledObject,
    ("__builtin__", "set"): PickledObject,  # chumpy's record of what has changed
    ("builtins", "set"): PickledObject,
    ("builtins", "object"): PickledObject,
    ("chumpy.ch", "Ch"): ChumpyArray,
    ("chumpy", "Ch"): ChumpyArray,
    ("chumpy.reordering", "Select"): ChumpySelection,
    **{
        (f"scipy.sparse.{module}", f"csc_{form}"): CompressedColumns
        for module in ("csc", "_csc")
        for form in ("matrix", "array")
    },
    **{
        (f"scipy.sparse.{module}", f"csr_{form}"): CompressedRows
        for module in ("csr", "_csr")
        for form in ("matrix", "array")
    },
}
"""Classes and functions that body pickles name, under the modules that have held them over the years."""


BODY_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table", "leaf_vertices")
"""Keys that are read from a body file; others, such as training data of the model, are left alone."""


class BodyUnpickler(pickle.Unpickler):
    """Knows the names in SMPL files and gives a stand-in for each."""

    stand_ins = _STAND_INS
    kind_of_file = "SMPL file"

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in.

        Raises:
            pickle.UnpicklingError: The name is not on the allow-list.
        """
        if (module, name) not in self.stand_ins:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no {self.kind_of_file} contains")
        return self.stand_ins[module, name]


def as_array(value: Any) -> NDArray[Any]:
    """A value of a pickle as a numpy array: a stand-in, a number, a text, or nested lists of numbers."""
    return value.array() if isinstance(value, PickledObject) else np.asarray(value)


def read_body_pickle(path: Path) -> dict[str, Any]:
    """Read an SMPL ``.pkl`` (Python 2 or 3, with or without chumpy) into plain arrays.

    Raises:
        BodyError: The pickle asks for anything that is not on the allow-list, or is damaged.
    """
    try:
        with path.open("rb") as file:
            content = BodyUnpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary")
        return {key: as_array(content[key]) for key in BODY_KEYS if key in content}
    except Exception as error:  # a damaged pickle can raise almost anything
        raise BodyError(
            f"The body file {path} was not read.",
            why=first_line(error),
            fix="use the file as its licensor ships it; a pickle that names other code is refused, it could run it",
        ) from error
