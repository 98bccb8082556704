"""The backends that are compared, opened by name. PyTorch is imported only where one of its names is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from glnet_bench.machine.clocks import HostClock
from glnet_bench.measure.staged import Staged, WholeCalls
from glnet_infer.backends import Backend, open_backend, usual_batch_size
from glnet_infer.bundle import Bundle
from glnet_infer.errors import BackendError, first_line, install_hint
from glnet_infer.recoverer import MeshRecoverer

EAGER = "torch-fp32"
TORCH = (EAGER, "torch-mixed", "torch-compile", "torch-cuda-graph")
BACKENDS = (*TORCH, "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
"""In the order of the report."""


@dataclass(frozen=True)
class Options:
    """What opening a backend may depend on.

    Attributes:
        threads: Threads of CPU kernels; the backend's own choice where None.
        checkpoint: Weights for PyTorch's rows; random ones of the same configuration where None.
    """

    threads: int | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Runner:
    """An opened backend.

    Attributes:
        name: One of :data:`BACKENDS`.
        backend: As a product runs it, for end-to-end times.
        staged: The same network, timed in parts; may be the same object.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``mixed``.
        clock: What measures the engine.
        says: What runs, for the report.
        most: Most crops of one call, None where there is no bound.
        close: Frees everything; calling it twice is allowed.
    """

    name: str
    backend: Backend
    staged: Staged
    device: str
    precision: str
    clock: str
    says: str
    most: int | None
    close: Callable[[], None]

    @property
    def at_once(self) -> int:
        """Crops that a recoverer gives to the backend in one call."""
        return usual_batch_size(self.backend)

    def recoverer(self, bundle: Path, backend: Backend) -> MeshRecoverer:
        """A recoverer on one of the two backends, in batches as a product runs them."""
        return MeshRecoverer(bundle, backend, batch_size=self.at_once)

    @property
    def times_itself(self) -> bool:
        """Whether the staged backend does the same work as the product's, so that one call is enough for both."""
        return self.device == "cpu" or self.backend is self.staged


def open_runner(name: str, bundle: Bundle, options: Options) -> Runner:
    """Open a backend.

    Raises:
        GlnetError: It cannot run here; the report shows why.
    """
    if name not in BACKENDS:
        raise BackendError(f"There is no backend {name!r}.", fix=f"backends: {', '.join(BACKENDS)}")
    if name in TORCH:
        try:
            from glnet_bench.runners.torch_runners import open_torch
        except (ImportError, OSError) as error:  # a broken torch raises OSError
            raise BackendError("PyTorch is not installed.", why=first_line(error), fix=install_hint("export")) from error
        return open_torch(name, bundle, options)
    if name == "onnxruntime-cuda":
        from glnet_bench.runners.onnxruntime_runner import open_cuda

        return open_cuda(bundle, options)
    if name.startswith("tensorrt"):
        from glnet_bench.runners.tensorrt_runner import open_tensorrt

        return open_tensorrt(_with_engines_of(bundle, name))
    backend = open_backend(name, bundle, options.threads)
    import onnxruntime

    return on_cpu(name, backend, bundle.manifest.graph.precision, f"ONNX Runtime {onnxruntime.__version__}")


def open_product(name: str, bundle: Bundle, options: Options) -> Backend:
    """Open a backend as a product does, without what times its steps.

    Raises:
        GlnetError: It cannot run here.
    """
    if name.startswith("tensorrt"):
        from glnet_infer.backends.tensorrt import TensorRtBackend

        return TensorRtBackend(_with_engines_of(bundle, name))
    if name in TORCH:
        return open_runner(name, bundle, options).backend
    return open_backend(name, bundle, options.threads)


def on_cpu(name: str, backend: Backend, precision: str, says: str) -> Runner:
    """A backend whose call is its engine."""
    return Runner(name, backend, WholeCalls(backend), "cpu", precision, HostClock.what, says, None, backend.close)


def _with_engines_of(bundle: Bundle, flavor: str) -> Bundle:
    """The bundle without the engines of the other flavor, which would be chosen in their stead."""
    engines = tuple(record for record in bundle.manifest.engines if record.flavor == flavor)
    if not engines:
        raise BackendError(
            f"The bundle has no {flavor} engine.",
            why="it was exported without one",
            fix=f"glnet-export engine {bundle.directory} --flavor {flavor}",
        )
    return replace(bundle, manifest=replace(bundle.manifest, engines=engines))
