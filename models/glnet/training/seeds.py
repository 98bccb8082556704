"""Seeds of everything random, none used twice.

PyTorch's generator on a CPU looks at the low 32 bits of a seed alone, so purposes and numbers cannot simply be set side by
side in 64 bits. Training draws from the lower half of the 32, what it must never see from the upper.
"""

import numpy as np

BLOCKS, STEPS, PERSONS = 0, 1, 2
"""What a training draws numbers for: rendered blocks of crops, the choices of a step, and a real person's box."""

LARGEST_SEED = (1 << 31) - 1

HELD_OUT = (1 << 31) + 1
"""Of the crops that networks are scored on."""

PICTURES = (1 << 31) + 2
"""Of the crops on a training's overlay pictures."""

PRECISION = (1 << 31) + 3
"""Of the crops that half precision is measured on."""


def derived(seed: int, purpose: int, number: int) -> int:
    """The seed of the n-th drawing for a purpose, in a training with a seed: 31 bits, well mixed."""
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0]) & LARGEST_SEED
