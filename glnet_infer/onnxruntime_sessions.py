"""ONNX Runtime, imported without its telemetry."""

from __future__ import annotations

import os
from typing import Any

from glnet_infer.errors import BackendError, install_hint


def import_onnxruntime() -> Any:
    """ONNX Runtime, without its telemetry.

    From version 1.32 on, its wheels write a device id into the user's folder and queue events for its maker. An environment
    variable that is set before the import stops that; a value that the user gave it is kept.

    Raises:
        BackendError: It is not installed, or broken.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "ONNX Runtime is not installed.",
            why=str(error),
            fix=f"{install_hint('cpu')}; 'gpu' instead of 'cpu' for an NVIDIA GPU",
        ) from error
    return onnxruntime
