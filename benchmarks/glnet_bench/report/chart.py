"""A run as a picture, drawn with matplotlib where it is installed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glnet_bench.estimates import pooled
from glnet_bench.record.names import END_TO_END, NETWORK, Kind
from glnet_bench.record.run import RunRecord
from glnet_infer.errors import InputError, first_line, install_hint
from glnet_infer.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 9.0, 5.0, 100
"""Size of a panel in inches, and dots of each."""

_LEAST = 1e-4  # milliseconds; samples of nothing at all have no place on a logarithmic axis
_MOST_MARKED = 32  # points of a line that are marked one by one


class NoChartError(InputError):
    """There is nothing to draw with."""


@dataclass(frozen=True)
class Line:
    """A curve: x, y, and the range about each y.

    Attributes:
        name: Its name in the legend.
        points: Points from left to right.
        ranges: From where to where the samples of each point lie.
        is_limit: Whether it is a bound and drawn dashed.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    ranges: tuple[tuple[float, float], ...] | None = None
    is_limit: bool = False


@dataclass(frozen=True)
class Panel:
    """A diagram with logarithmic axes, or linear ones."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    logarithmic: bool = True


def draw(run: RunRecord, path: Path) -> None:
    """Write the picture of a run: a PNG with its panels one below the other.

    Raises:
        NoChartError: matplotlib is not installed.
        OutputError: The picture cannot be written.
    """
    png = io.BytesIO()
    figure(panels(run)).savefig(png, format="png")
    replace_file(path, png.getvalue())


def panels(run: RunRecord) -> list[Panel]:
    """The diagrams that a run has data for."""
    settings = run.settings
    lines = (*_curves(run, Kind.BATCH, NETWORK), *_floors(run))
    found = [Panel("Network, time per crop (median, 10 % to 90 %)", "crops in a call", "ms per crop", lines)]
    for frame in settings.frames:
        lines = _curves(run, Kind.FRAME, END_TO_END, frame.name)
        found.append(Panel(f"End-to-end, time per person, {frame.name}", "persons in the frame", "ms per person", lines))
    found.append(Panel("End-to-end, time by frame size", "megapixels", "ms per frame", _by_size(run)))
    memory = tuple(
        Line(backend, tuple((reading.frame, reading.host / (1 << 20)) for reading in soak.readings if reading.host))
        for backend, soak in run.soaks.items()
    )
    found.append(Panel("Host memory", "frames", "MiB", memory, logarithmic=False))
    most = [max((len(line.points) for line in panel.lines), default=0) for panel in found]
    least = min(2, max(most))  # a panel of single points says little beside one with curves
    return [panel for panel, points in zip(found, most, strict=True) if points and points >= least]


def _curves(run: RunRecord, kind: Kind, what: str, frame: str = "") -> tuple[Line, ...]:
    """Times divided by what is counted, a line for each backend."""
    points: dict[str, list[tuple[float, float]]] = {}
    ranges: dict[str, list[tuple[float, float]]] = {}
    for part, backend, row in run.rows_of(kind):
        if what in row.times and part.frame == frame:
            times, count = row.times[what], part.count
            low, high = np.percentile(pooled(times.turns), [10, 90]).tolist()
            points.setdefault(backend, []).append((count, times.summary.p50 / count))
            ranges.setdefault(backend, []).append((low / count, high / count))
    return tuple(Line(name, tuple(found), tuple(ranges[name])) for name, found in points.items())


def _floors(run: RunRecord) -> tuple[Line, ...]:
    """The bound of each device and precision that a backend ran with."""
    lines: dict[str, Line] = {}
    for name, entry in run.backends.items():
        label = f"bound {entry.device} {entry.precision}"
        times = ((crops, run.floor_of(name, crops)) for crops in run.settings.batches)
        points = tuple((crops, found.bound / crops) for crops, found in times if found)
        if points:
            lines[label] = Line(label, points, is_limit=True)
    return tuple(lines.values())


def _by_size(run: RunRecord) -> tuple[Line, ...]:
    """End-to-end medians against the frame's size, for the fewest persons, where the frame counts most."""
    fewest = min(run.settings.persons)
    sizes = {frame.name: frame.width * frame.height / 1e6 for frame in run.settings.frames}
    points: dict[str, list[tuple[float, float]]] = {}
    for part, backend, row in run.rows_of(Kind.FRAME):
        if END_TO_END in row.times and part.count == fewest:
            points.setdefault(backend, []).append((sizes[part.frame], row.times[END_TO_END].summary.p50))
    return tuple(Line(name, tuple(sorted(found))) for name, found in points.items())


def figure(drawn: list[Panel]) -> Figure:
    """The panels, one below the other.

    Raises:
        NoChartError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot, which would look for a screen
    except ImportError as error:
        raise NoChartError(
            "The chart was left out: matplotlib is not installed.", why=first_line(error), fix=install_hint("bench")
        ) from error
    found = Figure(figsize=(WIDTH, HEIGHT * max(1, len(drawn))), dpi=DPI)
    if not drawn:
        found.text(0.5, 0.5, "nothing was measured", ha="center")
        return found
    # By hand: matplotlib's own layout draws everything twice. The legend stands on the right.
    height, below, above = HEIGHT * len(drawn), 0.6, 0.4
    gap = (below + above) / (HEIGHT - below - above)
    found.subplots_adjust(left=0.09, right=0.76, bottom=below / height, top=1 - above / height, hspace=gap)
    for panel, axes in zip(drawn, found.subplots(len(drawn), 1, squeeze=False)[:, 0], strict=True):
        _draw_panel(axes, panel)
    return found


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        least = _LEAST if panel.logarithmic else -np.inf
        points = np.array(line.points, dtype=float).reshape(-1, 2)
        x, y = points[:, 0], np.maximum(points[:, 1], least)
        style: dict[str, Any] = {"linestyle": "--"} if line.is_limit else {}
        if not line.is_limit and len(line.points) <= _MOST_MARKED:
            style["marker"] = "o"
        low_high = np.maximum(np.array(line.ranges, dtype=float).T, least) if line.ranges else None
        spread = None if low_high is None else np.maximum([y - low_high[0], low_high[1] - y], 0)
        axes.errorbar(x, y, yerr=spread, label=line.name, capsize=2, elinewidth=1, **style)
    if panel.logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _label_ticks(axes, sorted({x for line in panel.lines for x, _ in line.points}))
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.grid(which="both", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")


def _label_ticks(axes: Axes, places: list[float]) -> None:
    """Numbers that people read: those that were measured below, no powers of ten on the left."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xticks(places, [f"{place:.3g}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(plain)
    low, high = axes.get_ylim()
    if high < 30 * low:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter(plain)
