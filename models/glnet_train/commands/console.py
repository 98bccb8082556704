"""What the commands of ``glnet-train`` share."""

import errno
import os
from pathlib import Path

from glnet_infer.errors import OutputError, TrainingError, first_line, install_hint


def check_installed() -> None:
    """Raise TrainingError where torch is missing or broken."""
    try:
        import jaxtyping  # noqa: F401
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # a broken torch raises OSError
        raise TrainingError("Training is not installed.", why=first_line(error), fix=install_hint("cpu,train")) from error


def holds(directory: Path, name: str) -> bool:
    """Whether a directory holds a file; raises OutputError where that cannot be known."""
    try:
        return (directory / name).is_file()
    except OSError as error:
        raise _unusable(directory, error) from error


def make_directory(directory: Path) -> None:
    """Make it, and raise OutputError where that cannot be, or where nothing can be written into it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, "nothing can be written there")
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> OutputError:
    return OutputError(f"{directory} cannot be used.", why=str(error.strerror), fix="choose another")
