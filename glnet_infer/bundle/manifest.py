"""The manifest of a bundle: what its graph, body, network and engines are, and the hash of every file."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from glnet_infer.contract import GRAPH_INPUTS, GRAPH_OUTPUTS, SMALLEST_FRAME, CropSpec, TensorSpec
from glnet_infer.errors import BundleError, first_line

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
GRAPH_NAME = "model.onnx"
TOPOLOGY_NAME = "topology.npz"


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
    """The body model inside the graph.

    Attributes:
        name: ``demo``, ``smpl``, or what its file is called.
        vertices: How many.
        source: File that it was read from, which is not part of the bundle.
        topology: An ``.npz`` with the triangles.
    """

    name: str
    vertices: int
    source: FileRecord
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


ENGINE_FLAVORS = ("tensorrt", "tensorrt-rtx")
ENGINE_STATES = ("built, not run", "run")


@dataclass(frozen=True)
class CropEngineRecord:
    """The engine that cuts the crops on the GPU; it was built together with the main one, for the same numbers of crops.

    Attributes:
        largest_frame: Width and height of the largest frame that it takes; the smallest has :data:`SMALLEST_FRAME`.
    """

    file: FileRecord
    largest_frame: tuple[int, int]

    def problems(self) -> list[str]:
        """What is wrong with the values, in words."""
        problems = []
        name, sides = self.file.file, self.largest_frame
        if not _is_file_name(name):
            problems.append(f"the crop engine file {name!r} is not a file name")
        if len(sides) != 2 or not all(type(side) is int and side >= SMALLEST_FRAME for side in sides):
            problems.append(f"largest_frame of the crop engine {name!r} is {sides!r}, not a width and a height")
        return problems


@dataclass(frozen=True)
class EngineRecord:
    """A TensorRT engine, and what it was built for.

    Attributes:
        flavor: One of :data:`ENGINE_FLAVORS`.
        version: Of TensorRT; another version does not load the engine.
        compute_capabilities: GPUs that it runs on, such as ``8.9``.
        built_on: Name of the GPU that built it; empty when it was built ahead of time, without one.
        cuda: Newest version of CUDA that its driver ran; empty likewise, and in bundles of earlier versions.
        precision: ``mixed`` or ``fp32``, read back.
        profile: Fewest, usual and most crops of one call.
        tensors: Type of every input and output by its name, read back.
        layers: What was read back of the layers: counts of the heavy ones by type, and where that comes from.
        state: One of :data:`ENGINE_STATES`.
        parity: The comparison with PyTorch; empty where the engine was not run.
        seconds: The build took so long.
        crop: The engine that cuts crops for it; None where there is none, as in bundles of earlier versions.
        lean: Whether it was built for TensorRT's lean runtime, which alone runs it.
    """

    file: FileRecord
    flavor: str
    version: str
    compute_capabilities: tuple[str, ...]
    built_on: str
    precision: str
    profile: tuple[int, int, int]
    tensors: dict[str, str]
    layers: dict[str, Any]
    state: str
    parity: dict[str, Any]
    seconds: float
    crop: CropEngineRecord | None = None
    lean: bool = False
    cuda: str = ""

    @property
    def runtime(self) -> str:
        """What runs it: ``tensorrt``, ``tensorrt-lean`` or ``tensorrt-rtx``."""
        return "tensorrt-lean" if self.lean else self.flavor

    def problems(self) -> list[str]:
        """What is wrong with the values, in words."""
        problems = []
        name = self.file.file
        if not _is_file_name(name):
            problems.append(f"the engine file {name!r} is not a file name")
        for key, value, known in (
            ("flavor", self.flavor, ENGINE_FLAVORS),
            ("precision", self.precision, ("mixed", "fp32")),
            ("state", self.state, ENGINE_STATES),
        ):
            if value not in known:
                problems.append(f"{key} of the engine {name!r} is {value!r}, not one of {', '.join(known)}")
        if type(self.lean) is not bool or (self.lean and self.flavor != "tensorrt"):
            problems.append(f"lean of the engine {name!r} is {self.lean!r}, of flavor {self.flavor!r}")
        if not (isinstance(self.version, str) and self.version):
            problems.append(f"version of the engine {name!r} is {self.version!r}, not a version")
        capabilities = self.compute_capabilities
        if not capabilities or not all(isinstance(one, str) and re.fullmatch(r"\d+\.\d", one) for one in capabilities):
            problems.append(f"compute_capabilities of the engine {name!r} are {capabilities!r}, not such as 8.9")
        counts = self.profile
        if len(counts) != 3 or not all(type(n) is int for n in counts) or not 1 <= counts[0] <= counts[1] <= counts[2]:
            problems.append(f"profile of the engine {name!r} is {counts!r}, not three growing numbers of crops")
        return problems + (self.crop.problems() if self.crop is not None else [])


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
    engines: tuple[EngineRecord, ...] = ()
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
                why=_why_no_bundle(directory),
                fix="give the directory that glnet-export made: glnet-export CHECKPOINT -o DIRECTORY",
            )
        try:
            document = json.loads(path.read_text())
            schema = document["schema"]
        except OSError as error:
            raise BundleError(f"{path} was not read.", why=str(error.strerror), fix="check its permissions") from error
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, _reason(error)) from error
        if type(schema) is not int or schema != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {schema!r}.",
                why=f"this glnet-infer reads version {SCHEMA_VERSION}",
                fix="export the checkpoint again with this version, or install the version that made the bundle",
            )
        try:
            manifest = cls._from_document(document)
            problems = manifest._problems()
        except Exception as error:  # whatever a foreign document makes of our constructors
            raise _damaged(path, _reason(error)) from error
        if problems:
            raise _damaged(path, "; ".join(problems))
        return manifest

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Manifest:
        graph, body = document["graph"], document["body"]
        return cls(
            created=document["created"],
            versions=document["versions"],
            network=_build(NetworkRecord, document["network"]),
            body=_build(
                BodyRecord,
                body,
                source=_build(FileRecord, body["source"]),
                topology=_build(FileRecord, body["topology"]),
            ),
            crop=_build(CropSpec, document["crop"]),
            graph=_build(GraphRecord, graph, file=_build(FileRecord, graph["file"])),
            parity=document["parity"],
            engines=tuple(_engine_record(entry) for entry in document["engines"]),
            inputs=tuple(_tensor_spec(entry) for entry in document["inputs"]),
            outputs=tuple(_tensor_spec(entry) for entry in document["outputs"]),
        )

    def _problems(self) -> list[str]:
        """What a runtime could not work with, in words."""
        problems = self.crop.problems()
        for role, file in (("graph", self.graph.file), ("topology", self.body.topology)):
            if not _is_file_name(file.file):
                problems.append(f"the {role} file {file.file!r} is not a file name")
        for engine in self.engines:
            problems += engine.problems()
        trained_with = self.network.config.get("crop")
        if trained_with is not None and trained_with != dataclasses.asdict(self.crop):
            problems.append(f"crop is {dataclasses.asdict(self.crop)}, and the network's is {trained_with}")
        if self.graph.precision not in ("fp32", "mixed"):
            problems.append(f"graph.precision is {self.graph.precision!r}")
        for found, wanted in ((self.inputs, GRAPH_INPUTS), (self.outputs, GRAPH_OUTPUTS)):
            if [(spec.name, spec.dtype, len(spec.shape)) for spec in found] != [
                (spec.name, spec.dtype, len(spec.shape)) for spec in wanted
            ]:
                problems.append("inputs or outputs are not those of this schema")
        sides = [side for spec in self.outputs for side in spec.shape[1:]]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            problems.append("the outputs' shapes are not numbers")
        return problems


_Record = TypeVar("_Record")


def _build(kind: type[_Record], entry: dict[str, Any], **parts: Any) -> _Record:
    """A record from its entry; keys that this version does not know are left aside, so that later ones may add some."""
    known = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in {**entry, **parts}.items() if key in known})


def _why_no_bundle(path: Path) -> str:
    if path.is_dir():
        return f"there is no {MANIFEST_NAME} in it"
    return "it is a file, not a directory" if path.exists() else "there is no such directory"


def _engine_record(entry: dict[str, Any]) -> EngineRecord:
    return _build(
        EngineRecord,
        entry,
        file=_build(FileRecord, entry["file"]),
        compute_capabilities=tuple(entry["compute_capabilities"]),
        profile=tuple(entry["profile"]),
        crop=_crop_engine_record(entry.get("crop")),
    )


def _crop_engine_record(entry: dict[str, Any] | None) -> CropEngineRecord | None:
    if entry is None:
        return None
    file = _build(FileRecord, entry["file"])
    return _build(CropEngineRecord, entry, file=file, largest_frame=tuple(entry["largest_frame"]))


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _tensor_spec(entry: dict[str, Any]) -> TensorSpec:
    return _build(TensorSpec, entry, shape=tuple(entry["shape"]))


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {first_line(error)}"


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged.", why=why, fix="copy the bundle again, or export the checkpoint again")
