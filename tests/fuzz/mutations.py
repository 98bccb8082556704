"""Valid files, changed so that readers must be on their guard. All changes are drawn from one seeded generator."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[Rng, bytes, Sequence[bytes]], bytes]
"""A changed file, from a valid one and others of its kind."""

_WORDS = (b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00\x00\x00", b"\x00\x00\x00\x80")
_RAW = "raw JSON "


def pick(rng: Rng, choices: Sequence[Any]) -> Any:
    """One of some choices."""
    return choices[int(rng.integers(len(choices)))]


def change_bytes(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """One to eight changes: bytes flipped, set, cut out or doubled, numbers at their limits, a piece of another file."""
    data = bytearray(content)
    for _ in range(1 + int(rng.integers(8)) if rng.random() < 0.5 else 1):
        if not data:
            return bytes(rng.bytes(int(rng.integers(64))))
        # Half of all changes are near the beginning, where headers are.
        at = int(rng.integers(min(len(data), 256))) if rng.random() < 0.5 else int(rng.integers(len(data)))
        length = int(rng.integers(1, 65))
        match int(rng.integers(9)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = pick(rng, (0, 1, 127, 128, 255, int(rng.integers(256))))
            case 2:
                data[at : at + 4] = pick(rng, _WORDS)
            case 3:
                data[at : at + length] = rng.bytes(length)
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                del data[at:]
            case 7:
                data[at : at + 4] = struct.pack(pick(rng, ("<I", ">I")), 1 << int(rng.integers(32)))
            case 8:
                other = pick(rng, others)
                start = int(rng.integers(len(other)))
                data[at : at + length] = other[start : start + length]
    return bytes(data)


def nasty_value(rng: Rng) -> Any:
    """A value that JSON can hold and that a reader may not expect; raw JSON is marked as such."""
    return pick(
        rng,
        (
            None, True, False, 0, 1, -1, 0.5, 1e-300, 1e300, 2**31, 2**63, -(2**63), 10**30, "", "a", "1", "nan", "../x",
            "\0", "x" * 300, "\ud800", "\x1b[31m", [], {}, [[]], [None], {"": 0}, [0] * 5, [1e308] * 4, ["a", 1],
            {"a": {"b": []}}, _RAW + "1e400", _RAW + "-1e999", _RAW + "NaN", _RAW + "Infinity", _RAW + "9" * 400,
            _RAW + "[" * 200 + "]" * 200, _RAW + "[" * 3000, _RAW + "0" * 20, float(rng.normal() * 1000),
        ),
    )  # fmt: skip


def change_document(rng: Rng, document: Any) -> Any:
    """A JSON document with one to three changes: values replaced, removed, doubled, renamed, lists longer or shorter."""
    for _ in range(1 + int(rng.integers(3))):
        places: list[tuple[Any, Any]] = []
        waiting = [document]
        while waiting:
            each = waiting.pop()
            if isinstance(each, dict | list):
                keys = list(each) if isinstance(each, dict) else list(range(len(each)))
                # Long lists of numbers would be chosen for ever.
                for key in keys if len(keys) < 50 else [keys[int(index)] for index in rng.integers(len(keys), size=10)]:
                    places.append((each, key))
                    waiting.append(each[key])
        if not places or rng.random() < 0.02:
            return nasty_value(rng)
        holder, key = pick(rng, places)
        match int(rng.integers(7)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[pick(rng, ("", "x", "\0", str(key) * 100, str(key).upper()))] = holder.pop(key)
            case 2 if isinstance(holder[key], list) and holder[key]:
                holder[key] = holder[key] * int(rng.integers(2, 4))
            case 3:
                holder[key] = [holder[key]]
            case 4:
                other, name = pick(rng, places)
                holder[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
            case _:
                holder[key] = nasty_value(rng)
    return document


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def to_json(document: Any) -> bytes:
    """A document as text; values that are marked as raw stand in it as they are."""
    text = json.dumps(document)
    pieces = text.split(f'"{_RAW}')
    return (pieces[0] + "".join(piece.replace('"', "", 1) for piece in pieces[1:])).encode()


def change_json(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """A JSON file with changed values, or with changed bytes."""
    if rng.random() < 0.2:
        return change_bytes(rng, content, others)
    return to_json(change_document(rng, json.loads(content)))


def change_npz(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """An ``.npz`` with changed arrays, headers or bytes."""
    if rng.random() < 0.3:
        return change_bytes(rng, content, others)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = pick(rng, list(members))
    match int(rng.integers(8)):
        case 0:
            del members[name]
        case 1:
            members[name] = change_bytes(rng, members[name], [members[name]])
        case 2:  # a header of a forged shape or type, before the same data
            shape = tuple(int(side) for side in pick(rng, ([2**31, 2**31], [10**9], [0], [], [3, 3], [2**62, 4], [1] * 40)))
            kind = pick(rng, ("<f4", "<f8", "<i4", "|O", "<U0", "<U9", "|V8", "<c8", "|b1", "<M8[s]", ">f4", "|S0", "<f2"))
            header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
            members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + members[name][128:]
        case 3:  # another array in its place
            members[name] = pick(rng, list(members.values()))
        case _:
            array = np.load(io.BytesIO(members[name]))
            members[name] = _npy(_change_array(rng, array))
    output = io.BytesIO()
    method = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(output, "w", method) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return output.getvalue()


def _npy(array: np.ndarray) -> bytes:
    output = io.BytesIO()
    np.save(output, array)
    return output.getvalue()


def _change_array(rng: Rng, array: np.ndarray) -> np.ndarray:
    """An array of another shape, type or value."""
    with np.errstate(all="ignore"):
        match int(rng.integers(6)):
            case 0 if array.size and array.dtype.kind in "fiu":
                changed = array.copy()
                values = (np.nan, np.inf, -1, 0, 1e38, 2**31 - 1) if array.dtype.kind == "f" else (-1, 0, 2**31 - 1, 127)
                changed.reshape(-1)[int(rng.integers(array.size))] = np.array(pick(rng, values)).astype(array.dtype)
                return changed
            case 1:
                return np.concatenate([array, array]) if array.ndim else np.array([array, array])
            case 2:
                return array[: len(array) // 2] if array.ndim else array.reshape(1)
            case 3 if array.dtype.kind != "U":
                return array.astype(pick(rng, ("float16", "float64", "int8", "int64", "complex64", "bool", "U5", "uint64")))
            case 4:
                return np.moveaxis(array, 0, -1) if array.ndim else np.zeros((0,) * 3)
            case _:
                return np.zeros(pick(rng, ((0,), (), (1, 1, 1), (5,), (2**16,))), array.dtype)


_OPCODES = [code for code in pickletools.opcodes if code.name not in ("FRAME", "PROTO", "STOP")]
_NAMES = (
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cchumpy.ch\nCh\n",
    b"cscipy.sparse.csc\ncsc_matrix\n", b"cbuiltins\neval\n", b"cos\nsystem\n", b"cbuiltins\nobject\n",
    b"ccopyreg\n_reconstructor\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n",
    b"ctorch\nFloatStorage\n", b"c__builtin__\nset\n",
)  # fmt: skip


def change_pickle(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """A pickle with changed bytes or opcodes, or one of opcodes drawn at random."""
    chance = rng.random()
    if chance < 0.4:
        return change_bytes(rng, content, others)
    if chance < 0.6:
        return b"\x80\x02" + _opcodes(rng, int(rng.integers(1, 40))) + b"."
    try:
        starts = [place for _, _, place in pickletools.genops(content) if place is not None]
    except ValueError:
        return change_bytes(rng, content, others)
    first = int(rng.integers(len(starts)))
    last = min(first + int(rng.integers(1, 5)), len(starts) - 1)
    inserted = _opcodes(rng, int(rng.integers(4)))
    if rng.random() < 0.5:
        last = first
    return content[: starts[first]] + inserted + content[starts[last] :]


def _opcodes(rng: Rng, count: int) -> bytes:
    written = bytearray()
    for _ in range(count):
        if rng.random() < 0.2:
            written += pick(rng, _NAMES)
            continue
        code = pick(rng, _OPCODES)
        written += code.code.encode("latin1")
        if code.arg is not None:
            size = code.arg.n
            if size > 0:
                written += rng.bytes(size) if rng.random() < 0.5 else bytes([int(rng.integers(8))]) + b"\0" * (size - 1)
            elif size == pickletools.UP_TO_NEWLINE:
                written += pick(rng, (b"1", b"9" * 400, b"a", b"numpy\nndarray", b"'x'", b"", b"1e400")) + b"\n"
            else:  # a length, then as many bytes, or not
                length = int(rng.integers(10)) if rng.random() < 0.8 else 2**31 - 1
                width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(size, 4)
                written += length.to_bytes(width, "little") if length < 256**width else b"\xff" * width
                written += rng.bytes(min(length, 10))
    return bytes(written)


def change_zip_of_pickle(rng: Rng, content: bytes, others: Sequence[bytes]) -> bytes:
    """PyTorch's archive with a changed pickle, changed tensors or changed bytes."""
    if rng.random() < 0.3:
        return change_bytes(rng, content, others)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except zipfile.BadZipFile:  # the format before the archives
        return change_pickle(rng, content, others)
    name = next(each for each in members if each.endswith("data.pkl"))
    if rng.random() < 0.8:
        members[name] = change_pickle(rng, members[name], [members[name]])
    else:
        name = pick(rng, list(members))
        members[name] = pick(rng, (b"", members[name] * 2, members[name][:-1], change_bytes(rng, members[name], [b"x"])))
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return output.getvalue()


def pickled(value: Any, protocol: int = 2) -> bytes:
    """A value as a pickle."""
    return pickle.dumps(value, protocol)
