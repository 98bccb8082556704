"""Opening a bundle: the manifest is read and every file checked against it before anything is loaded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from glnet_infer.archives import ArraySpec, read_archive
from glnet_infer.bundle.checked_file import CheckedFile
from glnet_infer.bundle.manifest import CACHE_FOLDER, MANIFEST_NAME, Manifest
from glnet_infer.bundle.records import FileRecord
from glnet_infer.errors import BundleError

_LARGEST_TOPOLOGY = 1 << 28
"""Bytes. A body of a million vertices has 24 million bytes of triangles."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        directory: Where it lies.
        manifest: What it says of itself.
        faces: F x 3, the body's triangles.
        held_graph: The ONNX file, held open; None where the bundle was opened without it.
    """

    directory: Path
    manifest: Manifest
    faces: NDArray[np.int32]
    held_graph: CheckedFile | None

    @classmethod
    def open(cls, directory: str | PathLike[str], *, graph: bool = True) -> Bundle:
        """Read and check a bundle.

        Args:
            directory: The directory that ``glnet-export`` made.
            graph: Whether the ONNX file is opened. Without it, a backend that runs elsewhere can be used, and the file need
                not be there.

        Raises:
            BundleError: It is missing, damaged or changed, or of another schema version.
        """
        if not isinstance(directory, str | PathLike):
            raise BundleError(
                f"The bundle is a {type(directory).__name__}.", fix="give the directory that glnet-export made"
            )
        directory = Path(directory)
        manifest = Manifest.read(directory)
        held = CheckedFile(directory, manifest.graph.file) if graph else None
        topology = CheckedFile(directory, manifest.body.topology)
        arrays = read_archive(
            io.BytesIO(topology.read()),
            {"faces": ArraySpec(("F", 3), "int32")},
            BundleError,
            what=f"{topology.path} was not read.",
            fix="export the checkpoint again",
            limit=_LARGEST_TOPOLOGY,
        )
        return cls(directory, manifest, arrays["faces"], held)

    @property
    def graph_file(self) -> CheckedFile:
        """The ONNX file, held open.

        Raises:
            BundleError: The bundle was opened without it.
        """
        if self.held_graph is None:
            raise BundleError(
                f"{self.directory} was opened without its graph.",
                why="a server runs it",
                fix="name the server's model as the backend, or open the whole bundle",
            )
        return self.held_graph

    def read(self, record: FileRecord) -> bytes:
        """The content of one of the bundle's files: the very bytes that were compared with its record.

        Raises:
            BundleError: The file is missing, or is no longer what it was when the bundle was made.
        """
        return CheckedFile(self.directory, record).read()

    def skin(self) -> BinaryIO | None:
        """The content of ``skin.npz``, for ``Skin.load``; None where the bundle has none.

        Raises:
            BundleError: The file is missing, or is no longer what it was when the bundle was made.
        """
        record = self.manifest.body.skin
        return None if record is None else io.BytesIO(self.read(record))

    @property
    def graph(self) -> Path:
        """Path of the ONNX file; what runs it reads :attr:`graph_file`."""
        return self.directory / self.manifest.graph.file.file


def check_all_files(directory: str | Path) -> Manifest:
    """Compare every file of a bundle with its manifest; :meth:`Bundle.open` leaves most of them to what reads them.

    Returns:
        The manifest.

    Raises:
        BundleError: The manifest or a file is missing or damaged. All such files are named.
    """
    directory = Path(directory)
    manifest = Manifest.read(directory)
    errors: dict[str, BundleError] = {}
    for record in dict.fromkeys(manifest.files()):
        try:
            CheckedFile(directory, record)
        except BundleError as error:
            errors[record.file] = error
    if errors:
        first = next(iter(errors.values()))
        if len(errors) == 1:
            raise first
        raise BundleError(
            f"{len(errors)} files of the bundle {directory} are not what the manifest records.",
            why=f"{', '.join(errors)}; of the first, {first.why}",
            fix=first.fix,
        ) from first
    return manifest


def unknown_entries(directory: Path, manifest: Manifest) -> list[str]:
    """Names in a bundle's directory that its manifest does not account for, sorted.

    Raises:
        BundleError: The directory cannot be listed.
    """
    known = {MANIFEST_NAME, CACHE_FOLDER, *(record.file for record in manifest.files())}
    try:
        return sorted(entry.name for entry in directory.iterdir() if entry.name not in known)
    except OSError as error:
        raise BundleError(
            f"The bundle {directory} cannot be listed.", why=str(error.strerror), fix="check its permissions"
        ) from error
