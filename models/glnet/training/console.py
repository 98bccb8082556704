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


def make_directory(directory: Path) -> None:
    """Make it, and raise OutputError where that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{directory} cannot be used.", why=str(error.strerror), fix="choose another") from error
