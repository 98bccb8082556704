"""A check that the packages of ``glnet-train`` are installed."""

from glnet_infer.errors import TrainingError, first_line, install_hint


def check_installed() -> None:
    """Raise TrainingError where torch is missing or broken."""
    try:
        import jaxtyping  # noqa: F401
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # a broken torch raises OSError
        raise TrainingError("Training is not installed.", why=first_line(error), fix=install_hint("cpu,train")) from error
