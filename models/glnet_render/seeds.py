"""Seeds of everything random, none used twice.

PyTorch's generator on a CPU looks at the low 32 bits of a seed alone, so purposes and numbers cannot simply be set side by
side in 64 bits. Training draws from the lower half of the 32, what it must never see from the upper.
"""

import numpy as np

BLOCKS, STEPS, PERSONS, BYSTANDERS = 0, 1, 2, 3
"""What numbers are drawn for: rendered blocks of crops, the choices of a step, a real person's box, and who else is in a
source's crops."""

LARGEST_SEED = (1 << 31) - 1

HELD_OUT = (1 << 31) + 1
"""Of the crops that networks are scored on."""

PICTURES = (1 << 31) + 2
"""Of the crops on a training's overlay pictures."""

PRECISION = (1 << 31) + 3
"""Of the crops that half precision is measured on."""


def derived(seed: int, purpose: int, number: int) -> int:
    """The seed of the n-th drawing for a purpose, beside another seed and in its half: 31 bits of its own, well mixed."""
    mixed = int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])
    return (mixed & LARGEST_SEED) | (seed & ~LARGEST_SEED)
