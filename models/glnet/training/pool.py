"""Crops rendered ahead and used several times: rendering and training share the same cores.

Block k of the pool is a function of the seed and k alone, so a resumed training renders the blocks that it needs again and
goes on with the very same crops.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from glnet.training.targets import Targets

Block = tuple[Tensor, Targets]
"""Crops N x S x S x 3 uint8, and what the network should say about them."""


class CropPool:
    """A window over an endless sequence of rendered blocks.

    Args:
        render: Renders block k.
        blocks: Blocks held at a time.
        first: Oldest block to hold.
    """

    def __init__(self, render: Callable[[int], Block], blocks: int, first: int = 0) -> None:
        self._render = render
        self.first = first
        self._held = deque(render(first + k) for k in range(blocks))

    def advance(self) -> None:
        """Replace the oldest block by the next."""
        self._held.popleft()
        self.first += 1
        self._held.append(self._render(self.first + len(self._held)))

    def draw(self, count: int, generator: torch.Generator) -> Block:
        """Crops drawn evenly from all that is held."""
        size = len(self._held[0][0])
        chosen = torch.randint(len(self._held) * size, (count,), generator=generator)
        picked = [(self._held[int(i) // size], int(i) % size) for i in chosen]
        crops = torch.stack([block[0][row] for block, row in picked])
        return crops, _stack([_row(block[1], row) for block, row in picked])


def _row(targets: Targets, row: int) -> Targets:
    estimate = type(targets.estimate)(*(part[row] for part in targets.estimate))
    return Targets(estimate, *(part[row] for part in targets[1:]))


def _stack(rows: list[Targets]) -> Targets:
    estimate = type(rows[0].estimate)(*(torch.stack(parts) for parts in zip(*(row.estimate for row in rows), strict=True)))
    return Targets(estimate, *(torch.stack(parts) for parts in zip(*(row[1:] for row in rows), strict=True)))
