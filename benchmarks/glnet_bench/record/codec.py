"""Dataclasses to JSON values and back. Reading checks every value: files come from anywhere.

A field that is empty by default, and still is, is left out of the document. A class may add what follows from its fields,
for people who read the file, in a method ``derived``; :func:`decode` ignores that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_LARGEST_INTEGER = 2**63


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, or of what its fields hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "parse"):
            return str(value)
        document = {
            field.name: encode(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (_is_empty(field.default) and getattr(value, field.name) == field.default)
        }
        return {**document, **encode(value.derived() if hasattr(value, "derived") else {})}
    if isinstance(value, Mapping):
        return {str(key): encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [encode(each) for each in value]
    return value


def _is_empty(default: Any) -> bool:
    return default is None or default is False or default in ("", ())


def decode(kind: type[T], value: Any, where: str = "") -> T:
    """The dataclass that a JSON value stands for.

    Args:
        kind: The dataclass, or the type of one of its fields.
        value: From a file.
        where: Place of the value in the file, for messages.

    Raises:
        ValueError: The value is of another type, lacks a field, or is refused by the class; says where.
    """
    return typing.cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (each for each in typing.get_args(kind) if each is not type(None))
        return None if value is None else _decode(inner, value, where)
    if origin is dict:
        return _decode_dict(typing.get_args(kind), value, where)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        inner = typing.get_args(kind)[0]
        return origin(_decode(inner, each, f"{where}[{index}]") for index, each in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _decode_class(kind, value, where)
    return _decode_plain(kind, value, where)


def _decode_dict(kinds: tuple[Any, ...], value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    key_kind, kind = kinds
    found = {}
    for name, each in value.items():
        key = _checked(where, key_kind.parse, name) if hasattr(key_kind, "parse") else _decode_plain(str, name, where)
        found[key] = _decode(kind, each, _below(where, name))
    return found


def _decode_class(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    given = {}
    for field, field_kind in _fields(kind):
        if field.name in value:
            given[field.name] = _decode(field_kind, value[field.name], _below(where, field.name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where or 'the file'} has no {field.name}")
    return _checked(where, kind, **given)


@functools.cache
def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _decode_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INTEGER:
        return float(value)
    if type(value) is not kind:
        raise _wrong(where, {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[kind], value)
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, not a finite number")
    if kind is int and abs(value) >= _LARGEST_INTEGER:
        raise ValueError(f"{where} is a number of more than 63 bits")
    if kind is str and not value.isascii():
        _checked(where, value.encode)  # half of a surrogate pair is a text to Python and to no one else
    return value


def _checked(where: str, call: Any, /, *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except ValueError as error:
        if isinstance(error, UnicodeError):
            raise ValueError(f"{where} is not Unicode text") from error
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _below(where: str, name: object) -> str:
    return f"{where}.{str(name)[:100]}" if where else str(name)[:100]


def _wrong(where: str, wanted: str, value: Any) -> ValueError:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return ValueError(f"{where or 'the document'} is {names.get(type(value), 'a number')}, not {wanted}")
