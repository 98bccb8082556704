"""Files are replaced as a whole: a reader sees the old content or the new, and a write that fails leaves the old.

Everything that this project writes goes through :func:`replace_file`, and every JSON document that it did not make itself
is read by :func:`read_json`.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from glnet_infer.errors import GlnetError, OutputError, first_line

LARGEST_JSON = 64 << 20
"""Bytes. The largest document of ours is a bench file of some megabytes; Python's objects take ten times the text."""

ELSEWHERE = "choose a file in a directory that you may write to"


def replace_file(path: str | PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name beside it, then rename it; on any failure remove it and leave what was there.

    Args:
        path: The file. A symbolic link stays a link: what it points to is replaced.
        content: Its bytes, or a function that writes them into the open file.

    Raises:
        OutputError: The file cannot be written. Other errors of the function pass through.
    """
    try:
        target = Path(path).resolve()
        # Renaming over /dev/null would replace it by a file.
        if target.exists() and not target.is_file():
            raise IsADirectoryError(errno.EISDIR, "it is not a regular file")
        partial = target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex}.partial")
        try:
            # Not tempfile: its files are private to the user, and the result would stay so. "x" follows the umask,
            # and no link.
            with partial.open("xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
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
    if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir may raise
        return OutputError(f"Cannot write {path}.", why=f"there is no directory {folder}", fix=f"mkdir -p {folder}")
    why = f"{folder} is not a directory" if isinstance(error, NotADirectoryError) else str(error.strerror or error)
    fix = "free some space, or write to another disk" if error.errno == errno.ENOSPC else ELSEWHERE
    return OutputError(f"Cannot write {path}.", why=why, fix=fix)


def read_json(path: Path, kind: type[GlnetError], *, fix: str, largest: float = LARGEST_JSON) -> Any:
    """A JSON document, UTF-8, of any origin.

    Args:
        path: The file.
        kind: The error's class.
        fix: What the user can do about a file that cannot be read.
        largest: Bytes; a larger file is refused.

    Raises:
        GlnetError: The file is missing, too large or no JSON; the class is ``kind``.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise ValueError(f"it has {size} bytes, and at most {largest} are read")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise kind(f"{path} was not read.", why=str(error.strerror or error), fix=fix) from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise kind(f"{path} was not read.", why=why, fix=fix) from error
