"""Pickles of any origin as data: what they name is never imported, and nothing that they ask for is called."""

from glnet.pickles.arrays import ARRAYS, SCALARS, Conversion
from glnet.pickles.machine import InertUnpickler, Name, PickledDict, PickledObject, plain_items, words_for

__all__ = [
    "ARRAYS",
    "SCALARS",
    "Conversion",
    "InertUnpickler",
    "Name",
    "PickledDict",
    "PickledObject",
    "plain_items",
    "words_for",
]
