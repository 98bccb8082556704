"""Files that backends keep from one start to the next: what was compiled for a machine."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from glnet_infer.bundle import Bundle
from glnet_infer.bundle.manifest import CACHE_FOLDER
from glnet_infer.errors import BackendError, OutputError
from glnet_infer.files import make_directory, read_file, replace_file

LARGEST_CACHE = 1 << 30
"""Bytes. The kernels of an engine take some millions, a graph as much as its file."""


class CacheFile:
    """A file whose loss costs time alone.

    Args:
        bundle: What was compiled.
        name: Name of the file: another for each machine on which bundles are shared, or they take turns in replacing it.
        what: What it holds, in the plural, for the warning.
        directory: Folder to keep it in. None: the bundle's own ``cache`` folder, or the user's cache directory where that
            cannot be written.
    """

    def __init__(self, bundle: Bundle, name: str, what: str, directory: Path | None = None) -> None:
        self._name, self._what = name, what
        self._directories = [directory] if directory else [bundle.directory / CACHE_FOLDER, *_users_cache()]

    def contents(self) -> Iterator[bytes]:
        """What each directory has, read when it is asked for: a bundle that cannot be written may have what is outdated."""
        for directory in self._directories:
            path = directory / self._name
            try:
                content = read_file(path, BackendError, what=f"{path} was not read.", fix="", largest=LARGEST_CACHE)
            except BackendError:
                continue
            yield content

    def write(self, content: bytes) -> None:
        """Replace the content as a whole; where no directory can be written, say so and go on: it only costs time.

        Content that is larger than :data:`LARGEST_CACHE` is not kept.
        """
        if len(content) > LARGEST_CACHE:
            return
        reasons = []
        for directory in self._directories:
            try:
                make_directory(directory)
                if directory.is_symlink() or (directory / self._name).is_symlink():
                    raise OutputError(
                        f"{self._what} are not kept behind a link.", why="it is a link, and may lead anywhere"
                    )
                replace_file(directory / self._name, content)
            except OutputError as error:
                reasons.append(f"{directory}: {error.why}")
            else:
                return
        warnings.warn(
            f"{self._what} were not kept ({'; '.join(reasons)}): the next start compiles them again",
            RuntimeWarning,
            stacklevel=2,
        )


def _users_cache() -> list[Path]:
    """The user's cache directory; none where there is no HOME, and no entry in passwd."""
    root = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):
        return [(Path(root) if root else Path.home() / ".cache") / "glnet-infer"]
    return []
