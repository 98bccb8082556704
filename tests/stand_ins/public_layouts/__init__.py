"""Names and shapes in the public files, as the authors' own classes gave them, and state dicts fabricated from them.

``NAME.txt`` has a tensor in each line, ``name 64x3x7x7``; ``name norm 64`` stands for the five of a batch
normalisation, ``prefix.* hrnet-w48`` for another list. They were printed from instances of the classes in the
repositories that ``origin`` of each network names.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

_WHOLE = ("num_batches_tracked", "faces_tensor", "children_map", "parents")


def shapes(layout: str) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return dict(_entries(layout))


def _entries(layout: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    lines = (Path(__file__).with_name(f"{layout}.txt")).read_text().splitlines()
    for name, *rest in map(str.split, lines):
        if name.endswith(".*"):
            yield from ((f"{name[:-1]}{inner}", shape) for inner, shape in _entries(rest[0]))
        elif rest[0] == "norm":
            sides = (int(rest[1]),)
            yield from ((f"{name}.{leaf}", sides) for leaf in ("weight", "bias", "running_mean", "running_var"))
            yield f"{name}.num_batches_tracked", ()
        else:
            yield name, tuple(map(int, rest[0].split("x")))


def state_dict(layout: str, seed: int) -> dict[str, Tensor]:
    """Seeded values in the layout."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, generator) for name, shape in shapes(layout).items()}


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith(_WHOLE):
        return torch.zeros(shape, dtype=torch.int64)
    drawn = torch.rand(shape, generator=generator) / 50
    return drawn + 1 if name.endswith("running_var") else drawn
