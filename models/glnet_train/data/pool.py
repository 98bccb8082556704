"""Crops rendered ahead and used several times: rendering and training share the same cores.

Block k of the pool is a function of the seed and k alone, so a resumed training renders the blocks that it needs again and
goes on with the very same crops.
"""

from collections.abc import Callable, Iterator

import torch

from glnet_render.targets import Batch, Targets


class CropPool:
    """A window over an endless sequence of rendered blocks of one size. It is empty until :meth:`fill` has ended.

    Args:
        render: Function that renders block k.
        blocks: Blocks held at a time.
        first: Oldest block to hold.
    """

    def __init__(self, render: Callable[[int], Batch], blocks: int, first: int = 0) -> None:
        self._render = render
        self._blocks = blocks
        self.first = first
        # Block k lies in slot k modulo the number of slots, so that draws find the same crops after a resume.
        self._held: list[Batch] = []

    def fill(self) -> Iterator[tuple[int, int]]:
        """Render the first blocks, which takes long; yields after each how many are done, and how many there are."""
        for slot in range(len(self._held), self._blocks):
            self._held.append(self._render(self.first + (slot - self.first) % self._blocks))
            yield len(self._held), self._blocks

    def advance(self) -> None:
        """Replace the oldest block by the next."""
        self._held[self.first % self._blocks] = self._render(self.first + self._blocks)
        self.first += 1

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Crops drawn evenly from all that is held."""
        size = len(self._held[0].crops)
        chosen = torch.randint(self._blocks * size, (count,), generator=generator).sort().values
        slots, picked = chosen.div(size, rounding_mode="floor"), []
        for slot in slots.unique().tolist():
            block = self._held[slot]
            rows = (chosen[slots == slot] % size).to(block.crops.device)
            picked.append((block.crops[rows], block.targets.map(lambda part, rows=rows: part[rows])))
        return Batch(
            torch.cat([crops for crops, _ in picked]),
            Targets.concatenate([targets for _, targets in picked]),
        )
