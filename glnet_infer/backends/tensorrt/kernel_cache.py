"""Where kernels that TensorRT for RTX compiled for a GPU are kept from one run to the next."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from pathlib import Path

from glnet_infer.bundle import Bundle
from glnet_infer.bundle.manifest import CACHE_FOLDER
from glnet_infer.bundle.records import FileRecord
from glnet_infer.devices import Gpu
from glnet_infer.errors import BackendError, OutputError
from glnet_infer.files import make_directory, read_file, replace_file

LARGEST_CACHE = 1 << 30
"""Bytes. The kernels of an engine take some millions."""


class RuntimeCacheFile:
    """The file of one engine's kernels for one GPU.

    Args:
        bundle: Holds the engine.
        engine: The engine's file.
        gpu: The GPU that the kernels are for.
        directory: Folder to keep it in. None: the bundle's own ``cache`` folder, or the user's cache directory where that
            cannot be written.
    """

    def __init__(self, bundle: Bundle, engine: FileRecord, gpu: Gpu, directory: Path | None = None) -> None:
        # Engine and GPU are in the name, so that two GPUs on one bundle do not take turns in replacing each other's file.
        gpu_name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
        self._name = f"{engine.sha256[:16]}.{gpu_name}.cache"
        self._directories = [directory] if directory else [bundle.directory / CACHE_FOLDER, *_users_cache()]
        self._known = b""

    def read(self) -> bytes:
        """The content, empty where there is none."""
        for directory in self._directories:
            path = directory / self._name
            with contextlib.suppress(BackendError):
                self._known = read_file(path, BackendError, what=f"{path} was not read.", fix="", largest=LARGEST_CACHE)
                break
        return self._known

    def write(self, content: bytes) -> None:
        """Replace the content as a whole; where no directory can be written, say so and go on: it only costs time."""
        if content == self._known:
            return
        reasons = []
        for directory in self._directories:
            try:
                make_directory(directory)
                if directory.is_symlink() or (directory / self._name).is_symlink():
                    raise OutputError("Kernels are not kept behind a link.", why="it is a link, and may lead anywhere")
                replace_file(directory / self._name, content)
            except OutputError as error:
                reasons.append(f"{directory}: {error.why}")
            else:
                self._known = content
                return
        warnings.warn(
            f"compiled kernels were not kept ({'; '.join(reasons)}): the next start compiles them again",
            RuntimeWarning,
            stacklevel=2,
        )


def _users_cache() -> list[Path]:
    """The user's cache directory; none where there is no HOME, and no entry in passwd."""
    root = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):
        return [(Path(root) if root else Path.home() / ".cache") / "glnet-infer"]
    return []
