"""A pickle machine that knows no class but its own.

A pickle is a program that names classes and functions, and calls them. Here a name is a piece of data, and a call gives a
record of it. Nothing that a file can write costs more than some hundred bytes and some microseconds for each of its steps:

- Steps are counted. Python's own machine in Python is used: the one in C reserves memory for any index that a file names.
- Keys of dictionaries are plain and short. Others are kept beside them, because their hashes may be made to collide, and
  that of a tuple may take for ever.
- Texts and bytes are no longer than what is left of the file.
"""

from __future__ import annotations

import builtins
import copyreg
import pickle
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar, NamedTuple

MOST_STEPS = 1 << 20
"""Steps of one pickle. The largest honest ones, of checkpoints with an optimizer, have some hundred thousand."""

LARGEST_INDEX = 1 << 31
LARGEST_KEY = 1 << 60
"""Whole numbers below have hashes of their own."""

_BUILTINS = frozenset(name for name, value in vars(builtins).items() if isinstance(value, type))
"""Python's own classes, errors among them, which are named and never called."""

_BUILTINS |= {"long", "unicode", "xrange", "Ellipsis", "NotImplemented"}

_OF_DATA = frozenset(
    {"_codecs", "argparse", "array", "collections", "configparser", "copy_reg", "copyreg", "dataclasses", "datetime"}
    | {"decimal", "enum", "exceptions", "fractions", "functools", "inspect", "ipaddress", "itertools", "logging", "numbers"}
    | {"pathlib", "random", "re", "signal", "statistics", "string", "time", "types", "typing", "uuid", "zoneinfo"}
)
"""Modules of Python whose classes people save: settings, dates, paths."""

_OURS = frozenset({"glnet", "glnet_bench", "glnet_export", "glnet_infer", "glnet_render", "glnet_train"})
_OF_PYTHON_2 = frozenset({"__builtin__", "commands", "cPickle", "popen2", "urllib2"})


class Name(NamedTuple):
    """The name of a class or function: all that is kept of it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


_SET = Name("builtins", "set")


class PickledObject:
    """An object that a pickle built, as data.

    Attributes:
        kind: Class or function that the pickle called.
        arguments: Arguments of the call.
        state: State that the pickle then set.
        items: Keys with values that it put into the object, where the object is a dictionary of a kind.
    """

    __slots__ = ("arguments", "items", "kind", "state")

    def __init__(self, kind: Name, arguments: tuple[Any, ...] = ()) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None
        self.items: list[tuple[Any, Any]] | None = None


class PickledDict(dict[Any, Any]):
    """A dictionary of a pickle; ``others`` are entries with a key that is no text, bytes or plain number."""

    __slots__ = ("others",)

    def __init__(self) -> None:
        self.others: list[tuple[Any, Any]] | None = None

    def put(self, key: Any, value: Any) -> None:
        """Add an entry."""
        if isinstance(key, str | bytes | bool | None) or (type(key) is int and abs(key) < LARGEST_KEY):
            self[key] = value
        else:
            self.others = self.others or []
            self.others.append((key, value))


def plain_items(document: Any) -> Iterator[tuple[str, Any]]:
    """Entries of a dictionary whose keys are texts, or bytes as Python 2 wrote them."""
    for key, value in document.items() if isinstance(document, Mapping) else ():
        if isinstance(key, str | bytes):
            yield key if isinstance(key, str) else key.decode("latin1"), value


def words_for(value: Any) -> str:
    """What a value of a pickle is, for messages."""
    if isinstance(value, Name):
        return f"name, {value}"
    return str(value.kind) if isinstance(value, PickledObject) else type(value).__name__


class _Steps(dict[int, Callable[[Any], None]]):
    """What to do at each opcode; counts."""

    left = MOST_STEPS

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {MOST_STEPS} steps")
        try:
            return super().__getitem__(opcode)
        except KeyError:
            raise pickle.UnpicklingError("it is not a pickle, or damaged") from None


class _Bounded:
    """A file that never makes room for more than it has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readline = file.readline
        start = file.tell()
        self._end = file.seek(0, 2)
        file.seek(start)

    def read(self, size: int) -> bytes:
        if size > 4096 and size > self._end - self._file.tell():
            raise EOFError("it breaks off")
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError("it breaks off")
        return content


class InertUnpickler(pickle._Unpickler):
    """Reads one pickle from where the file stands, and leaves the file behind it.

    Attributes:
        kind_of_file: Words for messages.
        actions: Names whose call gives plain data, with what gives it. All other calls give a :class:`PickledObject`.

    Args:
        file: The file.
    """

    kind_of_file = "file"
    actions: ClassVar[Mapping[Name, Callable[..., Any]]] = {}

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(_Bounded(file), encoding="latin1")
        self.dispatch = _Steps(self.dispatch | _STEPS)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        """The name, as data.

        Raises:
            pickle.UnpicklingError: A function of Python or of this library, or what belongs to a class: files of data name
                none, and hostile ones do.
        """
        package = module.partition(".")[0]
        if package in ("builtins", "__builtin__"):
            allowed = name in _BUILTINS
        elif package in sys.stdlib_module_names or package in _OF_PYTHON_2:
            allowed = package in _OF_DATA
        else:
            allowed = package not in _OURS or name[:1].isupper()
        if not allowed or any(part.startswith("_") for part in name.split(".")[1:]):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no {self.kind_of_file} contains")
        return Name(module, name)

    def get_extension(self, code: int) -> None:
        """Push what a number of Python's registry stands for. Python keeps what it gives out there; this does not."""
        name = copyreg._inverted_registry.get(code)  # type: ignore[attr-defined]
        if name is None:
            raise pickle.UnpicklingError("it names something by a number that nobody registered")
        self.stack.append(self.find_class(*name))  # type: ignore[attr-defined]

    def called(self, function: Any, arguments: Any) -> Any:
        """What a call gives.

        Raises:
            pickle.UnpicklingError: What is called is no name.
        """
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("it calls what is no class or function")
        action = self.actions.get(function) or _ACTIONS.get(function)
        return PickledObject(function, arguments) if action is None else action(*arguments)


# What replaces the steps of Python's machine that call, set attributes, hash, or make room.


def _reduce(machine: Any) -> None:
    arguments = machine.stack.pop()
    machine.stack[-1] = machine.called(machine.stack[-1], arguments)


def _new(machine: Any) -> None:
    arguments, kind = machine.stack.pop(), machine.stack.pop()
    machine.append(machine.called(kind, arguments))


def _new_with_keywords(machine: Any) -> None:
    machine.stack.pop()
    _new(machine)


def _inst(machine: Any) -> None:
    module, name = (machine.readline()[:-1].decode("utf-8") for _ in range(2))
    kind = machine.find_class(module, name)
    machine.append(machine.called(kind, tuple(machine.pop_mark())))


def _obj(machine: Any) -> None:
    kind, *arguments = machine.pop_mark()
    machine.append(machine.called(kind, tuple(arguments)))


def _build(machine: Any) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, PickledObject):
        target.state = state
    elif not isinstance(target, PickledDict):  # attributes of an OrderedDict, such as a state dict's versions
        raise pickle.UnpicklingError("it sets the state of what has none")


def _empty_dict(machine: Any) -> None:
    machine.append(PickledDict())


def _dict(machine: Any) -> None:
    items = machine.pop_mark()
    machine.append(PickledDict())
    _put(machine, items)


def _set_item(machine: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _put(machine, [key, value])


def _set_items(machine: Any) -> None:
    _put(machine, machine.pop_mark())


def _put(machine: Any, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, PickledObject):
        target.items = target.items or []
        target.items += zip(items[::2], items[1::2], strict=True)
    elif isinstance(target, PickledDict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            target.put(key, value)
    else:
        raise pickle.UnpicklingError("it puts entries into what is no dictionary")


def _append(machine: Any) -> None:
    value = machine.stack.pop()
    _extend(machine, [value])


def _appends(machine: Any) -> None:
    _extend(machine, machine.pop_mark())


def _extend(machine: Any, items: list[Any]) -> None:
    target = machine.stack[-1]
    if type(target) is list:
        target += items
    elif not isinstance(target, PickledObject):  # an unknown kind of list, which is left aside
        raise pickle.UnpicklingError("it appends to what is no list")


def _empty_set(machine: Any) -> None:
    machine.append(PickledObject(_SET))


def _add_items(machine: Any) -> None:
    machine.pop_mark()  # sets are left aside


def _frozen_set(machine: Any) -> None:
    machine.pop_mark()
    machine.append(PickledObject(_SET))


def _byte_array(machine: Any) -> None:
    (size,) = struct.unpack("<Q", machine.read(8))
    machine.append(machine.read(size))


def _memoize_at(machine: Any) -> None:
    index = int(machine.readline()[:-1])
    if not 0 <= index < LARGEST_INDEX:
        raise pickle.UnpicklingError("it is damaged: its objects are numbered beyond any count")
    machine.memo[index] = machine.stack[-1]


def _no_buffer(machine: Any) -> None:
    raise pickle.UnpicklingError("a part of it lies outside of the file")


_STEPS: dict[int, Callable[[Any], None]] = {
    pickle.REDUCE[0]: _reduce,
    pickle.NEWOBJ[0]: _new,
    pickle.NEWOBJ_EX[0]: _new_with_keywords,
    pickle.INST[0]: _inst,
    pickle.OBJ[0]: _obj,
    pickle.BUILD[0]: _build,
    pickle.EMPTY_DICT[0]: _empty_dict,
    pickle.DICT[0]: _dict,
    pickle.SETITEM[0]: _set_item,
    pickle.SETITEMS[0]: _set_items,
    pickle.APPEND[0]: _append,
    pickle.APPENDS[0]: _appends,
    pickle.EMPTY_SET[0]: _empty_set,
    pickle.ADDITEMS[0]: _add_items,
    pickle.FROZENSET[0]: _frozen_set,
    pickle.BYTEARRAY8[0]: _byte_array,
    pickle.PUT[0]: _memoize_at,
    pickle.NEXT_BUFFER[0]: _no_buffer,
    pickle.READONLY_BUFFER[0]: _no_buffer,
}


# What calls give that are data.


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``, by which protocol 2 holds Python 2's strings."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise pickle.UnpicklingError("it encodes something else than text")
    return text.encode(encoding)


def _bytes(content: Any = b"", encoding: Any = "latin1") -> bytes:
    """``bytearray`` and ``bytes`` before protocol 3 and 5."""
    return content if isinstance(content, bytes) else _encoded(content, encoding)


def _reconstructed(kind: Any, base: Any = None, content: Any = None) -> PickledObject:
    """``copyreg._reconstructor``, by which protocols 0 and 1 make an object."""
    if not isinstance(kind, Name):
        raise pickle.UnpicklingError("it builds an object of what is no class")
    made = PickledObject(kind)
    if isinstance(content, PickledDict):
        made.items = [*content.items(), *(content.others or ())]
    return made


def _dictionary(*arguments: Any) -> PickledDict:
    """``OrderedDict`` and ``defaultdict``; Python 2 wrote the entries of the first as a list."""
    made = PickledDict()
    for pair in arguments[0] if arguments and type(arguments[0]) is list else ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise pickle.UnpicklingError("it makes a dictionary of what is no list of pairs")
        made.put(*pair)
    return made


_ACTIONS: dict[Name, Callable[..., Any]] = {
    Name("_codecs", "encode"): _encoded,
    Name("builtins", "bytearray"): _bytes,
    Name("__builtin__", "bytearray"): _bytes,
    Name("builtins", "bytes"): _bytes,
    Name("__builtin__", "bytes"): _bytes,
    Name("copyreg", "_reconstructor"): _reconstructed,
    Name("copy_reg", "_reconstructor"): _reconstructed,
    Name("collections", "OrderedDict"): _dictionary,
    Name("collections", "defaultdict"): _dictionary,
    Name("builtins", "dict"): _dictionary,
    Name("__builtin__", "dict"): _dictionary,
}
