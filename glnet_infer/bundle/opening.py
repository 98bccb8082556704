"""Opening a bundle: the manifest is read and every file checked against it before anything is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glnet_infer.bundle.manifest import FileRecord, Manifest
from glnet_infer.errors import BundleError, first_line


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        directory: Where it lies.
        manifest: What it says of itself.
        faces: F x 3, the body's triangles.
    """

    directory: Path
    manifest: Manifest
    faces: NDArray[np.int32]

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Read and check a bundle.

        Raises:
            BundleError: It is missing, damaged or changed, or of another schema version.
        """
        directory = Path(directory)
        manifest = Manifest.read(directory)
        check_file(directory, manifest.graph.file)
        topology = check_file(directory, manifest.body.topology)
        try:
            with np.load(topology, allow_pickle=False) as archive:
                faces = archive["faces"].astype(np.int32)
        except Exception as error:  # numpy, zipfile and zlib each have kinds of their own
            raise BundleError(
                f"{topology} was not read.", why=first_line(error), fix="export the checkpoint again"
            ) from error
        return cls(directory, manifest, faces)

    def check_engines(self) -> None:
        """Check the engines' files, too, which :meth:`open` leaves to what loads them.

        Raises:
            BundleError: One is missing, damaged or changed.
        """
        for engine in self.manifest.engines:
            check_file(self.directory, engine.file)
            if engine.crop is not None:
                check_file(self.directory, engine.crop.file)

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.directory / self.manifest.graph.file.file


def record_file(path: Path) -> FileRecord:
    """The record of a file as it is now."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return FileRecord(path.name, digest.hexdigest(), path.stat().st_size)


def check_file(directory: Path, record: FileRecord) -> Path:
    """The path of a recorded file.

    Raises:
        BundleError: The file is missing, or is no longer what it was when the bundle was made.
    """
    path = directory / record.file
    if not path.is_file():
        raise BundleError(
            f"The bundle {directory} is incomplete.",
            why=f"{record.file} is missing",
            fix="copy the whole directory, or export the checkpoint again",
        )
    try:
        found = record_file(path)
    except OSError as error:
        raise BundleError(f"{path} was not read.", why=str(error.strerror), fix="check its permissions") from error
    if found != record:
        why = (
            f"it has {found.bytes} bytes, and had {record.bytes}"
            if found.bytes != record.bytes
            else f"its SHA-256 is {found.sha256[:12]}..., and was {record.sha256[:12]}..."
        )
        raise BundleError(
            f"{path} is not the file that the manifest describes.",
            why=why,
            fix="copy the bundle again, or export the checkpoint again; files of two bundles do not mix",
        )
    return path
