"""The manifest of a bundle: what the graph takes and gives, how crops are cut, and what the files are.

This module is the one place where names, shapes, units and frames of the graph's inputs and outputs are written down;
``docs/bundle.md`` shows them with an example.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glnet_infer.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
GRAPH_NAME = "model.onnx"
TOPOLOGY_NAME = "topology.npz"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the graph. ``N`` crops, ``V`` vertices, ``K`` keypoints, ``C`` the crop's side."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    meaning: str


GRAPH_INPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("crops", "uint8", ("N", "C", "C", 3), "RGB crops as glnet_infer.crops cuts them"),
    TensorSpec(
        "cameras",
        "float32",
        ("N", 4),
        "fx, fy, cx, cy of the pinhole camera that saw the crop, in crop sides, from the crop's centre; "
        "1000/256, 1000/256, 0, 0 where nothing is known",
    ),
)

GRAPH_OUTPUTS: tuple[TensorSpec, ...] = (
    TensorSpec("vertices", "float32", ("N", "V", 3), "mesh in camera coordinates, metres (x right, y down, z forward)"),
    TensorSpec("joints", "float32", ("N", 29, 3), "posed joints (glnet_infer.skeleton) in camera coordinates, metres"),
    TensorSpec("keypoints_2d", "float32", ("N", "K", 2), "regressed keypoints x, y in crop pixels"),
    TensorSpec(
        "rotations", "float32", ("N", 24, 3, 3), "SMPL pose: rotations relative to the parent, the root's to the camera"
    ),
    TensorSpec("betas", "float32", ("N", 10), "SMPL shape, standard deviations"),
    TensorSpec("translation", "float32", ("N", 3), "added to the posed body to get vertices and joints, metres"),
    TensorSpec("confidence", "float32", ("N",), "score of the chosen pixel, 0 to 1"),
    TensorSpec("reference_pixel", "int32", ("N", 2), "the chosen pixel x, y in cells of the 4-crop-pixel grid"),
)


@dataclass(frozen=True)
class CropSpec:
    """How a person's crop is cut from the image (``glnet_infer.crops`` implements it).

    Attributes:
        size: Side of the crop in pixels.
        padding: Side of the square, relative to the longer side of the person's box.
    """

    size: int = 256
    padding: float = 1.25


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle, and what it was when the bundle was made."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class GraphRecord:
    """The ONNX graph.

    Attributes:
        precision: ``fp32`` or ``mixed``, read back from the graph's tensors.
    """

    file: FileRecord
    opset: int
    precision: str
    nodes: int


@dataclass(frozen=True)
class BodyRecord:
    """The body model inside the graph. ``topology`` is an ``.npz`` with the triangles."""

    name: str
    vertices: int
    topology: FileRecord


@dataclass(frozen=True)
class NetworkRecord:
    """The network inside the graph.

    Attributes:
        name: Preset or name given in the configuration.
        weights: ``checkpoint``, or ``random``: then results mean nothing and only speed can be measured.
        source: File name of the checkpoint, or the seed.
        sha256: Hash of the checkpoint; empty for random weights.
        config: The network's whole configuration.
    """

    name: str
    weights: str
    source: str
    sha256: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime must know of a bundle before it loads a graph."""

    created: str
    versions: dict[str, str]
    network: NetworkRecord
    body: BodyRecord
    crop: CropSpec
    graph: GraphRecord
    parity: dict[str, Any]
    engines: tuple[dict[str, Any], ...] = ()
    inputs: tuple[TensorSpec, ...] = GRAPH_INPUTS
    outputs: tuple[TensorSpec, ...] = GRAPH_OUTPUTS
    schema: int = field(default=SCHEMA_VERSION)

    def to_document(self) -> dict[str, Any]:
        """Plain values, as ``manifest.json`` holds them."""
        return {"schema": self.schema, **dataclasses.asdict(self)}

    def write(self, directory: Path) -> None:
        """Write ``manifest.json`` into a directory."""
        text = json.dumps(self.to_document(), indent=2, allow_nan=False)
        (directory / MANIFEST_NAME).write_text(text + "\n")

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read and check ``manifest.json``.

        Raises:
            BundleError: It is missing, damaged or of another schema version.
        """
        path = directory / MANIFEST_NAME
        if not path.is_file():
            raise BundleError(
                f"{directory} is not a bundle.",
                why=f"there is no {MANIFEST_NAME} in it" if directory.is_dir() else "there is no such directory",
                fix="make one with: glnet-export CHECKPOINT -o DIRECTORY",
            )
        try:
            document = json.loads(path.read_text())
            schema = document["schema"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise _damaged(path, error) from error
        if schema != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {schema}.",
                why=f"this glnet-infer reads version {SCHEMA_VERSION}",
                fix="export the checkpoint again with this version, or install the version that made the bundle",
            )
        try:
            return cls._from_document(document)
        except (KeyError, TypeError) as error:
            raise _damaged(path, error) from error

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Manifest:
        graph, body = dict(document["graph"]), dict(document["body"])
        graph["file"] = FileRecord(**graph["file"])
        body["topology"] = FileRecord(**body["topology"])
        parts: dict[str, Any] = {
            "network": NetworkRecord(**document["network"]),
            "body": BodyRecord(**body),
            "crop": CropSpec(**document["crop"]),
            "graph": GraphRecord(**graph),
            "engines": tuple(document["engines"]),
            "inputs": tuple(_tensor_spec(entry) for entry in document["inputs"]),
            "outputs": tuple(_tensor_spec(entry) for entry in document["outputs"]),
        }
        return cls(**{**document, **parts})


def _tensor_spec(entry: dict[str, Any]) -> TensorSpec:
    return TensorSpec(**{**entry, "shape": tuple(entry["shape"])})


def _damaged(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} is damaged.", why=f"{type(error).__name__}: {error}", fix="export the checkpoint again")
