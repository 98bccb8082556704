"""Reading SMPL's original pickles without chumpy, scipy or the risk of running code.

A pickle is a program; this reader lets it name the few classes that SMPL files are made of and nothing else. chumpy
arrays and scipy's sparse matrices become inert stand-ins, from which the numbers are taken.
"""

import _codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import BodyError


class _StandIn:
    """Holds the state that a pickle gives an object of a class which is not installed or not wanted."""

    def __init__(self, *arguments: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class ChumpyArray(_StandIn):
    """Stand-in for ``chumpy.ch.Ch``, whose numbers are in ``x``."""

    def array(self) -> NDArray[Any]:
        """The wrapped array."""
        return np.asarray(self.state["x"])


class ChumpySelection(_StandIn):
    """Stand-in for ``chumpy.reordering.Select``: elements ``idxs`` of ``a``, in ``preferred_shape``."""

    def array(self) -> NDArray[Any]:
        """The selected elements."""
        values = as_array(self.state["a"]).ravel()[self.state["idxs"]]
        return values.reshape(self.state.get("preferred_shape", values.shape))


class _SparseMatrix(_StandIn):
    """Stand-in for scipy's compressed sparse matrices."""

    compressed_axis = 0

    def array(self) -> NDArray[Any]:
        """The matrix, dense."""
        shape = self.state.get("_shape", self.state.get("shape"))
        dense = np.zeros(shape, dtype=np.asarray(self.state["data"]).dtype)
        starts = np.asarray(self.state["indptr"])
        major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        minor = np.asarray(self.state["indices"])
        index = (major, minor) if self.compressed_axis == 0 else (minor, major)
        np.add.at(dense, index, self.state["data"])
        return dense


class CompressedRows(_SparseMatrix):
    """Stand-in for ``scipy.sparse.csr_matrix``."""


class CompressedColumns(_SparseMatrix):
    """Stand-in for ``scipy.sparse.csc_matrix``."""

    compressed_axis = 1


def _rebuild_object(cls: type, base: type, state: Any) -> Any:
    """``copyreg._reconstructor`` for stand-ins alone: what protocol 0 and 1 pickles build objects with."""
    if not issubclass(cls, _StandIn):
        raise pickle.UnpicklingError(f"it builds a {cls.__name__} in a way that SMPL files do not")
    return cls()


def _allowed() -> dict[tuple[str, str], Any]:
    """The classes and functions that a body pickle may name, under the modules that have held them over the years."""
    reconstruct, scalar = np.ones(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _codecs.encode,  # how Python 2 bytes travel in protocol 2
        ("copy_reg", "_reconstructor"): _rebuild_object,
        ("copyreg", "_reconstructor"): _rebuild_object,
        ("__builtin__", "object"): object,
        ("builtins", "object"): object,
        ("chumpy.ch", "Ch"): ChumpyArray,
        ("chumpy", "Ch"): ChumpyArray,
        ("chumpy.reordering", "Select"): ChumpySelection,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed[module, "_reconstruct"] = reconstruct
        allowed[module, "scalar"] = scalar
    for module in ("scipy.sparse.csc", "scipy.sparse._csc"):
        allowed[module, "csc_matrix"] = CompressedColumns
    for module in ("scipy.sparse.csr", "scipy.sparse._csr"):
        allowed[module, "csr_matrix"] = CompressedRows
    return allowed


class _BodyUnpickler(pickle.Unpickler):
    allowed = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no SMPL file contains") from None


def as_array(value: Any) -> NDArray[Any]:
    """A numpy array of whatever the pickle held: array, scalar, chumpy array or sparse matrix."""
    return value.array() if isinstance(value, ChumpyArray | ChumpySelection | _SparseMatrix) else np.asarray(value)


def read_body_pickle(path: Path) -> dict[str, Any]:
    """Read an SMPL ``.pkl`` (Python 2 or 3, with or without chumpy) into plain values.

    Raises:
        BodyError: The pickle asks for anything that is not on the allow-list, or is damaged.
    """
    try:
        with path.open("rb") as file:
            content = _BodyUnpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, not a dictionary")
        return {str(key): as_array(value) for key, value in content.items()}
    except Exception as error:  # a damaged pickle can raise almost anything
        raise BodyError(
            f"The body file {path} was not read.",
            why=str(error) or type(error).__name__,
            fix="use the file as its licensor ships it; a pickle that names other code is refused because it could run it",
        ) from error
