"""Inference backends behind one protocol, opened by name."""

from __future__ import annotations

from glnet_infer.backends.base import Backend, Outputs
from glnet_infer.bundle import Bundle
from glnet_infer.errors import BackendError

BACKENDS = ("auto", "onnxruntime-cpu", "onnxruntime-cuda")

__all__ = ["BACKENDS", "Backend", "Outputs", "open_backend"]


def open_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """Open a backend.

    Args:
        name: One of :data:`BACKENDS`. ``auto`` takes the GPU where ONNX Runtime is built for it and there is one, else
            the CPU; a backend asked for by name is opened or refused, never replaced.
        bundle: What to run.
        threads: Threads of CPU kernels.

    Raises:
        BackendError: No such backend, or it cannot start.
    """
    from glnet_infer.backends.onnxruntime import OnnxRuntimeBackend

    if name == "auto":
        name = "onnxruntime-cuda" if _cuda_is_usable() else "onnxruntime-cpu"
    if name not in BACKENDS:
        raise BackendError(f"There is no backend {name!r}.", fix=f"backends: {', '.join(BACKENDS)}")
    return OnnxRuntimeBackend(bundle, name.removeprefix("onnxruntime-"), threads)


def _cuda_is_usable() -> bool:
    from glnet_infer.devices import gpus

    try:
        import onnxruntime
    except ImportError:
        return False  # opening the CPU backend then says what to install
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and bool(gpus())
