"""Seeds of all random numbers, none used twice.

PyTorch's generator on a CPU looks at the low 32 bits of a seed alone, so purposes and numbers cannot simply be set side by
side in 64 bits. Training draws from the lower half of the 32 bits; crops that it must never see come from the upper half.
"""

import numpy as np

BLOCKS, STEPS, PERSONS, BYSTANDERS = 0, 1, 2, 3
"""Purposes of drawings: rendered blocks of crops, the choices of a step, a real person's box, and bystanders."""

LARGEST_SEED = (1 << 31) - 1

HELD_OUT = (1 << 31) + 1
"""Seed of the crops that networks are scored on."""

PICTURES = (1 << 31) + 2
"""Seed of the crops on a training's overlay pictures."""

PRECISION = (1 << 31) + 3
"""Seed of the crops that half precision is measured on."""

CALIBRATION = (1 << 31) + 4
"""Seed of the crops that ranges of int8 are taken from."""

INT8_CHOICE = (1 << 31) + 5
"""Seed of the crops on which layers of an int8 graph are chosen."""

NARROW_VERDICT = (1 << 31) + 6
"""Seed of the crops that int8 and bfloat16 are judged on."""


def derived(seed: int, purpose: int, number: int) -> int:
    """The seed of the n-th drawing for a purpose: 31 mixed bits, in the same half as ``seed``, which it is derived from."""
    mixed = int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])
    return (mixed & LARGEST_SEED) | (seed & ~LARGEST_SEED)
