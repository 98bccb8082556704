"""Bilinear sampling of feature maps at points, in two forms that compute the same.

The channels of a map are those of its groups, one after the other. Each group is sampled at points of its own. Points are
in cells, whose centres are whole numbers. Outside the map, the border's value holds.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Sampler = Callable[[Tensor, Tensor], Tensor]


def sample_by_grid(maps: Float[Tensor, "n gc s s"], points: Float[Tensor, "n g s s 2"]) -> Float[Tensor, "n gc s s"]:
    """Sample with PyTorch's own operator: the fastest form in PyTorch, and GridSample in ONNX.

    It runs in float32: TensorRT wants maps and points of one type, and the points need the precision.
    """
    groups, size = points.shape[1], maps.shape[-1]
    grid = points * (2 / (size - 1)) - 1  # whole numbers at cell centres is align_corners=True
    sampled = functional.grid_sample(
        maps.unflatten(1, (groups, -1)).flatten(0, 1).float(), grid.flatten(0, 1), padding_mode="border", align_corners=True
    )
    return sampled.to(maps.dtype).reshape(maps.shape)


def sample_by_gather(maps: Float[Tensor, "n gc s s"], points: Float[Tensor, "n g s s 2"]) -> Float[Tensor, "n gc s s"]:
    """Sample by gathering the four neighbours of each point as rows of channels.

    For graphs that run on ONNX Runtime's CPU, whose GridSample computes every point anew for every channel: this form
    takes less than half its time. Rows lie pixel by pixel, groups side by side: ONNX Runtime moves convolutions' results
    into that order, and back, in one step. Maps stay in their own precision, points are float32.
    """
    crops, groups, size = maps.shape[0], points.shape[1], maps.shape[-1]
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1] // groups)
    points = points.clamp(0, size - 1).flatten(2, 3).transpose(1, 2)
    low = points.floor().clamp(max=size - 2)
    x, y = (points - low).to(maps.dtype).unbind(-1)
    # One number per row only at the end: arithmetic on columns is slow.
    weights = [weight.reshape(-1, 1) for weight in ((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y)]
    first = torch.arange(crops, dtype=torch.int32, device=maps.device)[:, None] * (size * size * groups)
    first = first + torch.arange(groups, dtype=torch.int32, device=maps.device)
    right, down = groups, size * groups
    index = (low[..., 0] + size * low[..., 1]).int() * groups + first.unsqueeze(1)
    # Points that are not numbers become any index; rows of these maps they must stay.
    index = index.flatten().clamp(0, crops * groups * size * size - 1 - right - down)
    sampled = (
        rows.index_select(0, index) * weights[0]
        + rows.index_select(0, index + right) * weights[1]
        + rows.index_select(0, index + down) * weights[2]
        + rows.index_select(0, index + down + right) * weights[3]
    )
    return sampled.reshape(-1, size, size, maps.shape[1]).permute(0, 3, 1, 2)
