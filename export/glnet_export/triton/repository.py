"""A repository that Triton serves: the graph as one model, images to meshes as another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from glnet_export.publish import bundle_under_construction
from glnet_export.triton.config_text import FRAMES_MODEL, NETWORK_MODEL, Served, frames_config, network_config, text
from glnet_infer.backends.tensorrt.choice import same_version
from glnet_infer.bundle import CheckedFile, check_all_files, record_file
from glnet_infer.bundle.manifest import MANIFEST_NAME, Manifest
from glnet_infer.bundle.records import EngineRecord, FileRecord
from glnet_infer.contract import LARGEST_BATCH
from glnet_infer.detection import DEFAULT_DETECTOR, detector_file, open_detector
from glnet_infer.detection.registry import BUILT_IN
from glnet_infer.errors import ExportError, GlnetError, InputError, OutputError
from glnet_infer.fields import FieldError, read_record
from glnet_infer.files import read_json, replace_file
from glnet_infer.serving.triton_frames import BUNDLE_FOLDER
from glnet_infer.version import __version__

MARK = "repository.json"
"""File at the top that says what is in the repository. Triton looks at directories alone."""

USUAL_BATCH = 16
BACKENDS = ("onnxruntime", "tensorrt")
DETECTOR_FILE = "detector.onnx"
"""Name of a detector's file beside ``model.py``, which the model's configuration names."""

_VERSION = "1"
_SCHEMA = 1


@dataclass(frozen=True)
class RepositoryOptions:
    """What a repository is made for.

    Attributes:
        backend: One of :data:`BACKENDS`.
        most_crops: Most crops of one batch. None: 16, or as many as the engine takes.
        instances: Copies of the graph that run side by side.
        frame_instances: Processes that cut crops side by side.
        gpu: Number of the GPU. None: the CPU for ONNX Runtime, every GPU for TensorRT.
        detector: What finds persons in images without boxes: a name or file that ``glnet-infer --detector`` takes.
        engine: File name of the engine. None: the bundle's only one that the server can run.
        server_tensorrt: TensorRT's version on the server, which engines are compared with. None: it is not known.
    """

    backend: str = "onnxruntime"
    most_crops: int | None = None
    instances: int = 1
    frame_instances: int = 2
    gpu: int | None = None
    detector: str = DEFAULT_DETECTOR
    engine: str | None = None
    server_tensorrt: str | None = None


@dataclass(frozen=True)
class RepositoryRecord:
    """What :data:`MARK` holds.

    Attributes:
        schema: Version of this document.
        created: When, in UTC.
        version: Version of this library.
        graph: SHA-256 of the bundle's graph.
        served: How the models are served.
        needs: What the server needs beside Triton itself, each a sentence.
        files: All files, by their paths in the repository.
    """

    schema: int
    created: str
    version: str
    graph: str
    served: Served
    needs: tuple[str, ...]
    files: dict[str, FileRecord]


def write_repository(directory: Path, target: Path, options: RepositoryOptions) -> RepositoryRecord:
    """Write a repository of a bundle. An earlier one at the target is replaced when the new one is whole.

    Args:
        directory: The bundle.
        target: Where the repository shall be.
        options: What it is made for.

    Returns:
        What was written.

    Raises:
        BundleError: The bundle is missing, damaged or changed.
        ExportError: It has no engine that the server can run.
        InputError: An option does not fit the engine or the backend, or there is no such detector.
        BackendError: The detector cannot start.
        OutputError: The target is something else, or cannot be written.
    """
    manifest = check_all_files(directory)
    source, engine = _file_to_serve(directory, manifest, options)
    served = Served(
        options.backend,
        "model.onnx" if engine is None else "model.plan",
        _most_crops(options.most_crops, engine),
        options.instances,
        options.frame_instances,
        options.gpu,
    )
    if target.resolve().is_relative_to(directory.resolve()):
        raise InputError(f"{target} is in the bundle, or the bundle itself.", fix="choose another directory with -o")
    detector, detector_bytes = _opened_detector(options.detector)
    try:
        with bundle_under_construction(target, foreign=foreign_entries, kind="repository") as (beside, publish):
            for path, content in _contents(directory, manifest, source, served, detector, detector_bytes):
                (beside / path).parent.mkdir(parents=True, exist_ok=True)
                (beside / path).write_bytes(content)
            record = RepositoryRecord(
                schema=_SCHEMA,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                version=__version__,
                graph=manifest.graph.file.sha256,
                served=served,
                needs=tuple(_needs(engine, options)),
                files={path.relative_to(beside).as_posix(): record_file(path) for path in _files(beside)},
            )
            replace_file(beside / MARK, f"{json.dumps(asdict(record), indent=2)}\n".encode())
            publish()
    except OSError as error:
        raise OutputError(
            f"Cannot write the repository {target}.",
            why=str(error.strerror or error),
            fix="make room, or choose another directory with -o",
        ) from error
    return record


def foreign_entries(directory: Path) -> list[str]:
    """What in a directory is not a repository of ours as it was written: other files, and files that were changed."""
    try:
        document = read_json(directory / MARK, OutputError, fix="")
        record = read_record(RepositoryRecord, document)
        found = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
        found.pop(MARK)
    except (GlnetError, FieldError, KeyError, TypeError, AttributeError):
        return sorted(entry.name for entry in directory.iterdir())
    strangers = sorted(set(found) - set(record.files))
    changed = [
        f"{name} (changed)"
        for name, path in found.items()
        if name in record.files and record_file(path) != record.files[name]
    ]
    return strangers + changed


def _files(directory: Path) -> list[Path]:
    """Everything below a directory that is no directory. Python keeps compiled modules beside those that a server runs."""
    found = (path for path in directory.rglob("*") if "__pycache__" not in path.parts)
    return sorted(path for path in found if path.is_symlink() or not path.is_dir())


def _contents(
    directory: Path, manifest: Manifest, source: FileRecord, served: Served, detector: str, detector_bytes: bytes | None
) -> Iterator[tuple[str, bytes]]:
    """Paths in the repository and their contents: the bundle's are the very bytes that were checked."""
    network, frames = f"{NETWORK_MODEL}/{_VERSION}", f"{FRAMES_MODEL}/{_VERSION}"
    yield f"{NETWORK_MODEL}/config.pbtxt", text(network_config(manifest, served)).encode()
    yield f"{network}/{served.file}", CheckedFile(directory, source).read()
    yield f"{FRAMES_MODEL}/config.pbtxt", text(frames_config(manifest, served, detector)).encode()
    yield f"{frames}/model.py", Path(__file__).with_name("frames_model.py").read_bytes()
    if detector_bytes is not None:
        yield f"{frames}/{DETECTOR_FILE}", detector_bytes
    # What makes meshes of outputs: the manifest, the triangles, and the skin for whoever makes a motion of them.
    body = manifest.body
    yield f"{frames}/{BUNDLE_FOLDER}/{MANIFEST_NAME}", manifest.content()
    for record in filter(None, (body.topology, body.skin)):
        yield f"{frames}/{BUNDLE_FOLDER}/{record.file}", CheckedFile(directory, record).read()


def _opened_detector(detector: str) -> tuple[str, bytes | None]:
    """What the model's configuration calls a detector that was opened here, and its file's bytes; None for a name.

    Raises:
        InputError: There is no such detector.
        BackendError: It cannot start.
    """
    file = detector_file(detector)
    if file is None:
        open_detector(detector)
        return detector, None
    from glnet_infer.detection.onnx_file import OnnxDetector, detector_content

    path, family = file
    content = detector_content(path)
    OnnxDetector(path, family, content=content)
    # Relative to the model's version, as the bundle is: the server has the repository at a place of its own.
    return f"{DETECTOR_FILE}:{family}" if family else DETECTOR_FILE, content


def _file_to_serve(
    directory: Path, manifest: Manifest, options: RepositoryOptions
) -> tuple[FileRecord, EngineRecord | None]:
    """The file that the server's backend loads, and the engine that it is; None where it is the graph.

    Raises:
        ExportError: There is no engine that the server can run, or there are several and none is named.
        InputError: An option is for engines, and the graph is served; or the server's version is none.
    """
    if options.backend == "onnxruntime":
        for option, value in (("--engine", options.engine), ("--server-tensorrt", options.server_tensorrt)):
            if value is not None:
                raise InputError(
                    f"{option} is given, and no engine is served.",
                    why="--backend onnxruntime runs the graph",
                    fix=f"leave {option} out, or use --backend tensorrt",
                )
        return manifest.graph.file, None
    server = None if options.server_tensorrt is None else _version_of(options.server_tensorrt)
    build = (
        f"on the server's GPU, with {f'TensorRT {server}' if server else 'the TensorRT of its version'}: "
        f"glnet-export engine {directory} --flavor tensorrt"
    )
    fix = f"{build}; or serve the graph with --backend onnxruntime"
    asked = [record for record in manifest.engines if options.engine == record.file.file]
    if options.engine is None:  # what int8 costs is for those to say who name it
        asked = list(manifest.engines_in(int8=False))
    usable = [record for record in asked if not _obstacle(record, server)]
    if not usable:
        why = "; ".join(f"{record.file.file} {_obstacle(record, server)}" for record in asked)
        if not asked:
            why = (
                f"it has none{' but in int8, which is served by name' if manifest.engines else ''}"
                if options.engine is None
                else f"there is no {options.engine}"
            )
        raise ExportError(f"{directory} has no engine that the server can run.", why=why, fix=fix)
    if len(usable) > 1:
        names = ", ".join(f"{each.file.file} (TensorRT {each.version}, {each.built_on})" for each in usable)
        raise ExportError(f"{directory} has several engines.", why=names, fix="name the one to serve with --engine FILE")
    if usable[0].profile[0] > 1:
        raise ExportError(
            f"{usable[0].file.file} cannot be served.",
            why=f"it takes {usable[0].profile[0]} crops at least, and a request may have one",
            fix=f"{build} --batch 1:4:16",
        )
    return usable[0].file, usable[0]


def _obstacle(engine: EngineRecord, server: str | None) -> str:
    """Why a server cannot run an engine, in words that follow its name; empty where nothing shows.

    Args:
        engine: The engine's record.
        server: TensorRT's version on the server; None where it is not known.
    """
    if engine.flavor != "tensorrt":
        return "is for TensorRT for RTX, and Triton runs TensorRT's engines alone"
    if engine.lean:
        # Such an engine wants its runtime loaded from a library. Triton loads only what engines hold themselves:
        # https://github.com/triton-inference-server/tensorrt_backend (version-compatible).
        return "was built with --lean, and Triton has no lean runtime"
    if server is not None and not same_version(engine.version, server):
        return f"was built with TensorRT {engine.version}, and the server has {server}"
    return ""


def _version_of(text: str) -> str:
    """TensorRT's version out of what a server calls it: ``10.13.2.6-1+cuda12.9`` is 10.13.2.6.

    Raises:
        InputError: It is no whole version. Engines differ between builds, so 10.13 would not do.
    """
    found = re.fullmatch(r"(\d+\.\d+\.\d+(?:\.\d+)?)(?:[-+].*)?", text, re.ASCII)
    if not found:
        raise InputError(
            f"--server-tensorrt is {text!r:.40}.", why="a version has three numbers or four", fix="give it as 10.13.2"
        )
    return found[1]


def _most_crops(asked: int | None, engine: EngineRecord | None) -> int:
    """Most crops of a batch.

    Raises:
        InputError: The engine takes fewer.
    """
    most = LARGEST_BATCH if engine is None else engine.profile[2]
    if asked is not None and not 1 <= asked <= most:
        raise InputError(
            f"--max-batch is {asked}.",
            why=f"{'a graph' if engine is None else engine.file.file} takes 1 to {most} crops at once",
            fix="give a number that it takes",
        )
    return asked or (USUAL_BATCH if engine is None else most)


def _needs(engine: EngineRecord | None, options: RepositoryOptions) -> Iterator[str]:
    yield f"The server's Python needs glnet-infer {__version__} (docs/serving.md)."
    if detector_file(options.detector) is not None:
        yield "The server's Python needs ONNX Runtime for the detector: pip install onnxruntime."
    elif options.detector not in (kind.name for kind in BUILT_IN):
        yield f"The server's Python needs the package that offers the detector {options.detector}."
    if engine is not None:
        gpus = ", ".join(engine.compute_capabilities)
        compared = "" if options.server_tensorrt else " (--server-tensorrt VERSION compares it)"
        yield f"The server needs TensorRT {engine.version}{compared}, and a GPU with compute capability {gpus}."
