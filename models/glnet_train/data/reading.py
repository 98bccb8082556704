"""Reading annotation files that come from elsewhere, with errors that say what to do."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet.pickles import ARRAYS, SCALARS, Conversion, InertUnpickler, plain_items, words_for
from glnet_infer.errors import InputError, first_line
from glnet_infer.fields import quote
from glnet_infer.files import open_regular, read_json

LARGEST = 1e9
"""Largest label: millimetres in a thousand kilometres. Products of larger ones overflow."""

MINIMUM_BOX = 5.0
"""Pixels. Persons whose box is narrower or lower than this inside the image are left out, as HybrIK does."""


def existing_folder(path: str | Path, what: str) -> Path:
    """The folder of a dataset.

    Args:
        path: The folder.
        what: The files that it should hold, for the message.

    Raises:
        InputError: There is no such folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"There is no folder {path}.",
            why=f"it should hold {what}",
            fix="get the dataset from its owners, who license it to each user, and give the folder it was unpacked into",
        )
    return path


class _AnnotationUnpickler(InertUnpickler):
    """Gives a 3DPW sequence's content as data."""

    kind_of_file = "annotation file"
    actions = SCALARS


def read_pickle(path: Path, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """Entries of a pickled dictionary, written by Python 2 or 3: numbers, strings, numpy arrays, lists of them.

    Args:
        path: The file.
        keys: Entries that it must have.
        optional: Entries that are taken where it has them. All others are left alone.

    Raises:
        InputError: The file is missing or damaged, holds something else, lacks a key, or names code that it could run.
    """
    keys = tuple(keys)
    try:
        with open_regular(path) as file:
            content = _AnnotationUnpickler(file).load()
            conversion = Conversion(ARRAYS, file.seek(0, 2))
        if not isinstance(content, dict):
            raise pickle.UnpicklingError(f"it holds a {words_for(content)}, not a dictionary")
        values = dict(plain_items(content))
        found = {key: conversion.plain(values[key]) for key in (*keys, *optional) if key in values}
    except Exception as error:  # a damaged pickle can raise almost anything
        raise InputError(
            f"The annotation file {path} was not read.",
            why=first_line(error),
            fix="use the file as the dataset's owners ship it; a pickle that names other code is refused, it could run it",
        ) from error
    need(found, keys, str(path))
    return found


def read_annotations(path: str | Path, lists: Iterable[str] = ("images", "annotations")) -> dict[str, Any]:
    """The content of a COCO-style annotation file.

    Args:
        path: The file.
        lists: Keys that must hold lists of objects.

    Raises:
        InputError: The file is missing or damaged, or lacks a key.
    """
    path = Path(path)
    fix = "give the COCO-style annotation file of this dataset, whole and undamaged"
    # The annotations of a large training set have any size.
    content = read_json(path, InputError, fix=fix, largest=math.inf)
    content = content if isinstance(content, dict) else {}
    for key in lists:
        if not isinstance(content.get(key), list) or not all(isinstance(item, dict) for item in content[key]):
            raise InputError(f"{path} is not a COCO-style annotation file.", why=f"it has no list {key!r}", fix=fix)
    return content


def need(record: Any, keys: Iterable[str], where: str) -> None:
    """Check that a value is a record with all keys.

    Raises:
        InputError: It is none, or a key is missing.
    """
    if not isinstance(record, Mapping):
        raise InputError(
            f"{where} is {quote(record)}, not an object with keys.",
            fix="check that this is the dataset and the release that the reader is for",
        )
    missing = [key for key in keys if key not in record]
    if missing:
        raise InputError(
            f"{where} lacks {', '.join(missing)}.",
            why=f"it has {', '.join(sorted(map(str, record))) or 'nothing'}",
            fix="check that this is the dataset and the release that the reader is for",
        )


def identity(record: Mapping[str, Any], key: str, where: str) -> int | str:
    """The number or text that a record is known by, or refers to another by.

    Raises:
        InputError: It is something else.
    """
    value = record.get(key)
    if not isinstance(value, int | str):
        raise InputError(
            f"{where}: {key} is {quote(value)}, not a number or a text.",
            fix="check that this is the dataset and the release that the reader is for",
        )
    return value


def numbers(value: Any, shape: tuple[int, ...], what: str, rows: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Finite numbers in a given shape.

    Args:
        value: Array or nested lists with as many elements as the shape has.
        shape: The shape, with at most one -1.
        what: Name of the numbers, for the message.
        rows: Rows that are used and must be finite; all by default.

    Raises:
        InputError: The value is something else.
    """
    try:
        array = np.asarray(value, dtype=np.float64).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{what} are not numbers in the shape {shape}.",
            why=first_line(error),
            fix="check that this is the dataset and the release that the reader is for",
        ) from error
    used = array if rows is None else array[rows]
    if not np.isfinite(used).all():
        raise InputError(f"{what} are not all finite.", why="an unknown label must be marked as such, and not be NaN")
    if used.size and np.abs(used).max() > LARGEST:
        raise InputError(f"{what} are too large.", why=f"one is beyond {LARGEST:g}", fix="check the file's units")
    return array


def corners(box: Any, width: float, height: float, what: str) -> NDArray[np.float64] | None:
    """The part of an x, y, width, height box inside the image as x1, y1, x2, y2; None where next to nothing is left."""
    x, y, w, h = numbers(box, (4,), f"{what}: the box's numbers")
    width, height = numbers([width, height], (2,), f"{what}: the image's width and height")
    return inside(np.array([x, y, x + w, y + h]), width, height)


def inside(box: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64] | None:
    """The part of an x1, y1, x2, y2 box inside the image; None where it is smaller than :data:`MINIMUM_BOX`."""
    clipped = np.clip(box, 0, [width, height, width, height])
    return clipped if (clipped[2:] - clipped[:2] >= MINIMUM_BOX).all() else None
