"""ONNX Runtime, imported without its telemetry; its sessions, which do only what they are told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from glnet_infer.devices import physical_cores
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


def session_options(threads: int | None = None) -> Any:
    """Options of a session: quiet, and with a number of threads.

    Without a number, ONNX Runtime takes one thread for each core of the machine and ties each to its own. In a process that
    is held to fewer cores, that fails with lines on stderr, and the threads wait for each other.

    Args:
        threads: Threads of the CPU kernels; one for each physical core that this process may use where None.

    Raises:
        BackendError: ONNX Runtime is not installed, or broken.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions, its warnings are about its own choices
    options.intra_op_num_threads = threads or physical_cores()
    return options


def open_session(
    content: bytes, options: Any, provider: str = "CPUExecutionProvider", settings: Mapping[str, str] | None = None
) -> Any:
    """A session on one provider, which is not left in silence.

    By itself, ONNX Runtime answers a failure by lines on stdout and a session on the CPU, when it opens and in every run.

    Args:
        content: The bytes of an ONNX file.
        options: What :func:`session_options` gave.
        provider: Name of the execution provider.
        settings: Options of the provider.

    Raises:
        Exception: ONNX Runtime's own, which share no base class but this.
    """
    providers = [(provider, dict(settings or {}))]
    session = import_onnxruntime().InferenceSession(content, options, providers=providers, enable_fallback=0)
    for each in (*session.get_inputs(), *session.get_outputs()):
        _ = each.name, each.shape  # names that are not UTF-8 fail here, and not where they are used
    return session
