"""What an ONNX file would have its reader do, found without loading it: open other files, loop, unfold without end.

ONNX lets a tensor's values lie in any file that the graph names. Versions of ONNX Runtime have followed such names out of
the model's folder (https://github.com/microsoft/onnxruntime/pull/27430), and have taken addresses in memory for them
(https://github.com/microsoft/onnxruntime/pull/28709). What is run here is one file, so all of them are refused before that.
A loop may run for ever, while the file is opened already: constants are computed then.

The encoding: https://protobuf.dev/programming-guides/encoding. Numbers of fields: onnx.proto of https://github.com/onnx/onnx.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

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
"""Messages that hold tensors and nodes, and the fields that lead to them."""

_NAMES = {"node": (4, 7), "function": (1, 10)}
"""Fields of an operator's and a function's own name, and of its domain."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5

MOST_NODES = 1_000_000
"""Nodes with all functions written out; the largest detectors have some thousands."""

_MOST_FIELDS = 2_000_000
"""Fields that are looked at, some seconds of them. A node has about ten."""

BRANCHES = frozenset({"If"})
"""Control flow that ends: one of two branches is taken."""

_Name = tuple[bytes, bytes]
"""Domain, empty for the standard operators, and name."""


@dataclass
class _Scope:
    """A graph with all graphs inside it, or a function."""

    calls: Counter[_Name] = field(default_factory=Counter)


@dataclass(frozen=True)
class OnnxContent:
    """What an ONNX file holds.

    Attributes:
        names_other_files: Whether any tensor lies outside the file.
        control_flow: Operators that hold graphs: ``If``, ``Loop``, ``Scan`` and others.
        nodes: How many nodes run at most, with functions written out wherever they are called; one more than
            :data:`MOST_NODES` where there are more, or a function calls itself.
    """

    names_other_files: bool
    control_flow: frozenset[str]
    nodes: int

    @classmethod
    def of(cls, content: bytes) -> OnnxContent:
        """Look through a file.

        Raises:
            ValueError: The content is not encoded as ONNX models are.
        """
        walk = _Walk(content)
        return cls(walk.external, frozenset(walk.holders), walk.nodes())

    def problem(self, allowed: frozenset[str] = frozenset()) -> str:
        """Why a file like this is not loaded, in words; empty where it may be.

        Args:
            allowed: Control flow that is taken, such as :data:`BRANCHES`.
        """
        if self.names_other_files:
            return "its weights lie in other files"
        loops = sorted(self.control_flow - allowed)
        if loops:
            return f"it holds control flow: {', '.join(loops[:4])}"
        return f"it unfolds to more than {MOST_NODES} nodes" if self.nodes > MOST_NODES else ""


class _Walk:
    """All messages of a file that hold tensors or nodes, outside in."""

    def __init__(self, content: bytes) -> None:
        self._content, self._fields_left = content, _MOST_FIELDS
        self.external = False
        self.holders: set[str] = set()
        self._main, self._functions = _Scope(), dict[_Name, _Scope]()
        waiting: list[tuple[str, int, int, _Scope, str]] = [("model", 0, len(content), self._main, "")]
        while waiting:
            kind, start, stop, scope, node = waiting.pop()
            if kind in _NAMES:
                name = self._name(kind, start, stop)
                if kind == "node":
                    scope.calls[name] += 1
                    node = _printable(name[1])
                else:
                    scope = self._functions.setdefault(name, _Scope())
            for number, value, begin, end in self._fields(start, stop):
                if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
                    self.external = True
                inner = _WITHIN[kind].get(number)
                if inner is None or end is None:
                    continue
                if inner == "graph" and kind == "attribute":
                    self.holders.add(node)
                waiting.append((inner, begin, end, scope, node))

    def nodes(self) -> int:
        """See :class:`OnnxContent`."""
        functions, sizes = self._functions, dict[_Name, int]()
        callers: dict[_Name, list[_Name]] = {name: [] for name in functions}
        waiting_for: dict[_Name, int] = {}
        for name, scope in functions.items():
            called = [each for each in scope.calls if each in functions]
            waiting_for[name] = len(called)
            for each in called:
                callers[each].append(name)
        ready = [name for name, count in waiting_for.items() if not count]
        while ready:
            name = ready.pop()
            sizes[name] = self._size(functions[name].calls, sizes)
            for caller in callers[name]:
                waiting_for[caller] -= 1
                if not waiting_for[caller]:
                    ready.append(caller)
        # What is left calls itself.
        return MOST_NODES + 1 if len(sizes) < len(functions) else self._size(self._main.calls, sizes)

    @staticmethod
    def _size(calls: Counter[_Name], sizes: dict[_Name, int]) -> int:
        return min(sum(count * sizes.get(name, 1) for name, count in calls.items()), MOST_NODES + 1)

    def _name(self, kind: str, start: int, stop: int) -> _Name:
        """Domain and name; the last of several counts, as parsers have it."""
        own, domain = _NAMES[kind]
        found = {own: b"", domain: b""}
        for number, _, begin, end in self._fields(start, stop):
            if number in found and end is not None:
                found[number] = self._content[begin:end]
        return b"" if found[domain] == b"ai.onnx" else found[domain], found[own]

    def _fields(self, at: int, stop: int) -> Iterator[tuple[int, int, int, int | None]]:
        """A message's fields: number, value if it is an integer, and the span of its bytes if it has some."""
        content = self._content
        while at < stop:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"it has more than {_MOST_FIELDS} fields")
            key, at = _varint(content, at, stop)
            number, wire = key >> 3, key & 7
            if key >> 32:  # parsers drop these bits, and see another number than is read here
                raise ValueError(f"the number of a field before byte {at} is too large")
            if wire == _VARINT:
                value, at = _varint(content, at, stop)
                yield number, value, at, None
                continue
            if wire == _LENGTH:
                length, at = _varint(content, at, stop)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                length = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"a field at byte {at} has an unknown encoding")
            if at + length > stop:
                raise ValueError(f"it breaks off at byte {stop}")
            yield number, 0, at, at + length if wire == _LENGTH else None
            at += length


def _printable(name: bytes) -> str:
    return name[:80].decode(errors="replace")


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
