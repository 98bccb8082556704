"""Files are replaced as a whole: a reader sees the old content or the new, and a write that fails leaves the old.

Everything that this project writes goes through :class:`Replacement`, mostly by :func:`replace_file`. Every JSON document
that it did not make itself is read by :func:`read_json`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from glnet_infer.claims import PARTIAL, claimed_file, remove_litter
from glnet_infer.errors import GlnetError, OutputError, first_line
from glnet_infer.forks import HomeProcess

LARGEST_JSON = 64 << 20
"""Bytes. The largest document of ours is a bench file of some megabytes; Python's objects take ten times the text."""

ELSEWHERE = "choose a file in a directory that you may write to"


class Replacement:
    """A file that is written under a temporary name beside its own, and put in its place when it is whole.

    For content that other libraries write; :func:`replace_file` is for all else. A process that is killed leaves the
    temporary file, whose name begins with a dot, and never half a file under the final name. The next process that writes
    into the directory removes it.

    Args:
        path: The file. A symbolic link stays a link: what it points to is replaced.
        suffix: End of the temporary name, for libraries that look at it, such as ``.mp4``.

    Attributes:
        partial: The temporary file. :meth:`begin` makes it.

    Raises:
        OutputError: The path is a directory or another thing that must not be replaced, or a file that is read-only.
    """

    def __init__(self, path: str | PathLike[str], suffix: str = "") -> None:
        self._path, self._suffix, self._home = path, suffix, HomeProcess()
        self._file: BinaryIO | None = None
        with told_as_output(path):
            self._target = Path(path).resolve()
            # Renaming over /dev/null would replace it by a file.
            if self._target.exists() and not self._target.is_file():
                raise IsADirectoryError(errno.EISDIR, "it is not a regular file")
            # Renaming would pass over what the user has locked.
            if self._target.exists() and not (self._target.stat().st_mode & 0o222 and os.access(self._target, os.W_OK)):
                raise PermissionError(errno.EACCES, "the file is read-only")
            self.partial = self._new_name()

    def begin(self) -> BinaryIO:
        """Make the temporary file, open for writing. Who writes by its name leaves the open one alone.

        Raises:
            OutputError: It cannot be made.
        """
        with told_as_output(self._path):
            remove_litter(self._target.parent)
            while (file := claimed_file(self.partial)) is None:
                self.partial = self._new_name()
            self._file = file
            return file

    def finish(self) -> None:
        """Put the file in its place.

        Raises:
            OutputError: It cannot be put there.
        """
        with told_as_output(self._path):
            if self._file is not None:
                self._file.flush()
                if os.name == "nt":  # which does not rename what is open
                    self._file.close()
            # Claimed until it has its name: it must not be taken for litter.
            self.partial.replace(self._target)
            self._close()

    def discard(self) -> None:
        """Leave what was there; never fails. In a forked process it does nothing: the file is still being written."""
        if not self._home.is_here:
            return
        if os.name == "nt":
            self._close()
        with suppress(OSError):
            self.partial.unlink(missing_ok=True)
        self._close()

    def _new_name(self) -> Path:
        # Room for the rest of the name; a character may take several bytes.
        name = os.fsencode(self._target.name)[:150].decode(errors="ignore")
        return self._target.with_name(f".{name}.{uuid.uuid4().hex}{PARTIAL}{self._suffix}")

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what is still to be written is no longer wanted
                self._file.close()


def replace_file(path: str | PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside it, then rename it; on any failure remove it and leave what was there.

    Args:
        path: The file. A symbolic link stays a link: what it points to is replaced.
        content: Its bytes, or a function that writes them into the open file.

    Raises:
        OutputError: The file cannot be written. Other errors of the function pass through.
    """
    replacement = Replacement(path)
    try:
        file = replacement.begin()
        with told_as_output(path):
            if callable(content):
                content(file)
            else:
                file.write(content)
        replacement.finish()
    except BaseException:
        replacement.discard()
        raise


@contextmanager
def told_as_output(path: str | PathLike[str]) -> Iterator[None]:
    """Turn errors of the operating system into those of a file that cannot be written.

    Raises:
        OutputError: The block raised such an error, or one that was caused by it.
    """
    try:
        yield
    except Exception as error:
        # Libraries that write into the file hide its error behind their own: torch a full disk's behind its archive's.
        cause = next((each for each in (error, error.__cause__, error.__context__) if isinstance(each, OSError)), None)
        if cause is None:
            raise
        raise unwritable(path, cause) from error


def make_directory(path: Path) -> None:
    """Make a directory and its parents, where they are missing.

    Raises:
        OutputError: It cannot be made or written into, or it is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "nothing can be written there")
    except FileExistsError as error:
        raise OutputError(
            f"Cannot write into {path}.", why="it is a file, not a directory", fix="choose another directory"
        ) from error
    except OSError as error:
        raise OutputError(
            f"Cannot write into {path}.", why=str(error.strerror or error), fix="choose another directory"
        ) from error


def unwritable(path: str | PathLike[str], error: OSError) -> OutputError:
    """The error of a file that cannot be written."""
    folder = Path(path).absolute().parent
    if isinstance(error, IsADirectoryError):
        return OutputError(f"Cannot write {path}.", why="it is a directory or not a regular file", fix=ELSEWHERE)
    # /proc says of any new file that it is not there.
    if isinstance(error, FileNotFoundError) and not is_directory(folder):
        return OutputError(f"Cannot write {path}.", why=f"there is no directory {folder}", fix=f"mkdir -p {folder}")
    why = f"{folder} is not a directory" if isinstance(error, NotADirectoryError) else str(error.strerror or error)
    fix = "free some space, or write to another disk" if error.errno == errno.ENOSPC else ELSEWHERE
    return OutputError(f"Cannot write {path}.", why=why, fix=fix)


def is_file(path: str | PathLike[str]) -> bool:
    """Whether a regular file is there; no, where that cannot even be asked: in a closed directory, of a name too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file may raise


def is_directory(path: str | PathLike[str]) -> bool:
    """Whether a directory is there; no, where that cannot be asked."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir may raise


def is_there(path: str | PathLike[str]) -> bool:
    """Whether anything is there; no, where that cannot be asked."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists may raise


def utf8_name(path: str | PathLike[str]) -> str:
    """A path or suffix for OpenCV, which takes all text for UTF-8, and crashes where it is none.

    Raises:
        ValueError: Its bytes are not UTF-8.
    """
    try:
        return os.fsencode(path).decode()
    except UnicodeError as error:
        raise ValueError("OpenCV opens no name that is not UTF-8") from error


def open_regular(path: str | PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device is not waited for.

    Raises:
        OSError: It cannot be opened, or is another kind of thing.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, "it is a directory, not a file")
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | PathLike[str], kind: type[GlnetError], *, what: str, fix: str, largest: float) -> bytes:
    """The content of a regular file of any origin.

    Args:
        path: The file.
        kind: The error's class.
        what: What happened where it cannot be read, a sentence.
        fix: What the user can do about it.
        largest: Bytes; a larger file is refused before it is read.

    Raises:
        GlnetError: The file is missing, too large or not a regular one; the class is ``kind``.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= largest else b""
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise kind(what, why=str(getattr(error, "strerror", None) or error), fix=fix) from error
    if size > largest:
        raise kind(what, why=f"it has {size} bytes, and at most {largest} are read", fix=fix)
    return content


def read_json(path: str | PathLike[str], kind: type[GlnetError], *, fix: str, largest: float = LARGEST_JSON) -> Any:
    """A JSON document, UTF-8 with or without a byte order mark, of any origin.

    Args:
        path: The file.
        kind: The error's class.
        fix: What the user can do about a file that cannot be read.
        largest: Bytes; a larger file is refused.

    Raises:
        GlnetError: The file is missing, too large or no JSON; the class is ``kind``.
    """
    what = f"{path} was not read."
    content = read_file(path, kind, what=what, fix=fix, largest=largest)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise kind(what, why=why, fix=fix) from error
