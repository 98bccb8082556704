"""NVIDIA's products that build and run engines: one table; finding their Python modules, keeping what they say."""

from __future__ import annotations

import functools
import importlib
import threading
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from glnet_infer.errors import BackendError, install_hint, one_line


@dataclass(frozen=True)
class Product:
    """A product of NVIDIA. Each runs the engines that were built for it and no others.

    Attributes:
        name: What manifests and options call it; also its distribution on PyPI.
        title: What people call it.
        module: Its Python module.
        extra: The extra of this library that installs it.
        tag: How names of engine files begin.
        oldest: First version that builds our engines; None where it builds none.
        compute_capabilities: GPUs that it compiles our graphs for, ahead of time; empty where it compiles for its own GPU.
    """

    name: str
    title: str
    module: str
    extra: str
    tag: str
    oldest: tuple[int, int] | None = None
    compute_capabilities: frozenset[str] = frozenset()


TENSORRT = Product("tensorrt", "TensorRT", "tensorrt", "trt", "trt", oldest=(10, 12))
LEAN = Product("tensorrt-lean", "TensorRT's lean runtime", "tensorrt_lean", "lean", "trt-lean")
RTX = Product(
    "tensorrt-rtx",
    "TensorRT for RTX",
    "tensorrt_rtx",
    "rtx",
    "rtx",
    oldest=(1, 7),
    # Data centre GPUs such as Hopper's are not among them. On Turing's (7.5) it has no float32 matrix products, which the
    # kinematics need.
    compute_capabilities=frozenset({"8.0", "8.6", "8.9", "12.0", "12.1"}),
)

PRODUCTS = {product.name: product for product in (TENSORRT, LEAN, RTX)}
"""All of them, by the names that :attr:`glnet_infer.bundle.records.EngineRecord.runtime` gives."""

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
    """The module of a product, one of :data:`PRODUCTS`.

    Raises:
        BackendError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(PRODUCTS[name].module)
    except Exception as error:  # a module whose libraries are missing or broken raises what it likes
        raise BackendError(
            f"{PRODUCTS[name].title} is not installed.", why=one_line(error), fix=install_hint(PRODUCTS[name].extra)
        ) from error
