"""ONNX Runtime, imported without its telemetry; its sessions, kept from harming forked processes."""

from __future__ import annotations

import os
import weakref
from typing import Any

from glnet_infer.errors import BackendError, install_hint
from glnet_infer.forks import keep_for_ever


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
        if "map segment" in str(error) or "allocate" in str(error):  # the dynamic linker's words
            raise BackendError(
                "ONNX Runtime cannot be loaded.", why=str(error), fix="give this process more memory (ulimit -v)"
            ) from error
        raise BackendError(
            "ONNX Runtime is not installed.",
            why=str(error),
            fix=f"{install_hint('cpu')}; 'gpu' instead of 'cpu' for an NVIDIA GPU",
        ) from error
    return onnxruntime


_sessions: weakref.WeakSet[Any] = weakref.WeakSet()
"""All that live in this process."""


def keep_through_forks(session: Any) -> None:
    """Never end a session in a child that is forked from this process: its end waits for threads that the child has not."""
    _sessions.add(session)


def _keep_sessions() -> None:
    for session in _sessions:
        keep_for_ever(session)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)
