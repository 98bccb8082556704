"""What a bundle's manifest promises of its graph, compared with the graph itself and with what it gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_infer.backends.base import Outputs
from glnet_infer.bundle import Bundle
from glnet_infer.contract import TensorSpec
from glnet_infer.errors import BackendError, BundleError, first_line
from glnet_infer.fields import quote
from glnet_infer.onnx_files import OnnxContent

_DTYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(float)": "float32"}
"""NumPy's names of ONNX Runtime's types, those that the contract has."""


@dataclass(frozen=True)
class Offered:
    """An input or output of a graph, as what runs the graph describes it.

    Attributes:
        name: Its name.
        dtype: NumPy's name of its type, or another word where NumPy has none.
        shape: Its sides; what is no whole number is left open.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]


_FIX = "copy the bundle again, or export the checkpoint again; files of two bundles do not mix"


def check_content(content: bytes, path: Path) -> None:
    """Refuse a graph that opens other files, loops, or unfolds without end, before a runtime reads it.

    Args:
        content: The ONNX file.
        path: Its path, for messages.

    Raises:
        BundleError: It is such a graph, or no ONNX file.
    """
    try:
        problem = OnnxContent.of(content).problem()
    except ValueError as error:
        problem = first_line(error)
    if problem:
        raise BundleError(f"{path} is not a graph that is run.", why=problem, fix="export the checkpoint again")


class Promise:
    """The inputs and outputs that a bundle's manifest names.

    Args:
        bundle: The opened bundle.
        path: The graph's file, for messages; the runtime's graph where None.
    """

    def __init__(self, bundle: Bundle, path: Path | None = None) -> None:
        self._path, self._manifest = path or bundle.graph, bundle.manifest
        self._rows = [
            (spec.name, np.dtype(spec.dtype), tuple(self._side(side) for side in spec.shape[1:]))
            for spec in self._manifest.outputs
        ]

    def check_session(self, session: Any) -> None:
        """Compare names, types and shapes with those of a session of ONNX Runtime.

        Sides that the graph leaves open are compared when it runs.

        Raises:
            BundleError: They differ.
        """
        self.check(
            *(
                [Offered(each.name, _DTYPES.get(each.type, each.type), tuple(each.shape)) for each in offered]
                for offered in (session.get_inputs(), session.get_outputs())
            )
        )

    def check(self, inputs: Sequence[Offered], outputs: Sequence[Offered]) -> None:
        """Compare names, types and shapes with those that a graph offers.

        Raises:
            BundleError: They differ.
        """
        problems = self.problems(inputs, outputs)
        if problems:
            raise BundleError(
                f"{self._path} is not the graph that the manifest describes.", why="; ".join(problems), fix=_FIX
            )

    def problems(self, inputs: Sequence[Offered], outputs: Sequence[Offered]) -> list[str]:
        """What in a graph's inputs and outputs is not as the manifest promises, in words; nothing where all is."""
        return [
            *self._differences(self._manifest.inputs, inputs, "input"),
            *self._differences(self._manifest.outputs, outputs, "output"),
        ]

    def check_outputs(self, outputs: Outputs, crops: int, backend: str) -> None:
        """Compare what a backend gave for so many crops.

        Raises:
            BackendError: An array has another type or shape, or is not finite.
        """
        for name, dtype, row in self._rows:
            found = outputs[name]
            if (found.shape, found.dtype) != ((crops, *row), dtype):
                raise BackendError(
                    f"{backend} gave {name} as {found.dtype} {found.shape} for {crops} crops.",
                    why=f"the manifest of {self._path.parent} promises {dtype} {(crops, *row)}",
                    fix=_FIX,
                )
            if not np.isfinite(found).all():
                raise BackendError(
                    f"{backend} gave {name} that are not finite numbers.",
                    why="the network overflowed, or its weights are damaged",
                    fix="compare with another backend, and export the checkpoint again",
                )

    def _side(self, side: str | int) -> Any:
        return self._manifest.crop.size if side == "C" else side

    def _differences(self, specs: tuple[TensorSpec, ...], found: Sequence[Offered], what: str) -> list[str]:
        problems = []
        by_name = {each.name: each for each in found}
        strangers = sorted(set(by_name) - {spec.name for spec in specs})
        # One more output costs time and harms nobody; one more input has no value.
        if strangers and what == "input":
            problems.append(f"it takes {quote(strangers[0])}, which the manifest does not name")
        for spec in specs:
            each = by_name.get(spec.name)
            if each is None:
                problems.append(f"it has no {what} {spec.name}")
                continue
            if each.dtype != spec.dtype:
                problems.append(f"{spec.name} is {each.dtype:.40}, not {spec.dtype}")
            wanted, shape = [self._side(side) for side in spec.shape], list(each.shape)
            fits = len(shape) == len(wanted) and all(
                not isinstance(theirs, int) or theirs == ours for theirs, ours in zip(shape, wanted, strict=True)
            )
            if not fits:
                problems.append(f"{spec.name} is {_shown(shape)}, not {_shown(wanted)}")
        return problems


def _shown(sides: Sequence[Any]) -> str:
    return " x ".join("?" if side is None else str(side)[:20] for side in sides) or "a single number"
