"""What tests of rendered persons share."""

import pytest
import torch

from glnet_render import source
from glnet_render.corruptions import Occluders


@pytest.fixture
def bare(monkeypatch):
    """Sources without camera faults and occluders: black persons before white."""

    def nothing(draw, count, size, scenery, difficulty):
        empty = torch.zeros(count, size, size)
        return Occluders(empty, empty.unsqueeze(-1).repeat(1, 1, 1, 3), empty == 0)

    monkeypatch.setattr(source, "occluders", nothing)
    monkeypatch.setattr(source, "camera_faults", lambda draw, image, difficulty: image.clamp(0, 1))
    monkeypatch.setattr(source.Backgrounds, "sample", lambda self, draw, count, size: torch.ones(count, size, size, 3))
    monkeypatch.setattr(
        source.Wardrobe, "shade", lambda self, look, fragments, pixels: torch.zeros(*fragments.covered.shape, 3)
    )
