"""Diagrams: every point lies inside its frame, whatever the values."""

import numpy as np
import pytest

from glnet_bench.report.chart import HEIGHT, WIDTH, Line, Panel, draw_panel


@pytest.mark.parametrize("logarithmic", [True, False])
@pytest.mark.parametrize(
    "values", [[(1, 3.0), (16, 0.7)], [(1, 5.0), (2, 5.0)], [(1, 0.0), (2, 1e-9)], [(1, 1e-3), (1024, 9e4)]]
)
def test_any_values_are_drawn_inside_the_frame(values, logarithmic):
    blank = draw_panel(Panel("title", "x", "y", (Line("name", tuple(values)),), logarithmic))
    ranges = tuple((0.9 * y, 1.1 * y) for _, y in values)
    drawn = draw_panel(Panel("title", "x", "y", (Line("name", tuple(values), ranges),), logarithmic))
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    colored = np.argwhere((drawn[..., 0] > 170) & (drawn[..., 2] < 60))  # the first line's blue, beside black and grey
    assert len(colored) > 100
    assert colored[:, 0].max() <= HEIGHT - 60 and colored[:, 0].min() >= 40
    assert blank.shape == drawn.shape


def test_a_higher_value_is_drawn_higher():
    def middle(y):
        image = draw_panel(Panel("title", "x", "y", (Line("name", ((1, y), (4, y))), Line("other", ((1, 1), (4, 100))))))
        left = image[:, :600]
        return np.argwhere((left[..., 0] > 170) & (left[..., 2] < 60))[:, 0].mean()

    assert middle(50) < middle(5) < middle(2)
