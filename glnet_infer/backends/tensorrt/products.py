"""Finding TensorRT's Python modules, and keeping what TensorRT says."""

from __future__ import annotations

import functools
import importlib
import threading
from collections import deque
from types import ModuleType
from typing import Any

from glnet_infer.errors import BackendError, install_hint, one_line

MODULES = {"tensorrt": "tensorrt", "tensorrt-lean": "tensorrt_lean", "tensorrt-rtx": "tensorrt_rtx"}
"""Python modules of the runtimes. Each runs the engines that were built for it and no others."""

TITLES = {"tensorrt": "TensorRT", "tensorrt-lean": "TensorRT's lean runtime", "tensorrt-rtx": "TensorRT for RTX"}
EXTRAS = {"tensorrt": "trt", "tensorrt-lean": "lean", "tensorrt-rtx": "rtx"}
"""The extra of this library that installs each runtime."""

_KEPT_LINES = 200

_NO_REASON = "TensorRT gave no reason; if another library of this process used it first, its words are in that one's log"


class TensorRtLog:
    """What TensorRT says, from warnings on.

    TensorRT reports failures as None or False and gives the reason to its logger only. One log serves a module for the
    life of the process: TensorRT takes the first logger that it is given and leaves later ones aside.

    Args:
        trt: TensorRT's module.
    """

    def __init__(self, trt: ModuleType) -> None:
        self._lock = threading.Lock()
        self._lines: deque[tuple[int, bool, str]] = deque(maxlen=_KEPT_LINES)
        self._count = 0
        record = self._record
        errors = {int(trt.ILogger.Severity.INTERNAL_ERROR), int(trt.ILogger.Severity.ERROR)}
        warning = int(trt.ILogger.Severity.WARNING)

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            """TensorRT calls it from any of its threads."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if int(severity) in errors or int(severity) == warning:
                    record(int(severity) in errors, text)

        self.logger: Any = Logger()
        """For TensorRT's constructors."""

    def _record(self, is_error: bool, text: str) -> None:
        with self._lock:
            self._count += 1
            self._lines.append((self._count, is_error, " ".join(text.split())))

    def mark(self) -> int:
        """Now, for :meth:`since`."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> str:
        """TensorRT's messages since a mark: its errors, or its warnings where there are none."""
        with self._lock:
            lines = [(is_error, text) for number, is_error, text in self._lines if number > mark]
        said = [text for is_error, text in lines if is_error] or [text for _, text in lines]
        return "; ".join(dict.fromkeys(said)) or _NO_REASON


_log_lock = threading.Lock()


@functools.cache
def _log_of(trt: ModuleType) -> TensorRtLog:
    return TensorRtLog(trt)


def log_of(trt: ModuleType) -> TensorRtLog:
    """The one log of a TensorRT module."""
    with _log_lock:  # the cache alone would let two threads make one each
        return _log_of(trt)


def load_runtime(name: str) -> ModuleType:
    """The module of a runtime, one of :data:`MODULES`.

    Raises:
        BackendError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(MODULES[name])
    except Exception as error:  # a module whose libraries are missing or broken raises what it likes
        raise BackendError(
            f"{TITLES[name]} is not installed.", why=one_line(error), fix=install_hint(EXTRAS[name])
        ) from error
