"""The state of a training as it lies on a disk: read without running code, and looked through before it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from glnet.config import GLNetConfig
from glnet.pickles import PickledDict
from glnet.weights import CheckpointFile, open_checkpoint
from glnet.weights.tensors import StoredTensor
from glnet_infer.errors import CheckpointError, first_line
from glnet_infer.fields import LARGEST_NUMBER, quote, read_record
from glnet_train.objective.losses import LossWeights
from glnet_train.objective.matching import Matching
from glnet_train.recipe import Recipe

STATE_FORMAT = "glnet-training-state"
STATE_VERSION = 7

_MOST_VALUES = 1 << 18
"""Values of a state; an honest one has some ten thousand. A list may hold another one many times."""


def read_state(path: Path) -> dict[str, Any]:
    """The state that a training saved: configuration and recipe as plain values, the rest as tensors on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, something else, or of another version.
    """
    try:
        with open_checkpoint(path) as file:
            problem, state = _other_kind(file.document), {}
            if not problem:
                state = _Reader(file, 2 * path.stat().st_size).value(file.document)
        if problem:
            raise ValueError(problem)
        _check(state)
    except Exception as error:  # records and configurations raise several kinds
        raise CheckpointError(
            f"The training state {path} was not read.",
            why=getattr(error, "why", "") or first_line(error),
            fix="start in another directory from the weights beside it (--initial), or copy the state again",
        ) from error
    return state


class _Reader:
    """Turns the document of a file into plain values and tensors.

    Args:
        file: The file.
        most: Bytes that all tensors together may have: several may be views of the same numbers.
    """

    def __init__(self, file: CheckpointFile, most: int) -> None:
        self._file, self._bytes_left, self._values_left = file, most, _MOST_VALUES

    def value(self, value: Any) -> Any:
        """A value with all that it holds.

        Raises:
            ValueError: It is no plain value, or there are too many.
        """
        self._values_left -= 1
        if self._values_left < 0:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if isinstance(value, StoredTensor):
            return self._tensor(value)
        if isinstance(value, PickledDict) and not value.others:
            return {key: self.value(each) for key, each in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.value(each) for each in value)
        if value is None or isinstance(value, str | int | float):
            return value
        raise ValueError("it holds what no training saves")

    def _tensor(self, stored: StoredTensor) -> Tensor:
        size = math.prod(stored.shape) * stored.dtype.itemsize
        self._bytes_left -= size
        if size > stored.storage.size or self._bytes_left < 0:
            raise ValueError("its tensors are larger than the file")
        return self._file.read(stored).clone()


def _other_kind(document: Any) -> str:
    """What a document is that is no state of this version, in words; empty where it is one."""
    if not isinstance(document, dict) or document.get("format") != STATE_FORMAT:
        return "it is not a training state"
    version = document.get("version")
    if type(version) is not int or version != STATE_VERSION:
        return f"its version is {quote(version)}, this library reads {STATE_VERSION}"
    return ""


def _check(state: dict[str, Any]) -> None:
    """Refuse what would fail later, or train another way than was asked for.

    Raises:
        Exception: It is such a state; kinds differ, and all say what is wrong.
    """
    for part, kind in (("recipe", Recipe), ("matching", Matching), ("weights", LossWeights)):
        read_record(kind, state[part], part)
        kind(**state[part])  # which knows no other names
    GLNetConfig.from_dict(state["config"])
    for name, least in (("step", 0), ("processes", 1)):
        if type(state[name]) is not int or not least <= state[name] <= LARGEST_NUMBER:
            raise ValueError(f"{name} is {quote(state[name])}, not a number from {least} on")
    if not isinstance(state["photographs"], str | None):
        raise ValueError(f"photographs is {quote(state['photographs'])}, not a text")
    for name in ("network", "averaged", "guidance"):
        if not isinstance(state[name], dict) or not all(isinstance(each, Tensor) for each in state[name].values()):
            raise ValueError(f"{name} is not weights by their names")
