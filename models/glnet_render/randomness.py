"""Random numbers of one explicit generator, in the forms that the data source needs."""

import torch
from torch import Tensor

Table = tuple[float, ...] | tuple["Table", ...]
"""Numbers in nested tuples; all rows have the same shape."""


class Draw:
    """Draws from one generator, on its device. All randomness of the data source passes through here."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device
        self._constants: dict[Table, Tensor] = {}

    def constant(self, values: "Table") -> Tensor:
        """Numbers as a float32 tensor on the device. They are copied once: every copy waits for a GPU."""
        if values not in self._constants:
            self._constants[values] = torch.tensor(values, dtype=torch.float32, device=self.device)
        return self._constants[values]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high)."""
        return torch.rand(shape, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
        """Normally distributed numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device) * deviation + mean

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Numbers between two positive ones, whose logarithms are uniform."""
        return low * (high / low) ** self.uniform(*shape)

    def chance(self, *shape: int, probability: float) -> Tensor:
        """Booleans that are true with a probability."""
        return self.uniform(*shape) < probability

    def integers(self, *shape: int, high: int) -> Tensor:
        """Whole numbers from 0 to ``high - 1``."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def choice(self, *shape: int, weights: tuple[float, ...]) -> Tensor:
        """Indices, as likely as their weights, which need not sum to 1."""
        table = self.constant(weights)
        edges = table.cumsum(0) / table.sum()
        return torch.bucketize(self.uniform(*shape), edges[:-1], right=True)

    def permutation(self, count: int) -> Tensor:
        """A random order of ``count`` things."""
        return torch.randperm(count, generator=self.generator, device=self.device)

    def directions(self, *shape: int) -> Tensor:
        """Unit vectors, ... x 3, uniform over the sphere."""
        return torch.nn.functional.normalize(self.normal(*shape, 3), dim=-1)
