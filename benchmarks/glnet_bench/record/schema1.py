"""Runs of schema 1 (until 2026-11): parts of all kinds in one object, the network's times called ``engine``."""

from __future__ import annotations

from typing import Any

from glnet_bench.record.names import NETWORK, Kind, Part

_OLD_NETWORK = "engine"
_SECONDS = {"import": "importing", "load": "loading", "first": "first_call", "further": "later_call"}


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """The same run in the layout of schema 2.

    What is of no known layout is left as it is: whoever decodes the result refuses it.

    Raises:
        ValueError: A part has a name that no part has.
    """
    found = {key: value for key, value in document.items() if key not in ("parts", "floor")}
    found["schema"] = 2
    found.update({"starts": {}, "soaks": {}, "rows": {}})
    for name, content in _object(document, "parts").items():
        part = Part.parse(name)
        if part.kind is Kind.FLOOR:
            found["floor"] = _floor(content)
        elif part.kind in (Kind.START, Kind.SOAK):
            found["starts" if part.kind is Kind.START else "soaks"][part.backend] = _start(content)
        else:
            found["rows"][name] = {backend: _row(row) for backend, row in _object({"": content}, "").items()}
    found["backends"] = {
        name: _renamed(entry, {"says": "description"}) for name, entry in _object(document, "backends").items()
    }
    return found


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key or 'a part'} is not an object")
    return value


def _renamed(value: Any, names: dict[str, str]) -> Any:
    return {names.get(key, key): each for key, each in value.items()} if isinstance(value, dict) else value


def _floor(content: Any) -> Any:
    """Ceilings and costs, apart from the reasons why there is none."""
    if not isinstance(content, dict):
        return content
    found = dict(content)
    for old, reasons in (("ceilings", "no_ceilings"), ("costs", "no_costs")):
        entries = _object(content, old).items()
        failed = {name: entry["reason"] for name, entry in entries if isinstance(entry, dict) and "reason" in entry}
        found[old] = {name: entry for name, entry in entries if name not in failed}
        found[reasons] = failed
    return found


def _start(content: Any) -> Any:
    if isinstance(content, dict) and "seconds" in content:
        return {**content, "seconds": _renamed(content["seconds"], _SECONDS)}
    return content


def _row(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    found = {key: value for key, value in row.items() if key != "parts"}
    times = _renamed(row.get("parts", {}), {_OLD_NETWORK: NETWORK})
    if isinstance(times, dict):
        times = {name: _renamed(each, {"visits": "turns"}) for name, each in times.items()}
    return {**found, "times": times}
