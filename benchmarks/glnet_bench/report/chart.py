"""A run as a picture, drawn with OpenCV, which the runtime needs anyway."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_bench.report.page import floor_of, rows
from glnet_infer.images import write_image

WIDTH, HEIGHT = 900, 560
"""Of a panel, pixels."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 230, 50, 70
_COLORS = (
    (180, 119, 31),
    (14, 127, 255),
    (44, 160, 44),
    (40, 39, 214),
    (189, 103, 148),
    (75, 86, 140),
    (194, 119, 227),
    (127, 127, 127),
)
"""BGR, by backend; distinct in hue."""
_BLACK, _GREY = (30, 30, 30), (215, 215, 215)
_LEAST = 1e-4  # milliseconds; samples of nothing at all have no place on a logarithmic axis
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MOST_TICKS = 9
_DECADE = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1,),
)
"""Ticks between 1 and 10 of a logarithmic axis, the finest first."""


@dataclass(frozen=True)
class Line:
    """A curve: x, y, and the range about each y. Names that begin with "bound" are limits, and drawn dashed."""

    name: str
    points: tuple[tuple[float, float], ...]
    ranges: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Panel:
    """A diagram with logarithmic axes, or linear ones."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    logarithmic: bool = True


def draw(document: dict[str, Any], path: Path) -> None:
    """Write the picture of a run: a PNG with its panels one below the other.

    Raises:
        OutputError: It cannot be written.
    """
    drawn = [draw_panel(panel) for panel in panels(document)]
    if not drawn:
        blank = np.full((HEIGHT // 4, WIDTH, 3), 255, dtype=np.uint8)
        _text(blank, "nothing was measured", (_LEFT, HEIGHT // 8), 0.6)
        drawn.append(blank)
    write_image(path, np.concatenate(drawn))


def panels(document: dict[str, Any]) -> list[Panel]:
    """The diagrams that a run has data for."""
    per_crop, limits = _curves(document, "batch", "engine"), _floor_lines(document)
    found = [Panel("Engine time per crop (median, 10% to 90%)", "crops in a call", "ms per crop", (*per_crop, *limits))]
    for frame in document["settings"]["frames"]:
        lines = _curves(document, f"frame/{frame['name']}", "end_to_end")
        found.append(Panel(f"End-to-end time per person, {frame['name']}", "persons in the frame", "ms per person", lines))
    found.append(Panel("End-to-end time by frame size", "megapixels", "ms per frame", _by_size(document)))
    memory = tuple(
        Line(part.split("/")[1], tuple((reading["frame"], reading["host"] / (1 << 20)) for reading in row["readings"]))
        for part, row in document["parts"].items()
        if part.startswith("soak/") and all(reading["host"] for reading in row.get("readings") or [{"host": None}])
    )
    found.append(Panel("Host memory", "frames", "MiB", memory, logarithmic=False))
    most = [max((len(line.points) for line in panel.lines), default=0) for panel in found]
    least = min(2, max(most))  # a panel of single points says little beside one with curves
    return [panel for panel, points in zip(found, most, strict=True) if points and points >= least]


def _curves(document: dict[str, Any], kind: str, what: str) -> tuple[Line, ...]:
    """Times divided by what is counted, a line for each backend."""
    points: dict[str, list[tuple[float, float]]] = {}
    ranges: dict[str, list[tuple[float, float]]] = {}
    for names, backend, row in rows(document, kind):
        part = row.get("parts", {}).get(what)
        if part is not None:
            count = int(names[-1])
            samples = [value for visit in part["visits"] for value in visit]
            low, high = np.percentile(samples, [10, 90]).tolist()
            points.setdefault(backend, []).append((count, part["summary"]["p50"] / count))
            ranges.setdefault(backend, []).append((low / count, high / count))
    return tuple(Line(name, tuple(found), tuple(ranges[name])) for name, found in points.items())


def _floor_lines(document: dict[str, Any]) -> tuple[Line, ...]:
    """The bound of each device and precision that a backend ran with."""
    lines: dict[str, Line] = {}
    for name, entry in document["backends"].items():
        label = f"bound {entry.get('device')} {entry.get('precision')}"
        times = [(count, floor_of(document, name, str(count))) for count in document["settings"]["batches"]]
        points = tuple((count, found["bound"] / count) for count, found in times if found)
        if points:
            lines[label] = Line(label, points)
    return tuple(lines.values())


def _by_size(document: dict[str, Any]) -> tuple[Line, ...]:
    """End-to-end medians against the frame's size, for the fewest persons, where the frame counts most."""
    persons = str(min(document["settings"]["persons"]))
    sizes = {frame["name"]: frame["width"] * frame["height"] / 1e6 for frame in document["settings"]["frames"]}
    points: dict[str, list[tuple[float, float]]] = {}
    for (frame, count), backend, row in rows(document, "frame"):
        part = row.get("parts", {}).get("end_to_end")
        if part is not None and count == persons:
            points.setdefault(backend, []).append((sizes[frame], part["summary"]["p50"]))
    return tuple(Line(name, tuple(sorted(found))) for name, found in points.items())


def draw_panel(panel: Panel) -> NDArray[np.uint8]:
    """A diagram, HEIGHT x WIDTH x 3, BGR."""
    image = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    to_pixels = _axes(image, panel)
    for index, line in enumerate(panel.lines):
        color = _COLORS[index % len(_COLORS)]
        points = [to_pixels(x, y) for x, y in line.points]
        is_limit = line.name.startswith("bound")
        for start, end in pairwise(points):
            if is_limit:
                _dashed(image, start, end, color)
            else:
                cv2.line(image, start, end, color, 2, cv2.LINE_AA)
        if not is_limit and len(points) <= 32:
            for point in points:
                cv2.circle(image, point, 4, color, -1, cv2.LINE_AA)
        for (x, _), (low, high) in zip(line.points, line.ranges or (), strict=False):
            cv2.line(image, to_pixels(x, low), to_pixels(x, high), color, 1, cv2.LINE_AA)
        y = _TOP + 10 + 24 * index
        cv2.line(image, (WIDTH - _RIGHT + 12, y), (WIDTH - _RIGHT + 36, y), color, 1 if is_limit else 3, cv2.LINE_AA)
        _text(image, line.name, (WIDTH - _RIGHT + 44, y + 5), 0.45)
    return image


def _axes(image: NDArray[np.uint8], panel: Panel) -> Any:
    """Draw title, frame, ticks and labels; a function from values to pixels."""
    points = [point for line in panel.lines for point in line.points]
    spans = [bound for line in panel.lines for pair in line.ranges or () for bound in pair]
    x_ticks = _ticks([x for x, _ in points], panel.logarithmic, base=2)
    y_ticks = _ticks([*(y for _, y in points), *spans], panel.logarithmic, base=10)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def place(value: float, ticks: list[float]) -> float:
        low, high = ticks[0], ticks[-1]
        if panel.logarithmic:
            return math.log(max(value, low) / low) / math.log(high / low)
        return (value - low) / (high - low)

    def to_pixels(x: float, y: float) -> tuple[int, int]:
        return (
            round(_LEFT + place(x, x_ticks) * (right - _LEFT)),
            round(bottom - place(y, y_ticks) * (bottom - _TOP)),
        )

    for tick in x_ticks:
        x = to_pixels(tick, y_ticks[0])[0]
        cv2.line(image, (x, _TOP), (x, bottom), _GREY, 1)
        _text(image, f"{tick:g}", (x, bottom + 20), 0.45, middle=True)
    for tick in y_ticks:
        y = to_pixels(x_ticks[0], tick)[1]
        cv2.line(image, (_LEFT, y), (right, y), _GREY, 1)
        _text(image, f"{tick:.3g}", (_LEFT - 60, y + 5), 0.45)
    cv2.rectangle(image, (_LEFT, _TOP), (right, bottom), _BLACK, 1)
    _text(image, f"{panel.title}: {panel.y_label}", (_LEFT, _TOP - 18), 0.6)
    _text(image, panel.x_label, ((_LEFT + right) // 2, HEIGHT - 20), 0.5, middle=True)
    return to_pixels


def _ticks(values: list[float], logarithmic: bool, base: int) -> list[float]:
    """Round values that enclose all given ones; at least two."""
    low, high = min(values), max(values)
    if logarithmic:
        low, high = max(low, _LEAST), max(high, _LEAST)
    if not logarithmic:
        span = max(high - low, 1e-9 * max(1.0, abs(high)), 1.0)
        step = 10 ** math.floor(math.log10(span))
        step = step / 2 if span / step < 3 else step
        first = math.floor(low / step)
        return [step * index for index in range(first, max(first + 1, math.ceil(high / step)) + 1)]
    exponents = range(math.floor(math.log(low, base)) - 1, math.ceil(math.log(high, base)) + 2)
    for factors in _DECADE if base == 10 else ((1,),):
        candidates = [factor * float(base) ** exponent for exponent in exponents for factor in factors]
        first = max(index for index, tick in enumerate(candidates) if tick <= low * (1 + 1e-9))
        last = min(index for index, tick in enumerate(candidates) if tick >= high * (1 - 1e-9))
        ticks = candidates[first : max(last, first + 1) + 1]
        if len(ticks) <= _MOST_TICKS:
            break
    return ticks


def _dashed(image: NDArray[np.uint8], start: tuple[int, int], end: tuple[int, int], color: tuple[int, int, int]) -> None:
    pieces = max(1, round(math.dist(start, end) / 8))
    places = np.linspace(start, end, pieces + 1).round().astype(int).tolist()
    for first, second in list(pairwise(places))[::2]:
        cv2.line(image, first, second, color, 1, cv2.LINE_AA)


def _text(image: NDArray[np.uint8], text: str, place: tuple[int, int], scale: float, middle: bool = False) -> None:
    x, y = place
    if middle:
        x -= cv2.getTextSize(text, _FONT, scale, 1)[0][0] // 2
    cv2.putText(image, text, (x, y), _FONT, scale, _BLACK, 1, cv2.LINE_AA)
