"""The manifest of a bundle: what its graphs, body, network and engines are, and the hash of every file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glnet_infer.bundle.earlier import from_schema_1
from glnet_infer.bundle.records import (
    RUNTIME,
    BodyRecord,
    EngineRecord,
    FileRecord,
    GraphRecord,
    NetworkRecord,
    files_of,
)
from glnet_infer.contract import CROP_REDUCTIONS, GRAPH_INPUTS, GRAPH_OUTPUTS, CropSpec, TensorSpec, graph_outputs
from glnet_infer.errors import BundleError, first_line
from glnet_infer.fields import FieldError, quote, read_record
from glnet_infer.files import is_directory, is_there, read_json, replace_file

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"

CACHE_FOLDER = "cache"
"""Kernels that runtimes compile for a GPU. Nothing in it is part of the bundle, and all of it may be deleted."""

MOST_KEYPOINTS = 10_000

_REQUIRED = ("engines", "inputs", "outputs")
"""Keys that have a default for those who make a manifest, and must be in every file."""

_EARLIER = {1: from_schema_1}
"""What turns a document of an earlier schema into one of the next."""


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime must know of a bundle before it loads a graph.

    Every :class:`FileRecord` in it, at whatever depth, is a file of the bundle: it is checked, copied and replaced with the
    bundle. The source of the body alone lies elsewhere.

    Attributes:
        created: When, in UTC.
        versions: What made it, by name.
        graphs: One for the runtime; others that engines are built from.
        reference: An ``.npz`` of rendered persons and what float32 recovers from them, to compare engines with; None where
            there is none.
    """

    created: str
    versions: dict[str, str]
    network: NetworkRecord
    body: BodyRecord
    crop: CropSpec
    graphs: tuple[GraphRecord, ...]
    engines: tuple[EngineRecord, ...] = ()
    reference: FileRecord | None = None
    inputs: tuple[TensorSpec, ...] = GRAPH_INPUTS
    outputs: tuple[TensorSpec, ...] = GRAPH_OUTPUTS
    schema: int = field(default=SCHEMA_VERSION)

    @property
    def graph(self) -> GraphRecord:
        """The graph that the runtime runs."""
        graph = self.graph_for(RUNTIME)
        assert graph is not None, "problems() refuses manifests without one"
        return graph

    def graph_for(self, purpose: str) -> GraphRecord | None:
        """The first graph of a purpose; None where there is none."""
        return next((graph for graph in self.graphs if graph.purpose == purpose), None)

    def cuts_as_defined(self, file: str) -> bool:
        """Whether a graph's crops, and those of engines that were built from it, are what ``glnet_infer.crops`` defines."""
        return any(graph.file.file == file and graph.reductions == CROP_REDUCTIONS for graph in self.graphs)

    def files(self) -> Iterator[FileRecord]:
        """All files of the bundle but the manifest itself."""
        return files_of(self)

    def to_document(self) -> dict[str, Any]:
        """Plain values, as ``manifest.json`` holds them."""
        return {"schema": self.schema, **dataclasses.asdict(self)}

    def write(self, directory: Path) -> None:
        """Write ``manifest.json`` into a directory.

        Raises:
            OutputError: It cannot be written.
        """
        replace_file(directory / MANIFEST_NAME, self.content())

    def content(self) -> bytes:
        """Content of ``manifest.json``."""
        return f"{json.dumps(self.to_document(), indent=2, allow_nan=False)}\n".encode()

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read and check ``manifest.json``. Manifests of earlier schemas are converted.

        Raises:
            BundleError: It is missing, damaged or of a later schema version.
        """
        path = directory / MANIFEST_NAME
        try:
            document = read_json(path, BundleError, fix="check its permissions")
        except BundleError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise BundleError(
                    f"{directory} is not a bundle.",
                    why=_why_no_bundle(directory),
                    fix="give the directory that glnet-export made: glnet-export CHECKPOINT -o DIRECTORY",
                ) from error
            if isinstance(error.__cause__, OSError):
                raise
            raise _damaged(path, error.why) from error
        try:
            schema = document["schema"]
            if type(schema) is int and 1 <= schema <= SCHEMA_VERSION:
                for earlier in range(schema, SCHEMA_VERSION):
                    document = _EARLIER[earlier](document)
                return read_record(cls, {key: document[key] for key in (*_REQUIRED, *document)})
        except (KeyError, TypeError, AttributeError, IndexError, FieldError) as error:  # what foreign documents lead to
            raise _damaged(path, _reason(error)) from error
        raise BundleError(
            f"{path} has schema version {quote(schema)}.",
            why=f"this glnet-infer reads version {SCHEMA_VERSION} and earlier ones",
            fix="export the checkpoint again with this version, or install the version that made the bundle",
        )

    def engines_in(self, int8: bool) -> tuple[EngineRecord, ...]:
        """The engines in int8, which run by name alone, or all others."""
        return tuple(engine for engine in self.engines if (engine.precision == "int8") == int8)

    def problems(self) -> list[str]:
        """What a runtime could not work with, in words."""
        problems = []
        runtime = [graph for graph in self.graphs if graph.purpose == RUNTIME]
        if len(runtime) != 1:
            problems.append(f"{len(runtime)} graphs have the purpose {RUNTIME!r}, not one")
        elif runtime[0].precision not in ("fp32", "mixed"):
            problems.append(f"the precision of {runtime[0].file.file} is {runtime[0].precision!r}")
        problems += self._problems_of_files()
        trained_with = self.network.config.get("crop")
        if isinstance(trained_with, dict):  # earlier versions did not write all that a crop is described by
            trained_with = {**dataclasses.asdict(CropSpec()), **trained_with}
        if trained_with is not None and trained_with != dataclasses.asdict(self.crop):
            problems.append(f"crop is {dataclasses.asdict(self.crop)}, and the network's is {quote(trained_with)}")
        keypoints = next((spec.shape[1] for spec in self.outputs if spec.name == "keypoints_2d" and len(spec.shape) > 1), 0)
        if type(keypoints) is not int or not 0 < keypoints <= MOST_KEYPOINTS:
            problems.append(f"the number of keypoints is {quote(keypoints)}")
        else:
            wanted = (*GRAPH_INPUTS, *graph_outputs(self.body.vertices, keypoints))
            if _signature(self.inputs + self.outputs) != _signature(wanted):
                problems.append("inputs or outputs are not those of this schema")
        return problems

    def _problems_of_files(self) -> Iterator[str]:
        files: dict[str, FileRecord] = {}
        for record in self.files():
            if record.file in (MANIFEST_NAME, CACHE_FOLDER):
                yield f"{record.file} is recorded as a file of the bundle"
            if files.setdefault(record.file, record) != record:
                yield f"{record.file} is recorded twice, with other contents"
        graphs = {"", *(graph.file.file for graph in self.graphs)}
        for engine in self.engines:
            for graph in (engine.graph, engine.crop.graph if engine.crop else ""):
                if graph not in graphs:
                    yield f"the engine {engine.file.file} is of the graph {quote(graph)}, which is not recorded"


def _signature(specs: tuple[TensorSpec, ...]) -> list[tuple[str, str, tuple[str | int, ...]]]:
    return [(spec.name, spec.dtype, spec.shape) for spec in specs]


def _why_no_bundle(path: Path) -> str:
    if is_directory(path):
        return f"there is no {MANIFEST_NAME} in it"
    return "it is a file, not a directory" if is_there(path) else "there is no such directory"


def _reason(error: Exception) -> str:
    if isinstance(error, FieldError):
        return str(error)
    return f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {first_line(error)}"


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged.", why=why, fix="copy the bundle again, or export the checkpoint again")
