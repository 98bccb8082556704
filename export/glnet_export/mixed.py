"""The module in mixed precision, from which engines are built: types lie in the module, and the graph takes them over."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from glnet.recovery import MeshRecovery

MIXED_GRAPH_NAME = "model.mixed.onnx"


def mixed_copy(recovery: MeshRecovery, keep: Sequence[str] = ()) -> MeshRecovery:
    """A copy with backbone and Local Encoding Module in half precision; the original stays the float32 reference.

    Args:
        recovery: In float32.
        keep: Names of modules that stay in float32.

    Raises:
        ExportError: A name is no module's.
    """
    mixed = copy.deepcopy(recovery)
    mixed.use_mixed_precision(keep)
    return mixed


def half_layers(recovery: MeshRecovery) -> int:
    """How many convolutions and linear layers compute in half precision: what an engine of the module must have."""
    return len(half_layer_names(recovery))


def half_layer_names(recovery: MeshRecovery) -> list[str]:
    """Names of the convolutions and linear layers that compute in half precision."""
    return [
        name
        for name, layer in recovery.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.weight.dtype == torch.float16
    ]
