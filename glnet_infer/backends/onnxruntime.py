"""ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import USUAL_BATCH_SIZE, Outputs
from glnet_infer.bundle import Bundle
from glnet_infer.devices import cores
from glnet_infer.errors import BackendError, install_hint, one_line

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 keeps 10 bits of what the graph says is float32: emulated in the kinematics, it moves vertices by up to 8 mm.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""Execution provider and its options, by device."""


class OnnxRuntimeBackend:
    """A session on the bundle's graph. May be called from several threads at once.

    Args:
        bundle: The opened bundle.
        device: ``cpu`` or ``cuda``.
        threads: Threads of the CPU kernels; ONNX Runtime's own choice where None.

    Raises:
        BackendError: ONNX Runtime is not installed, lacks the device's provider, or refuses the graph.

    Attributes:
        batch_size: How many crops suit it in one call.
    """

    def __init__(self, bundle: Bundle, device: str, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                "ONNX Runtime is not installed.",
                why=str(error),
                fix=f"{install_hint('cpu')}; 'gpu' instead of 'cpu' for an NVIDIA GPU",
            ) from error
        missing = load_cuda(onnxruntime) if device == "cuda" else ""
        provider, provider_options = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"This ONNX Runtime cannot run on {device}.",
                why=f"version {onnxruntime.__version__} has {', '.join(onnxruntime.get_available_providers())}",
                fix=f"pip uninstall onnxruntime, then {install_hint('gpu')}",
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions, its warnings are about its own choices
        if threads is not None:
            options.intra_op_num_threads = threads
        if device == "cpu" and bundle.manifest.graph.precision != "fp32":
            # ONNX Runtime 1.32 crashed at ORT_ENABLE_ALL on some half-precision graphs on the CPU, never at EXTENDED.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            session = onnxruntime.InferenceSession(str(bundle.graph), options, providers=[(provider, provider_options)])
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this
            raise BackendError(
                f"ONNX Runtime does not load {bundle.graph}.",
                why=one_line(error),
                fix="export the checkpoint again, or update onnxruntime",
            ) from error
        if session.get_providers()[0] != provider:
            got = session.get_providers()[0]
            raise BackendError(
                f"ONNX Runtime did not start on {device}.",
                why=f"it fell back to {got}: {missing or 'driver, CUDA or cuDNN do not fit its version'}",
                fix=f"{install_hint('gpu')} brings CUDA and cuDNN; compare versions with glnet-doctor, or ask for the CPU "
                "with backend='onnxruntime-cpu'",
            )
        self._session: Any = session
        self._names = [output.name for output in bundle.manifest.outputs]
        self.name = f"onnxruntime-{device}"
        weights = bundle.manifest.graph.file.bytes
        self.batch_size = USUAL_BATCH_SIZE if device == "cuda" else cpu_batch_size(threads or cores(), weights)

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        if self._session is None:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new MeshRecoverer")
        try:
            values = self._session.run(self._names, {"crops": crops, "cameras": cameras})
        except Exception as error:  # see above
            raise BackendError(
                f"{self.name} failed on {len(crops)} crops.",
                why=one_line(error),
                fix="free memory if it ran out, or use a smaller batch_size; else check the bundle with glnet-export",
            ) from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """Drop the session."""
        self._session = None


_loading = threading.Lock()


def load_cuda(onnxruntime: Any) -> str:
    """Load CUDA and cuDNN, from the packages that pip installed or else from the system; what is missing."""
    with _loading:  # stdout belongs to the process: two threads would put it back in the wrong order
        return _load_cuda_once(onnxruntime)


@functools.cache
def _load_cuda_once(onnxruntime: Any) -> str:
    """ONNX Runtime does not look into pip's packages by itself. It prints what it does not find; stdout is for results."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()
    except Exception as error:  # the session will show whether it matters
        return one_line(error)
    return " ".join(said.getvalue().split())


_WEIGHTS_PER_THREAD = 80_000_000
"""Bytes of weights that keep a thread busy in one call, as a measure of the work."""


def cpu_batch_size(threads: int, weights: int) -> int:
    """How many crops at once suit so many threads.

    Batches spread the fixed cost of a call, which is much of a small network's time, and take memory. Measured on two
    threads (docs/benchmarks.md): a crop of w32 (166 MB) keeps them busy and batches gain nothing, the demo network (19 MB)
    takes 30 % less time in eights. That more threads want more crops is a guess.

    Args:
        threads: Of ONNX Runtime. By itself it takes the physical cores, which may be half of what the system names.
        weights: Bytes of the graph's file.
    """
    return min(max(threads * _WEIGHTS_PER_THREAD // max(weights, 1), 1), USUAL_BATCH_SIZE)
