"""Opening a bundle: the manifest is read and every file checked against it before anything is loaded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glnet_infer.bundle.checked_file import CheckedFile, check_file
from glnet_infer.bundle.manifest import Manifest
from glnet_infer.errors import BundleError, first_line


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        directory: Where it lies.
        manifest: What it says of itself.
        faces: F x 3, the body's triangles.
        graph_file: The ONNX file, held open.
    """

    directory: Path
    manifest: Manifest
    faces: NDArray[np.int32]
    graph_file: CheckedFile

    @classmethod
    def open(cls, directory: str | Path) -> Bundle:
        """Read and check a bundle.

        Raises:
            BundleError: It is missing, damaged or changed, or of another schema version.
        """
        directory = Path(directory)
        manifest = Manifest.read(directory)
        graph = CheckedFile(directory, manifest.graph.file)
        topology = CheckedFile(directory, manifest.body.topology)
        try:
            with np.load(io.BytesIO(topology.read()), allow_pickle=False) as archive:
                faces = archive["faces"].astype(np.int32)
        except Exception as error:  # numpy, zipfile and zlib each have kinds of their own
            raise BundleError(
                f"{topology.path} was not read.", why=first_line(error), fix="export the checkpoint again"
            ) from error
        return cls(directory, manifest, faces, graph)

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
        """Path of the ONNX file; what runs it reads :attr:`graph_file`."""
        return self.directory / self.manifest.graph.file.file
