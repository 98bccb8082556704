"""Outputs of a model of Triton in the form that the contract has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from glnet_infer.backends.base import Outputs
from glnet_infer.contract import TensorSpec
from glnet_infer.errors import BackendError


def as_promised(found: Mapping[str, NDArray[Any] | None], specs: tuple[TensorSpec, ...], backend: str) -> Outputs:
    """The outputs of a call.

    Triton has no outputs without sides: one number for each crop comes as a row of one.

    Args:
        found: What came, by name; None for what did not.
        specs: The outputs that the bundle's manifest promises.
        backend: What ran the network, for messages.

    Raises:
        BackendError: One is missing.
    """
    outputs: Outputs = {}
    for spec in specs:
        array = found.get(spec.name)
        if array is None:
            raise BackendError(
                f"{backend} gave no {spec.name}.",
                why="its configuration is not the one that glnet-export triton wrote",
                fix="export the repository again",
            )
        outputs[spec.name] = array[:, 0] if len(spec.shape) == 1 and array.shape[1:] == (1,) else array
    return outputs
