"""Pieces of Markdown: sections, tables and their cells."""

from __future__ import annotations

from collections.abc import Iterable

from glnet_bench.estimates import Interval


def plain(text: object) -> str:
    """A text in one line, without characters that would steer a terminal: a file may come from anywhere."""
    line = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def table(header: list[str], body: Iterable[list[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lines of a table.

    Args:
        header: Names of the columns.
        body: Cells, row by row.
        right: Columns whose cells stand on the right.
    """
    rule = ["---:" if index in set(right) else "---" for index in range(len(header))]
    return [f"| {' | '.join(plain(cell).replace('|', '/') for cell in line)} |" for line in (header, rule, *body)]


def section(title: str, header: list[str], body: list[list[str]], introduction: str = "") -> str:
    """A section with a table; empty where the table is."""
    if not body:
        return ""
    return "\n".join([f"## {title}", "", *([introduction, ""] if introduction else []), *table(header, body)])


def interval(ratio: Interval | None) -> str:
    """A ratio with its interval; empty where there is none."""
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})" if ratio else ""


def mebibytes(value: int | None) -> str:
    """Bytes in MiB; empty where they are not known."""
    return "" if value is None else f"{value / (1 << 20):.1f}"
