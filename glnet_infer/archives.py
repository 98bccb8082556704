"""NumPy archives of any origin, read by name: a header is checked before a byte of its array is.

An ``.npz`` is a zip file, and so may claim to hold more than any memory. What is read here is bounded by the caller, and by
shapes that fit together.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import GlnetError, first_line
from glnet_infer.files import open_regular

_LONGEST_LIST = 1 << 20
"""Bytes of a zip file's list of contents: 10,000 names, where our archives have some dozens."""

LONGEST_TEXT = 4096
"""Characters of a text."""

_BLOCK = 1 << 20


def storable(text: str) -> str:
    """A text as :func:`read_archive` takes it: cut where it is too long, and of Unicode; names of files need not be."""
    return text.encode(errors="backslashreplace").decode()[:LONGEST_TEXT]


@dataclass(frozen=True)
class ArraySpec:
    """What an array of an archive must be.

    Attributes:
        shape: Its lengths; a letter stands for any length, the same one in all arrays of the archive. None for any shape.
        dtype: Name of its type; ``str`` for text; ``number`` for any real numbers, which stay as they are, NaN too.
        optional: Whether it may be missing.
    """

    shape: tuple[int | str, ...] | None
    dtype: str
    optional: bool = False


def read_archive(
    source: str | PathLike[str] | BinaryIO,
    specs: Mapping[str, ArraySpec],
    kind: type[GlnetError],
    *,
    what: str,
    fix: str,
    limit: int,
) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` of any origin. Names that are not asked for are left aside.

    Args:
        source: The file, or its open content.
        specs: What to read, by name.
        kind: The error's class.
        what: What happened where it cannot be read, a sentence.
        fix: What the user can do about it.
        limit: Bytes that all arrays together may have.

    Raises:
        GlnetError: The file is missing or damaged, or an array is missing or not what it must be; the class is ``kind``.
    """
    try:
        if isinstance(source, str | PathLike):
            with open_regular(source) as file:
                return _read(file, specs, limit)
        return _read(source, specs, limit)
    except OSError as error:
        raise kind(what, why=str(error.strerror or error), fix=fix) from error
    except Exception as error:  # numpy, zipfile and zlib each have kinds of their own
        raise kind(what, why=first_line(error), fix=fix) from error


class CarefulFile:
    """A file for ``zipfile``, which reads the list of contents at once, however long it claims to be.

    Args:
        file: The file.
        longest: Most bytes to read at once.
    """

    def __init__(self, file: BinaryIO, longest: int = _LONGEST_LIST) -> None:
        self.file, self.longest = file, longest
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """At most the longest."""
        content = self.file.read(self.longest + 1 if size < 0 else min(size, self.longest + 1))
        if len(content) > self.longest:
            raise ValueError("its list of contents is too long")
        return content


def _read(file: BinaryIO, specs: Mapping[str, ArraySpec], limit: int) -> dict[str, NDArray[Any]]:
    try:
        archive = zipfile.ZipFile(CarefulFile(file))
    except zipfile.BadZipFile as error:
        raise ValueError("it is not an .npz archive, or it breaks off") from error
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in specs and members.setdefault(name, info) is not info:
            raise ValueError(f"it holds {name} twice")
    missing = [name for name, spec in specs.items() if name not in members and not spec.optional]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    lengths: dict[str, int] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, spec in specs.items():
        if name in members:
            arrays[name] = _read_array(archive, members[name], name, spec, lengths, limit)
            limit -= arrays[name].nbytes
    return arrays


def _read_array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, spec: ArraySpec, lengths: dict[str, int], limit: int
) -> NDArray[Any]:
    # The other methods of compression may take any memory to undo.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not use")
    with archive.open(info) as member:
        # Version 1 alone: headers of the others may have any length, and only structured arrays need them.
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"the header of {name} is of another version than 1.0")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
        _check_header(name, spec, shape, dtype, lengths)
        size = math.prod(shape) * dtype.itemsize
        if size > limit:
            raise ValueError(f"{name} is too large: {size} bytes, and {limit} are left for it")
        if info.file_size != member.tell() + size:
            raise ValueError(f"{name} has not the size of its shape {shape}")
        data = bytearray(size)
        at = 0
        while at < size:
            block = member.read(min(_BLOCK, size - at))
            if not block:
                raise ValueError(f"{name} breaks off")
            data[at : at + len(block)] = block
            at += len(block)
        member.read(1)  # the end of the member, where zipfile compares its checksum
    array: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    if spec.dtype == "number":
        return array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if array.dtype.kind == "U":
        # NumPy makes strings of any numbers, and Python is not prepared for them.
        codes = array.astype(dtype.newbyteorder("=")).reshape(-1).view(np.uint32)
        if (codes > 0x10FFFF).any() or (codes >> 11 == 0xD800 >> 11).any():
            raise ValueError(f"{name} is not text")
        return array
    return np.ascontiguousarray(array, spec.dtype).reshape(shape)


def _check_header(
    name: str, spec: ArraySpec, shape: tuple[int, ...], dtype: np.dtype[Any], lengths: dict[str, int]
) -> None:
    if spec.dtype == "str":
        if dtype.kind != "U" or dtype.itemsize > 4 * LONGEST_TEXT:
            raise ValueError(f"{name} is {dtype}, not text of at most {LONGEST_TEXT} characters")
    elif spec.dtype == "number":
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            held = "an array of Python objects" if dtype.hasobject else str(dtype)[:40]
            raise ValueError(f"{name} is {held}, not of numbers")
    elif dtype.newbyteorder("=") != np.dtype(spec.dtype):
        raise ValueError(f"{name} is {dtype}, not {spec.dtype}")
    if spec.shape is None:
        return
    wanted = [lengths.get(length, length) if isinstance(length, str) else length for length in spec.shape]
    fits = len(shape) == len(wanted) and all(
        isinstance(length, str) or length == found for length, found in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} is {shape}, not ({', '.join(map(str, wanted))})")
    for length, found in zip(spec.shape, shape, strict=True):
        if isinstance(length, str):
            lengths[length] = found
