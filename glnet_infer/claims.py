"""What a process is still writing, told from what one that was killed has left behind.

Who makes a temporary file holds a lock on it. The lock ends with the process, however that ends. The number of a process
would not do: in containers the first process of each has the same one.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from glnet_infer.forks import HomeProcess

try:
    import fcntl
except ImportError:  # Windows, where a file that a process holds open cannot be removed
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"
"""End of a temporary name; :func:`remove_litter` knows names by it, and by the 32 hexadecimal digits before it."""

_FILE = re.compile(r"\..+\.[0-9a-f]{32}\.partial(\.\w+)?", re.DOTALL)
_FOLDER_PREFIX = "glnet-"
_FOLDER = re.compile(rf"{_FOLDER_PREFIX}\w{{8}}\.partial")

_swept: set[str] = set()
"""Directories that this process has looked through."""


def claimed_file(path: str | PathLike[str]) -> BinaryIO | None:
    """Make a file that did not exist, open for writing; it is claimed until it is closed.

    Returns:
        The file. None where another process took it for litter, in the moment before it was claimed: take another name.

    Raises:
        OSError: It cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)  # as the umask has it: tempfile's are private to the user, and stay so
    try:
        if _claim(descriptor, path):
            return os.fdopen(descriptor, "wb")
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def remove_unclaimed(path: str | PathLike[str]) -> bool:
    """Remove a file or folder that nobody claims; links are left alone.

    Returns:
        Whether it is gone.
    """
    if fcntl is None:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - any path
        return not os.path.lexists(path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return not os.path.lexists(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            os.unlink(path)  # noqa: PTH108 - any path
        elif stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its maker is at work, or it is somebody else's
        pass
    finally:
        os.close(descriptor)
    return not os.path.lexists(path)


def remove_litter(directory: Path) -> None:
    """Remove the temporary files that killed processes left in a directory; each process looks there once."""
    if fcntl is None or str(directory) in _swept:
        return
    _swept.add(str(directory))
    _remove_all(directory, _FILE)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the user alone, removed at the end; one that a killed process left is removed by the next.

    Raises:
        OSError: It cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    if fcntl is not None:
        _remove_all(parent, _FOLDER)
    home, descriptor = HomeProcess(), None
    while True:
        path = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, suffix=PARTIAL))
        if fcntl is None:
            break
        descriptor = os.open(path, os.O_RDONLY)
        if _claim(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        if home.is_here:  # or else it is its parent's
            shutil.rmtree(path, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _claim(descriptor: int, path: str | PathLike[str]) -> bool:
    """Lock what was just made; whether it is still there."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # who looks for litter has it, and removes it
        return False
    except OSError:  # a file system without locks: nobody can take it for litter there either
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116 - any path
    except FileNotFoundError:
        return False


def _remove_all(directory: Path, names: re.Pattern[str]) -> None:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if names.fullmatch(entry.name):
                remove_unclaimed(entry.path)
