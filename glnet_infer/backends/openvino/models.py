"""What OpenVINO compiles: the bundle's graph for one crop, or one of two parts of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glnet_infer.backends.openvino.library import core, import_openvino
from glnet_infer.backends.promise import Offered, check_content
from glnet_infer.bundle.checked_file import CheckedFile
from glnet_infer.errors import BackendError, BundleError, one_line
from glnet_infer.fields import quote

Check = Callable[[Sequence[Offered], Sequence[Offered]], None]
"""Raises ``BundleError`` where inputs or outputs of a graph are not those that the manifest promises."""

_DTYPES = {"u8": "uint8", "i32": "int32", "f32": "float32"}
"""NumPy's names of OpenVINO's types, those that the contract has."""


@dataclass(frozen=True)
class Part:
    """One of the two parts of a graph that is cut. Both take the graph's own inputs too.

    Attributes:
        tensors: Names of the tensors at the cut.
        first: Whether it makes these tensors. The other one takes them and gives the graph's outputs.
    """

    tensors: tuple[str, ...]
    first: bool


class GraphModel:
    """A graph that is read whenever it is compiled, from the file that was checked.

    Args:
        file: The ONNX file.
        check: Told of its inputs and outputs before anything is compiled.

    Attributes:
        path: The file's path, for messages.
        sha256: What tells its content from others.
    """

    def __init__(self, file: CheckedFile, check: Check) -> None:
        self._file, self._check = file, check
        self.path: Path = file.path
        self.sha256 = file.record.sha256

    def read(self, part: Part | None) -> Any:
        """The graph of one crop, or a part of it: OpenVINO is faster with sides that it knows.

        Raises:
            BundleError: It is no graph that is run, not the promised one, or has no such tensors to cut at.
            BackendError: OpenVINO refuses it.
        """
        model = self._whole()
        if part is None:
            return model
        try:
            return _cut(model, part)
        except KeyError as error:
            raise BundleError(
                f"{self.path} cannot be cut where the manifest says.",
                why=f"it has no tensor {quote(error.args[0])}",
                fix="copy the bundle again, or export the checkpoint again with --bf16",
            ) from error
        except Exception as error:  # see below
            raise self.refused(error) from error

    def _whole(self) -> Any:
        content = self._file.read()
        check_content(content, self.path)
        try:
            model = core().read_model(content)
            ports = [[_offered(port) for port in each] for each in (model.inputs, model.outputs)]
        except Exception as error:  # OpenVINO's exceptions share no base class but this
            raise self.refused(error) from error
        self._check(*ports)
        try:
            model.reshape({port.name: [1, *port.shape[1:]] for port in ports[0]})
        except Exception as error:  # see above
            raise self.refused(error) from error
        return model

    def check_compiled(self, compiled: Any, part: Part | None) -> None:
        """Compare what an earlier start compiled, and the file itself, with the manifest.

        A first part has none of the outputs to compare.

        Raises:
            BundleError: They differ.
        """
        self._file.read()
        if part is None or not part.first:
            cut = () if part is None else part.tensors
            inputs = [each for each in map(_of_any_crops, compiled.inputs) if each.name not in cut]
            self._check(inputs, [_of_any_crops(port) for port in compiled.outputs])

    def refused(self, error: Exception) -> BackendError:
        """OpenVINO's own words about the graph."""
        return BackendError(
            f"OpenVINO does not load {self.path}.",
            why=one_line(error),
            fix="export the checkpoint again, or update openvino",
        )


def _cut(model: Any, part: Part) -> Any:
    """A part of a model, which is changed.

    Raises:
        KeyError: It has no tensor of a name.
    """
    openvino = import_openvino()
    made = {name: port for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
    ports = [made[name] for name in part.tensors]
    if part.first:
        return openvino.Model([openvino.op.Result(port) for port in ports], model.get_parameters(), "first part")
    taken = []
    for name, port in zip(part.tensors, ports, strict=True):
        parameter = openvino.op.Parameter(port.get_element_type(), port.get_partial_shape())
        parameter.output(0).set_names({name})
        for reader in port.get_target_inputs():
            reader.replace_source_output(parameter.output(0))
        taken.append(parameter)
    return openvino.Model(model.get_results(), [*model.get_parameters(), *taken], "second part")


def _offered(port: Any) -> Offered:
    """An input or output of OpenVINO's."""
    kind, shape = str(port.element_type.get_type_name()), port.partial_shape
    sides = [side.get_length() if side.is_static else None for side in shape] if shape.rank.is_static else []
    return Offered(str(min(port.get_names(), default="")), _DTYPES.get(kind, kind), tuple(sides))


def _of_any_crops(port: Any) -> Offered:
    """An input or output of a graph that was compiled for one crop, as it was before."""
    offered = _offered(port)
    return Offered(offered.name, offered.dtype, (None, *offered.shape[1:]) if offered.shape else ())
