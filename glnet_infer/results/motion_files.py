"""A motion as arrays and as a JSON document, both ways. ``docs/output-formats.md`` describes the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glnet_infer.archives import LONGEST_TEXT, ArraySpec, read_archive, storable
from glnet_infer.camera import Intrinsics
from glnet_infer.errors import InputError, OutputError, first_line
from glnet_infer.files import LARGEST_JSON, read_json, replace_file
from glnet_infer.results.formats import write_npz
from glnet_infer.results.motion_data import COLUMNS, RAW, STATUS_NAMES, MotionData, empty_column
from glnet_infer.skeleton import JOINT_NAMES

VERSION = 1
"""Version of both schemas."""

_TEXTS = ("body", "bundle", "backend", "smoothing")
_NUMBERS = ("rate", "threshold")

_SPECS = {
    "version": ArraySpec((), "int64"),
    "kind": ArraySpec((), "str"),
    **{name: ArraySpec(("R", *shape), dtype) for name, (shape, dtype) in COLUMNS.items()},
    **{name: ArraySpec(("R", *shape), dtype, optional=True) for name, (shape, dtype) in RAW.items()},
    "frame_numbers": ArraySpec(("F",), "int64"),
    "frame_times": ArraySpec(("F",), "float64"),
    "intrinsics": ArraySpec((3, 3), "float64"),
    "image_size": ArraySpec((2,), "int64"),
    **{name: ArraySpec((), "float64") for name in _NUMBERS},
    **{name: ArraySpec((), "str") for name in _TEXTS},
}

_LARGEST = 4 << 30
"""Bytes of an archive's arrays: a million rows."""

_FIX = "give an .npz or .json of Motion.save, undamaged"


def write_motion_npz(path: str | PathLike[str], motion: MotionData) -> None:
    """Write everything.

    Raises:
        OutputError: The file cannot be written.
    """
    columns = {name: getattr(motion, name) for name in (*COLUMNS, *RAW) if getattr(motion, name) is not None}
    write_npz(
        path,
        {
            "version": np.asarray(VERSION, np.int64),
            "kind": np.asarray("motion"),
            **columns,
            "frame_numbers": motion.frame_numbers,
            "frame_times": motion.frame_times,
            "intrinsics": motion.intrinsics.matrix,
            "image_size": np.asarray(motion.image_size, np.int64),
            **{name: np.asarray(getattr(motion, name), np.float64) for name in _NUMBERS},
            **{name: np.asarray(storable(getattr(motion, name))) for name in _TEXTS},
        },
    )


def write_motion_json(path: str | PathLike[str], motion: MotionData) -> None:
    """Write everything, a row of the motion in a line.

    Raises:
        OutputError: The file cannot be written, or would be larger than what is read back.
    """

    def write(file: BinaryIO) -> None:
        for line in _lines(motion):
            file.write(line.encode())
            if file.tell() > LARGEST_JSON:
                raise OutputError(
                    f"The motion was not written to {path}.",
                    why=f"its {len(motion)} rows take more than {LARGEST_JSON >> 20} MiB as text",
                    fix="save it as .npz",
                )

    replace_file(path, write)


def _lines(motion: MotionData) -> Iterator[str]:
    camera = motion.intrinsics
    head = {
        "version": VERSION,
        "kind": "motion",
        "units": {"length": "metre", "image": "pixel", "time": "second", "axes": "x right, y down, z forward"},
        "image_size": list(motion.image_size),
        "intrinsics": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
        **{name: getattr(motion, name) for name in (*_NUMBERS, *_TEXTS)},
        "joint_names": list(JOINT_NAMES),
        "frames": [list(pair) for pair in zip(motion.frame_numbers.tolist(), motion.frame_times.tolist(), strict=True)],
    }
    yield json.dumps(head, allow_nan=False)[:-1] + ', "rows": ['
    for row in range(len(motion)):
        values = {name: _plain(getattr(motion, name)[row]) for name in COLUMNS}
        values["status"] = STATUS_NAMES[values["status"]]
        if motion.raw_rotations is not None:
            values["raw"] = {name.removeprefix("raw_"): _plain(getattr(motion, name)[row]) for name in RAW}
        yield (",\n" if row else "\n") + json.dumps(values, allow_nan=False, separators=(",", ":"))
    yield "\n]}\n"


def _plain(values: Any) -> Any:
    """As Python's numbers; float32 with no more digits than it needs to be read back."""
    if values.dtype == np.float32:
        return values.astype("U32").astype(np.float64).tolist()
    return values.tolist()


def read_motion(path: str | PathLike[str]) -> dict[str, Any]:
    """What a motion is made of, from an ``.npz`` or ``.json`` of any origin.

    Raises:
        InputError: The file is missing, damaged, too large, or not a motion.
    """
    path = Path(path)
    what = f"{path} does not hold a motion."
    if path.suffix.lower() == ".json":
        document = read_json(path, InputError, fix=_FIX)
        try:
            return _from_document(document)
        except InputError as error:  # of the camera
            raise InputError(what, why=error.what, fix=_FIX) from error
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
            raise InputError(what, why=why, fix=_FIX) from error
    values: dict[str, Any] = read_archive(path, _SPECS, InputError, what=what, fix=_FIX, limit=_LARGEST)
    try:
        _check_version(values.pop("kind").item(), values.pop("version").item())
        values["intrinsics"] = Intrinsics.from_matrix(values["intrinsics"])
    except ValueError as error:  # InputError is one
        raise InputError(what, why=getattr(error, "what", first_line(error)), fix=_FIX) from error
    values["image_size"] = tuple(values["image_size"].tolist())
    return values | {name: values[name].item() for name in (*_NUMBERS, *_TEXTS)}


def _check_version(kind: Any, version: Any) -> None:
    if kind != "motion" or version != VERSION:
        raise ValueError(f"it is {kind!r:.40} version {version!r:.20}, this library reads 'motion' version {VERSION}")


def _from_document(document: Any) -> dict[str, Any]:
    _check_version(document["kind"], document["version"])
    rows, frames, camera = document["rows"], document["frames"], document["intrinsics"]
    for row in rows:
        row["status"] = STATUS_NAMES.index(row["status"])
    smoothed = bool(rows) and "raw" in rows[0]
    values: dict[str, Any] = {
        name: _column([row[name] for row in rows], dtype) if rows else empty_column(name)
        for name, (_, dtype) in COLUMNS.items()
    }
    for name, (_, dtype) in RAW.items():
        plain = name.removeprefix("raw_")
        values[name] = _column([row["raw"][plain] for row in rows], dtype) if smoothed else None
    width, height = document["image_size"]
    return values | {
        "frame_numbers": _column([number for number, _ in frames], "int64"),
        "frame_times": _column([time for _, time in frames], "float64"),
        "intrinsics": Intrinsics(*(float(camera[name]) for name in ("fx", "fy", "cx", "cy"))),
        "image_size": (int(width), int(height)),
        **{name: float(document[name]) for name in _NUMBERS},
        **{name: str(document[name])[:LONGEST_TEXT] for name in _TEXTS},
    }


def _column(values: list[Any], dtype: str) -> NDArray[Any]:
    if not values:
        return np.zeros(0, dtype)
    array = np.asarray(values)
    if array.dtype.kind not in ("iu" if np.dtype(dtype).kind in "iu" else "iuf"):
        raise ValueError(f"{array.ravel()[0]!r:.40} is not a number of type {dtype}")
    with np.errstate(over="ignore"):  # infinity is refused with all that is not finite
        return array.astype(dtype)
