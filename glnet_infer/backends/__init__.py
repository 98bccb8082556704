"""Inference backends behind one protocol, opened by name from one table."""

from glnet_infer.backends.base import Backend, DeviceOutputs, Frame, FrameBackend, Outputs, usual_batch_size
from glnet_infer.backends.registry import (
    BackendChoice,
    BackendKind,
    backend_names,
    choose_backend,
    find_kind,
    kinds,
    open_backend,
    open_fastest,
)

__all__ = [
    "Backend",
    "BackendChoice",
    "BackendKind",
    "DeviceOutputs",
    "Frame",
    "FrameBackend",
    "Outputs",
    "backend_names",
    "choose_backend",
    "find_kind",
    "kinds",
    "open_backend",
    "open_fastest",
    "usual_batch_size",
]
