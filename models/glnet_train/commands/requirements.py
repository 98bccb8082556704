"""What the commands of ``glnet-train`` share."""

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
        raise OutputError(
            f"Cannot write into {directory}.", why=str(error.strerror or error), fix="choose another directory"
        ) from error
