"""Records from plain values of any origin, such as a JSON document that somebody sent.

A record is a dataclass. The annotation of each field says what may stand there: a type, a :class:`Rule` beside it
(``Annotated[int, BETWEEN]``), or another record. A record with a method ``problems() -> list[str]`` is asked as well.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

_Record = TypeVar("_Record")

LARGEST_NUMBER = 1 << 62
"""Larger ones overflow what they are turned into."""

DEEPEST = 32
"""Levels of a free value. Python's own recursion ends at some hundreds."""

LONGEST_QUOTE = 80
"""Characters of a foreign value in a message."""


class FieldError(ValueError):
    """A value is missing, or is not what its record holds; the message says which one."""


@dataclass(frozen=True)
class Rule:
    """What a value must be beyond its type.

    Attributes:
        holds: Whether a value of the right type is one.
        words: What it must be, such as ``a file name``.
    """

    holds: Callable[[Any], bool]
    words: str


def between(least: float, most: float) -> Rule:
    """A number in a range that includes its ends."""
    return Rule(lambda value: bool(least <= value <= most), f"a number from {least} to {most}")


def matching(pattern: str, words: str) -> Rule:
    """A text that a regular expression matches as a whole."""
    return Rule(lambda value: re.fullmatch(pattern, value) is not None, words)


def read_record(kind: type[_Record], document: Any, where: str = "") -> _Record:
    """A record from a plain value. Keys that it does not know are left aside, so that later versions may add some.

    Args:
        kind: The record's class.
        document: The plain value.
        where: The record's place in the whole, for messages, such as ``engines[0]``.

    Raises:
        FieldError: A value is missing or is not what the record holds.
    """
    if not isinstance(document, dict):
        raise _wrong(where, document, "an object with keys")
    hints, values = _hints(typing.cast("Any", kind)), {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name in document:
            place = f"{where}.{item.name}" if where else item.name
            values[item.name] = _value(hints[item.name], document[item.name], place)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise FieldError(f"{where or 'it'} lacks {item.name!r}")
    record = kind(**values)
    problems: list[str] = getattr(record, "problems", list)()
    if problems:
        raise FieldError("; ".join(f"{where}: {each}" if where else each for each in problems))
    return record


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value of the annotated kind."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        found = _value(arguments[0], value, where)
        for rule in arguments[1:]:
            if isinstance(rule, Rule) and not rule.holds(found):
                raise _wrong(where, value, rule.words)
        return found
    if origin is typing.Literal:
        if not isinstance(value, str) or value not in arguments:
            raise _wrong(where, value, f"one of {', '.join(map(str, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, value, "an object with keys")
        return {key: _value(arguments[1], each, f"{where}.{quote(key)}") for key, each in value.items()}
    if dataclasses.is_dataclass(hint):
        return read_record(typing.cast("type[Any]", hint), value, where)
    return _plain(value, where) if hint is Any else _scalar(hint, value, where)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        try:
            return _value(kind, value, where)
        except FieldError:
            continue
    return _value(last, value, where)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(where, value, "a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise _wrong(where, value, f"a list of {len(kinds)}")
    return tuple(
        _value(kind, each, f"{where}[{index}]") for index, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and type(value) is int and abs(value) <= LARGEST_NUMBER:
        return value
    if kind is float and type(value) in (int, float) and abs(value) <= LARGEST_NUMBER:  # false for NaN
        return float(value)
    raise _wrong(where, value, {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}[kind])


def _plain(value: Any, where: str) -> Any:
    """A free value as it is, once nothing in it can do harm later: numbers that are finite, and not too many levels."""
    waiting = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if depth > DEEPEST:
            raise FieldError(f"{where} is nested too deeply")
        if isinstance(each, dict):
            waiting += ((inner, depth + 1) for inner in each.values())
        elif isinstance(each, list):
            waiting += ((inner, depth + 1) for inner in each)
        elif isinstance(each, int | float) and not abs(each) <= LARGEST_NUMBER:  # false for NaN, and never too long
            raise _wrong(where, each, "a finite number")
    return value


def _wrong(where: str, value: Any, wanted: str) -> FieldError:
    return FieldError(f"{where or 'it'} is {quote(value)}, not {wanted}")


def quote(value: Any) -> str:
    """A foreign value for a message, shortened."""
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return "a huge number"
    if isinstance(value, dict | list):  # the words of a large one would be gone over as a whole
        return (
            f"a {'list' if isinstance(value, list) else 'group'} of {len(value)}" if len(value) > 8 else _shortened(value)
        )
    return _shortened(value)


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply; a number with too many digits
        return "a value that cannot be shown"
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."
