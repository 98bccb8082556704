"""Whether an ONNX file names other files, found without loading it.

ONNX lets a tensor's values lie in any file that the graph names. Versions of ONNX Runtime have followed such names out of
the model's folder (https://github.com/microsoft/onnxruntime/pull/27430), and have taken addresses in memory for them
(https://github.com/microsoft/onnxruntime/pull/28709). A detector is one file, so all of them are refused before that.

The encoding: https://protobuf.dev/programming-guides/encoding. Numbers of fields: onnx.proto of https://github.com/onnx/onnx.
"""

from __future__ import annotations

from collections.abc import Iterator

_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Messages that hold tensors, and the fields that lead to them."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def names_other_files(content: bytes) -> bool:
    """Whether any tensor of an ONNX model lies outside its file.

    Raises:
        ValueError: The content is not encoded as ONNX models are.
    """
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, start, stop = waiting.pop()
        for field, value, begin, end in _fields(content, start, stop):
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
                return True
            inner = _WITHIN[kind].get(field)
            if inner is not None and end is not None:
                waiting.append((inner, begin, end))
    return False


def _fields(content: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int | None]]:
    """A message's fields: number, value if it is an integer, and the span of its bytes if it has some."""
    while at < stop:
        key, at = _varint(content, at, stop)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(content, at, stop)
            yield field, value, at, None
            continue
        if wire == _LENGTH:
            length, at = _varint(content, at, stop)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field at byte {at} has an unknown encoding")
        if at + length > stop:
            raise ValueError(f"it breaks off at byte {stop}")
        yield field, 0, at, at + length if wire == _LENGTH else None
        at += length


def _varint(content: bytes, at: int, stop: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise ValueError(f"it breaks off at byte {stop}")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"an integer before byte {at} is too long")
