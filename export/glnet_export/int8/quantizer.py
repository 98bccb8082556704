"""Convolutions of an ONNX graph in int8: ONNX Runtime's quantizer, told which layers and which ranges.

The graph gets pairs of QuantizeLinear and DequantizeLinear around its convolutions (Q/DQ), which runtimes take for int8.
Weights have a scale for each output channel. ONNX Runtime and TensorRT want different pairs (:class:`Form`).
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from glnet_infer.bundle.records import INT8, INT8_ENGINES
from glnet_infer.errors import ExportError, tested_versions

_BATCH = 8
"""Crops at a time: bounds memory."""


@dataclass(frozen=True)
class Form:
    """Whom an int8 graph is written for.

    Attributes:
        purpose: The graph's, in the manifest.
        file: Its name in the bundle.
        operators: Kinds of nodes that get pairs.
        activations: Type of what passes between layers, by the quantizer's name.
        options: Further options of the quantizer.
    """

    purpose: str
    file: str
    operators: tuple[str, ...]
    activations: str
    options: dict[str, Any] = field(default_factory=dict)


FOR_CPUS = Form(INT8, "model.int8.onnx", ("Conv", "Relu"), "QUInt8")
"""Bytes with a zero point of their own: the range of what is rectified begins at 0, and clipping rectifies."""

FOR_ENGINES = Form(
    INT8_ENGINES,
    "model.int8-engines.onnx",
    ("Conv",),
    "QInt8",
    # TensorRT takes no zero point but 0 and no integer bias. It fuses a convolution with the sum and the rectifier behind
    # it as long as nothing is rounded between them.
    {"ActivationSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": ["Conv"]},
)
"""Signed bytes about 0, on which ONNX Runtime's CPU kernels gain nothing (benchmarks/results/notebook.md)."""


class Quantizer:
    """Ranges of a graph's values on calibration crops, and int8 graphs made with them.

    Args:
        graph: The float32 graph.
        layers: Names of the modules whose convolutions may compute in int8.
        crops: N x C x C x 3, RGB, of persons as the network will see them.
        cameras: N x 4, their cameras.

    Raises:
        ExportError: A layer is not in the graph.

    Attributes:
        work: Multiplications of each layer for one crop, by its name.
    """

    def __init__(
        self, graph: Path, layers: Collection[str], crops: NDArray[np.uint8], cameras: NDArray[np.float32]
    ) -> None:
        self._graph = graph
        model = onnx.shape_inference.infer_shapes(onnx.load(graph), data_prop=True)
        weights = {each.name: each.dims for each in model.graph.initializer}
        shapes = {each.name: _sides(each) for each in (*model.graph.value_info, *model.graph.output)}
        # What rectifies an output goes with its convolution: the quantizer makes one of both.
        rectified = {node.input[0]: node.name for node in model.graph.node if node.op_type == "Relu"}
        self._nodes: dict[str, list[str]] = defaultdict(list)
        self.work: dict[str, int] = defaultdict(int)
        for node in model.graph.node:
            weight = node.input[1] if len(node.input) > 1 else ""
            layer = weight.removesuffix(".weight")
            if node.op_type == "Conv" and weight in weights and layer in layers:
                relu = rectified.get(node.output[0])
                self._nodes[layer] += [node.name] if relu is None else [node.name, relu]
                self.work[layer] += int(np.prod(weights[weight]) * np.prod(shapes[node.output[0]][2:]))
        missing = sorted(set(layers) - set(self.work))
        if missing:
            raise ExportError(
                "Int8 was not set up.",
                why=f"the graph has no convolution of {missing[0]}, nor of {len(missing) - 1} other layers",
                fix=tested_versions("export"),
            )
        self._ranges = self._calibrated(crops, cameras)

    def _calibrated(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Any:
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        with tempfile.TemporaryDirectory() as folder, _quiet():
            calibrator = create_calibrator(
                self._graph,
                sorted({*FOR_CPUS.operators, *FOR_ENGINES.operators}),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_batches(crops, cameras))
            return calibrator.compute_data()

    def write(self, path: Path, layers: Collection[str], form: Form = FOR_CPUS) -> None:
        """Write the graph with these layers in int8."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        with _quiet():
            quantizer = QDQQuantizer(
                onnx.load(self._graph),
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType[form.activations],
                tensors_range=self._ranges,
                nodes_to_quantize=[node for layer in layers for node in self._nodes[layer]],
                nodes_to_exclude=[],
                op_types_to_quantize=list(form.operators),
                extra_options=form.options,  # None, its default, is not taken
            )
            quantizer.quantize_model()
            onnx.save(quantizer.model.model, path)


def int8_layers(model: onnx.ModelProto) -> int:
    """How many convolutions compute in int8: their values and their weights come out of DequantizeLinear."""
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type == "Conv" and restored.issuperset(node.input[:2]) for node in model.graph.node)


def _sides(value: onnx.ValueInfoProto) -> Sequence[int]:
    return [side.dim_value for side in value.type.tensor_type.shape.dim]


def _batches(crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._feeds: Iterator[Mapping[str, NDArray[Any]]] = (
                {"crops": crops[start : start + _BATCH], "cameras": cameras[start : start + _BATCH]}
                for start in range(0, len(crops), _BATCH)
            )

        def get_next(self) -> Mapping[str, NDArray[Any]] | None:
            return next(self._feeds, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises, by the root logger, to change the graph first."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
