"""Diagrams: every point lies inside its frame, whatever the values."""

import io
import sys

import cv2
import numpy as np
import pytest

from glnet_bench.report import chart
from glnet_bench.report.chart import DPI, HEIGHT, WIDTH, Line, NoChartError, Panel, figure


def drawn(*lines, logarithmic=True):
    """A panel's pixels, BGR, and its axes."""
    found = figure([Panel("title", "x", "y", lines, logarithmic)])
    png = io.BytesIO()
    found.savefig(png, format="png")
    return cv2.imdecode(np.frombuffer(png.getvalue(), np.uint8), cv2.IMREAD_COLOR), found.axes[0]


def blue(image):
    """Where the first line is drawn: its colour, beside black and grey."""
    return np.argwhere((image[..., 0] > 150) & (image[..., 2] < 80))


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize(
    "values", [[(1, 3.0), (16, 0.7)], [(1, 5.0), (2, 5.0)], [(1, 0.0), (2, 1e-9)], [(1, 1e-3), (1024, 9e4)]]
)
def test_any_values_are_drawn_inside_the_frame(values, logarithmic):
    ranges = tuple((0.9 * y, 1.1 * y) for _, y in values)
    image, axes = drawn(Line("name", tuple(values), ranges), logarithmic=logarithmic)
    assert image.shape == (HEIGHT * DPI, WIDTH * DPI, 3)
    assert len(blue(image)) > 100
    points = axes.transData.transform([(x, max(y, chart._LEAST) if logarithmic else y) for x, y in values])
    frame = axes.get_window_extent()
    assert all(frame.contains(x, y) for x, y in points)


def test_a_higher_value_is_drawn_higher():
    def middle(y):
        image, _ = drawn(Line("name", ((1, y), (4, y))), Line("other", ((1, 1), (4, 100))))
        return blue(image[:, :600])[:, 0].mean()

    assert middle(50) < middle(5) < middle(2)


def test_the_range_of_samples_is_drawn_about_a_point():
    image, axes = drawn(Line("name", ((1, 2.0), (4, 2.0)), ((1.0, 8.0), (1.0, 8.0))))
    rows = len(image) - axes.transData.transform([(1, 8.0), (1, 1.0)])[:, 1]  # pixels count from above
    found = blue(image[:, :600])[:, 0]
    assert (found.min(), found.max()) == pytest.approx(rows, abs=4)  # and half the width of a line and its cap


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoChartError, match="matplotlib is not installed") as error:
        figure([])
    assert "[bench]" in error.value.fix
