"""Inference backends behind one protocol, opened by name."""

from __future__ import annotations

from dataclasses import dataclass

from glnet_infer import devices
from glnet_infer.backends.base import Backend, DeviceOutputs, Frame, FrameBackend, Outputs, usual_batch_size
from glnet_infer.bundle import Bundle
from glnet_infer.errors import BackendError, first_line

BACKENDS = ("auto", "tensorrt", "onnxruntime-cuda", "onnxruntime-cpu")

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendChoice",
    "DeviceOutputs",
    "Frame",
    "FrameBackend",
    "Outputs",
    "choose_backend",
    "open_backend",
    "open_fastest",
    "usual_batch_size",
]


@dataclass(frozen=True)
class BackendChoice:
    """What ``auto`` stands for here.

    Attributes:
        name: One of the other :data:`BACKENDS`.
        reason: Why nothing faster was taken although there is a GPU; empty where nothing is lost.
    """

    name: str
    reason: str = ""


def choose_backend(bundle: Bundle) -> BackendChoice:
    """The fastest backend that can run a bundle here, as far as shows without starting one.

    TensorRT where GPU, engine and module fit each other; else ONNX Runtime, on the GPU where it is built for that.
    """
    if not devices.gpus():
        return BackendChoice("onnxruntime-cpu")
    refusals = []
    if bundle.manifest.engines:  # a bundle without engines is meant for ONNX Runtime
        from glnet_infer.backends.tensorrt.choice import choose_engine

        try:
            choose_engine(bundle)
        except BackendError as error:
            refusals.append(f"no TensorRT: {error.what} {error.why}".rstrip())
        else:
            return BackendChoice("tensorrt")
    obstacle = _obstacle_to_cuda()
    if not obstacle:
        return BackendChoice("onnxruntime-cuda", "; ".join(refusals))
    return BackendChoice("onnxruntime-cpu", "; ".join([*refusals, f"no CUDA: {obstacle}"]))


def open_backend(name: str, bundle: Bundle, threads: int | None = None) -> Backend:
    """Open a backend.

    Args:
        name: One of :data:`BACKENDS`. ``auto`` takes what :func:`open_fastest` does; a backend asked for by name is
            opened or refused, never replaced.
        bundle: What to run.
        threads: Threads of CPU kernels.

    Raises:
        BackendError: No such backend, or it cannot start.
        BundleError: The engine that it would run is missing or damaged.
    """
    if name == "auto":
        return open_fastest(bundle, threads)[0]
    if name not in BACKENDS:
        raise BackendError(
            f"There is no backend {name!r}.", fix=f"backends: {', '.join(BACKENDS)}; tensorrt runs engines of all kinds"
        )
    if name == "tensorrt":
        from glnet_infer.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(bundle)
    from glnet_infer.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, name.removeprefix("onnxruntime-"), threads)


def open_fastest(bundle: Bundle, threads: int | None = None) -> tuple[Backend, str]:
    """Open the fastest backend that starts here.

    What :func:`choose_backend` says, but for ONNX Runtime on the GPU: whether CUDA's libraries fit it, and whether the GPU
    has room, shows only when it starts, and where it does not, the CPU is taken. An engine that fits and does not start is
    an error.

    Returns:
        The backend, and why nothing faster was taken although there is a GPU; empty where nothing is lost.

    Raises:
        BackendError: It does not start.
        BundleError: The engine that was chosen is missing or damaged.
    """
    choice = choose_backend(bundle)
    try:
        return open_backend(choice.name, bundle, threads), choice.reason
    except BackendError as error:
        if choice.name != "onnxruntime-cuda":
            raise
        reason = f"no CUDA: {error.what} {error.why}".rstrip()
    return open_backend("onnxruntime-cpu", bundle, threads), "; ".join(filter(None, (choice.reason, reason)))


def _obstacle_to_cuda() -> str:
    """Why ONNX Runtime cannot use the GPU; empty where it can."""
    try:
        import onnxruntime
    except ImportError as error:  # opening the CPU backend then says what to install
        return first_line(error)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ""
    return f"this ONNX Runtime {onnxruntime.__version__} is built without it; onnxruntime-gpu has it"
