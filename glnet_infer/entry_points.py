"""Entry points, by which other packages join a table of this library. A broken one disturbs nothing but itself."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from glnet_infer.errors import BackendError, first_line


class Named(Protocol):
    """An entry of a table."""

    @property
    def name(self) -> str:
        """Its name in the table."""


K = TypeVar("K", bound=Named)


def with_offered(
    built_in: Sequence[K],
    group: str,
    what: str,
    broken: Callable[[str, str, Callable[..., Any]], K],
    taken: Collection[str] = (),
) -> dict[str, K]:
    """A table by name: this library's entries, then those of other packages. A name that is taken stays what it is.

    Args:
        built_in: This library's entries, one at least. Those of others are of its class.
        group: The group of entry points.
        what: What an entry is, in messages: ``backend``.
        broken: Makes the entry of one that cannot be loaded: of its name, of what to say in place of its description, and
            of a function that raises ``BackendError`` whatever it is called with.
        taken: Names that nobody may offer, beside those of the built-in entries.
    """
    table, kind_class = {kind.name: kind for kind in built_in}, type(built_in[0])
    for point in importlib.metadata.entry_points(group=group):
        if point.name in table or point.name in taken:
            continue
        try:
            kind = point.load()
            if not isinstance(kind, kind_class):
                raise TypeError(f"{point.value} is a {type(kind).__name__}, not a {kind_class.__name__}")
            if kind.name != point.name:
                raise ValueError(f"{point.value} calls itself {kind.name!r}, and its entry point {point.name!r}")
        except Exception as error:  # code of others
            kind = broken(point.name, f"cannot be loaded: {first_line(error)}", _refusal(point, what, first_line(error)))
        table[point.name] = kind
    return table


def _refusal(point: importlib.metadata.EntryPoint, what: str, why: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        raise BackendError(
            f"The {what} {point.name!r} of another package cannot be loaded.",
            why=why,
            fix=f"update or remove the package that offers {point.value}",
        )

    return refuse
