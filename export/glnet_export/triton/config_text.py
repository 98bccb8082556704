"""``config.pbtxt`` of both models, from the manifest: protobuf's text format of Triton's ``ModelConfig``.

The fields are described in https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glnet_infer.backends.onnxruntime import PROVIDERS
from glnet_infer.backends.triton.backend import GRAPH_PARAMETER
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.contract import TensorSpec
from glnet_infer.serving.frames import FRAME_INPUTS, FRAME_OUTPUTS
from glnet_infer.serving.triton_frames import DETECTOR, MOST_CROPS, NETWORK

NETWORK_MODEL, FRAMES_MODEL = "glnet", "glnet_frames"

QUEUE_MICROSECONDS = 2000
"""How long a crop waits for others to be run with. Images wait for none: they gather while those before are at work."""

_TYPES = {
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bytes": "TYPE_STRING",
}

_ORT_EXTENDED = 1
"""Triton's number of ONNX Runtime's level EXTENDED; without it the level is ALL."""


class Word(str):
    """A value that is written without quotes: a name of an enumeration."""


@dataclass(frozen=True)
class Served:
    """How the models are served.

    Attributes:
        backend: ``onnxruntime`` or ``tensorrt``.
        file: Name of the graph's or engine's file in the repository.
        most_crops: Most crops of one batch, and most images that are taken at once.
        instances: Copies of the graph that run side by side.
        frame_instances: Processes that cut crops side by side.
        gpu: Number of the GPU. None: the CPU for ONNX Runtime, every GPU for TensorRT.
    """

    backend: str
    file: str
    most_crops: int
    instances: int
    frame_instances: int
    gpu: int | None

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on a GPU."""
        return self.backend == "tensorrt" or self.gpu is not None


def network_config(manifest: Manifest, served: Served) -> dict[str, Any]:
    """Configuration of the model that runs the graph on crops."""
    crop = manifest.crop.size
    group: dict[str, Any] = {"count": served.instances, "kind": Word("KIND_GPU" if served.on_gpu else "KIND_CPU")}
    if served.gpu is not None:
        group["gpus"] = [served.gpu]
    config: dict[str, Any] = {
        "name": NETWORK_MODEL,
        "backend": served.backend,
        "max_batch_size": served.most_crops,
        "default_model_filename": served.file,
        "input": [_tensor(spec, spec.shape[1:], crop) for spec in manifest.inputs],
        "output": [_tensor(spec, spec.shape[1:], crop) for spec in manifest.outputs],
        "dynamic_batching": {"max_queue_delay_microseconds": QUEUE_MICROSECONDS},
        "instance_group": [group],
        "parameters": _parameters({GRAPH_PARAMETER: manifest.graph.file.sha256}),
        "model_warmup": [_warm_up(manifest, crops) for crops in dict.fromkeys((1, served.most_crops))],
    }
    if served.backend == "onnxruntime" and (optimization := _optimization(manifest, served)):
        config["optimization"] = optimization
    return config


def frames_config(manifest: Manifest, served: Served, detector: str) -> dict[str, Any]:
    """Configuration of the model that takes images."""
    sizes = {spec.name: spec.shape for spec in manifest.outputs}
    outputs = []
    for spec in FRAME_OUTPUTS:
        # What the graph gives has the graph's sides; numbers of persons stay open.
        shape = ("N", *sizes[spec.name][1:]) if spec.name in sizes else spec.shape
        outputs.append(_tensor(spec, shape))
    inputs = []
    for spec in FRAME_INPUTS:
        # Without it, Triton gives images of one size and one number of boxes alone to the model at once.
        ragged = {"allow_ragged_batch": True} if any(isinstance(side, str) for side in spec.shape) else {}
        inputs.append({**_tensor(spec, spec.shape), **ragged, "optional": True})
    return {
        "name": FRAMES_MODEL,
        "backend": "python",
        "max_batch_size": served.most_crops,
        "input": inputs,
        "output": outputs,
        "dynamic_batching": {},
        "instance_group": [{"count": served.frame_instances, "kind": Word("KIND_CPU")}],
        "parameters": _parameters({NETWORK: NETWORK_MODEL, DETECTOR: detector, MOST_CROPS: str(served.most_crops)}),
    }


def text(message: Mapping[str, Any]) -> str:
    """A message in protobuf's text format.

    Args:
        message: Fields by name: numbers, truth values, texts, :class:`Word`, messages, and lists of these.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield f"{name} {{"
                yield from (f"  {line}" for line in _lines(each))
                yield "}"
            else:
                yield f"{name}: {_scalar(each)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        # Bytes in octal are what every version of the format reads.
        plain = "".join(
            chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in value.encode()
        )
        return f'"{plain}"'
    return str(value)


def _tensor(spec: TensorSpec, sides: Sequence[str | int], crop: int = -1) -> dict[str, Any]:
    dims = [{"C": crop}.get(side, -1) if isinstance(side, str) else side for side in sides]
    if dims:
        return {"name": spec.name, "data_type": Word(_TYPES[spec.dtype]), "dims": dims}
    # Triton refuses outputs without sides, and reshapes a row of one number for clients.
    return {"name": spec.name, "data_type": Word(_TYPES[spec.dtype]), "dims": [1], "reshape": {"shape": []}}


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def _warm_up(manifest: Manifest, crops: int) -> dict[str, Any]:
    inputs = []
    for spec in manifest.inputs:
        tensor = _tensor(spec, spec.shape[1:], manifest.crop.size)
        inputs.append(
            {"key": spec.name, "value": {"data_type": tensor["data_type"], "dims": tensor["dims"], "zero_data": True}}
        )
    return {"name": f"{crops} crops", "batch_size": crops, "inputs": inputs}


def _optimization(manifest: Manifest, served: Served) -> dict[str, Any]:
    """What ``glnet_infer.backends.onnxruntime`` sets of ONNX Runtime, for the same reasons."""
    if not served.on_gpu:
        return {"graph": {"level": _ORT_EXTENDED}} if manifest.graph.precision != "fp32" else {}
    parameters = [{"key": key, "value": value} for key, value in PROVIDERS["cuda"][1].items()]
    return {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "cuda", "parameters": parameters}]}}
