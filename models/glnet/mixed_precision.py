"""Modules that stay in float32 inside a network in half precision."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from glnet_infer.errors import ExportError


class InFloat32(nn.Module):
    """A module in float32 between half-precision neighbours, with casts at its borders."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.float()

    def forward(self, value: Any) -> Any:
        """Run the module in float32 on half precision, and give half precision back.

        The backbone's features, a tuple, stay in float32: those who take them cast them.
        """
        result = self.module(_cast(value, torch.float32))
        return result if isinstance(result, tuple) else _cast(result, torch.float16)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A tensor, or a list of them, in another type."""
    return value.to(dtype) if isinstance(value, Tensor) else [part.to(dtype) for part in value]


def _takes_one(module: nn.Module) -> bool:
    """Whether a module is called with one argument; lists of modules are not called at all."""
    return not isinstance(module, nn.ModuleList) and len(signature(module.forward).parameters) == 1


def keep_in_float32(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Put the outermost modules whose names match a pattern back into float32, in place.

    Args:
        network: Network with modules in half precision.
        patterns: Names as ``named_modules`` gives them, with ``*`` and ``?``: ``backbone.stage4``, ``*.fuse_layers.*``.

    Returns:
        Names of the modules that were put back.

    Raises:
        ExportError: A pattern matches no module in half precision.
    """
    names = [
        name
        for name, module in network.named_modules()
        if name and _takes_one(module) and any(parameter.dtype == torch.float16 for parameter in module.parameters())
    ]
    kept: list[str] = []
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise ExportError(
                f"No module in half precision matches {pattern!r}.",
                why=f"there are {', '.join(name for name in names if name.count('.') < 2)}",
                fix="give a module's name; * stands for any text",
            )
        kept += matching
    # Parents come before their children.
    outermost = [name for name in names if name in kept and not any(name.startswith(f"{other}.") for other in kept)]
    for name in outermost:
        network.set_submodule(name, InFloat32(network.get_submodule(name)))
    return outermost
