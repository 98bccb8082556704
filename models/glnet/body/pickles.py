"""Reading SMPL's original pickles without chumpy or scipy, and without running their code.

Any class may be named in them. Those that hold a body's numbers are known here; all others are left aside, and only matter
where a needed key rests on one.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet.pickles import (
    ARRAYS,
    SCALARS,
    Conversion,
    InertUnpickler,
    Name,
    PickledDict,
    PickledObject,
    plain_items,
    words_for,
)
from glnet_infer.errors import BodyError, first_line
from glnet_infer.fields import quote
from glnet_infer.files import open_regular

BODY_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "f", "kintree_table", "leaf_vertices")
"""Keys that are read from a body file; others, such as training data of the model, are left alone."""

LARGEST_MATRIX = 1 << 22
"""Numbers of a sparse matrix once it is dense: 24 joints of a body with 170,000 vertices."""


class BodyUnpickler(InertUnpickler):
    """Gives an SMPL file's content as data."""

    kind_of_file = "SMPL file"
    actions = SCALARS


def _entry(record: PickledObject, *keys: str) -> Any:
    """A value of an object's state, under the first of some names that it has."""
    state = record.state
    if isinstance(state, tuple) and len(state) == 2:  # beside values of slots
        state = state[0]
    values = dict(plain_items(state))
    for key in keys:
        if key in values:
            return values[key]
    raise pickle.UnpicklingError(f"a {record.kind} lacks {keys[0]!r}")


def _chumpy_array(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``chumpy.ch.Ch``, whose numbers are in ``x``."""
    return conversion.array(_entry(record, "x"))


def _chumpy_selection(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``chumpy.reordering.Select``: elements ``idxs`` of ``a``, in ``preferred_shape``."""
    places = conversion.array(_entry(record, "idxs"))
    conversion.spend(places.size)
    values: NDArray[Any] = conversion.array(_entry(record, "a")).ravel()[places]
    try:
        shape = conversion.array(_entry(record, "preferred_shape")).ravel().astype(np.int64)
    except pickle.UnpicklingError:
        return values
    return values.reshape([int(side) for side in shape])


def _compressed(by_rows: bool) -> Callable[[PickledObject, Conversion], NDArray[Any]]:
    def dense(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
        values, minor, starts = (conversion.array(_entry(record, key)) for key in ("data", "indices", "indptr"))
        counts = np.diff(_whole(starts))
        if counts.ndim != 1 or (counts < 0).any() or counts.sum() != values.size:
            raise pickle.UnpicklingError(f"a {record.kind} is damaged")
        major = np.repeat(np.arange(len(counts)), counts)
        return _dense(record, conversion, values, (major, minor) if by_rows else (minor, major))

    return dense


def _coordinates(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``coo``: a row, a column and a value for each entry; newer scipy holds the first two as ``coords``."""
    values = conversion.array(_entry(record, "data"))
    try:
        places = _entry(record, "coords")
    except pickle.UnpicklingError:
        places = (_entry(record, "row"), _entry(record, "col"))
    if type(places) is not tuple or len(places) != 2:
        raise pickle.UnpicklingError(f"a {record.kind} is no matrix")
    return _dense(record, conversion, values, (conversion.array(places[0]), conversion.array(places[1])))


def _by_keys(record: PickledObject, conversion: Conversion) -> NDArray[Any]:
    """``dok``: a dictionary from places to values, which newer scipy holds as ``_dict``."""
    entries = record.items
    if entries is None:
        held = _entry(record, "_dict")
        entries = held.others if isinstance(held, PickledDict) else None
    places = conversion.array([place for place, _ in entries or ()]).reshape(-1, 2)
    values = conversion.array([value for _, value in entries or ()])
    return _dense(record, conversion, values, (places[:, 0], places[:, 1]))


def _dense(
    record: PickledObject, conversion: Conversion, values: NDArray[Any], places: tuple[NDArray[Any], NDArray[Any]]
) -> NDArray[Any]:
    """A matrix of values at places; those of one place are added."""
    shape = tuple(int(side) for side in conversion.array(_entry(record, "_shape", "shape")).ravel())
    if len(shape) != 2 or min(shape) < 0 or math.prod(shape) > LARGEST_MATRIX:
        raise pickle.UnpicklingError(f"a {record.kind} has the shape {quote(shape)}, and no body's matrix has")
    rows, columns = (_whole(each) for each in places)
    if not (values.shape == rows.shape == columns.shape and values.ndim == 1):
        raise pickle.UnpicklingError(f"a {record.kind} is damaged")
    if values.size and (min(rows.min(), columns.min()) < 0 or rows.max() >= shape[0] or columns.max() >= shape[1]):
        raise pickle.UnpicklingError(f"a {record.kind} has values outside of its shape")
    conversion.spend(math.prod(shape))
    dense = np.zeros(shape, values.dtype if values.size else np.float64)
    np.add.at(dense, (rows, columns), values)
    return dense


def _whole(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.size and values.dtype.kind not in "iu":
        raise pickle.UnpicklingError("places of a sparse matrix are no whole numbers")
    return values.astype(np.int64)


_SPARSE = {"csr": _compressed(True), "csc": _compressed(False), "coo": _coordinates, "dok": _by_keys}

_KINDS: dict[Name, Callable[[PickledObject, Conversion], NDArray[Any]]] = {
    **ARRAYS,
    Name("chumpy.ch", "Ch"): _chumpy_array,
    Name("chumpy", "Ch"): _chumpy_array,
    Name("chumpy.reordering", "Select"): _chumpy_selection,
    **{
        Name(f"scipy.sparse.{prefix}{form}", f"{form}_{kind}"): read
        for form, read in _SPARSE.items()
        for prefix in ("", "_")
        for kind in ("matrix", "array")
    },
}
"""What turns objects of body files into arrays, under the modules that have held them over the years."""


def read_body_pickle(path: Path) -> dict[str, Any]:
    """Read an SMPL ``.pkl`` (Python 2 or 3, with or without chumpy) into plain arrays.

    Raises:
        BodyError: The file is damaged or hostile, or a key that is needed holds no numbers.
    """
    key = ""
    try:
        with open_regular(path) as file:
            content = BodyUnpickler(file).load()
            size = file.seek(0, 2)
        if not isinstance(content, PickledDict):
            raise pickle.UnpicklingError(f"it holds a {words_for(content)}, not a dictionary")
        values, conversion = dict(plain_items(content)), Conversion(_KINDS, size)
        found = {}
        for key in BODY_KEYS:
            if key in values:
                found[key] = conversion.array(values[key])
        return found
    except Exception as error:  # a damaged pickle can raise almost anything
        raise BodyError(
            f"The body file {path} was not read.",
            why=f"{key}: {first_line(error)}" if key else first_line(error),
            fix="use the file as its licensor ships it, or save its arrays as numbers with numpy.savez; a pickle that "
            "names other code is refused, it could run it",
        ) from error
