"""What every runner is: an opened backend, as a product runs it and as it is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glnet_bench.machine.clocks import HostClock
from glnet_bench.record.names import EAGER
from glnet_bench.runners.staged import Staged, WholeCalls
from glnet_infer.backends import Backend, usual_batch_size
from glnet_infer.bundle import Bundle
from glnet_infer.recoverer import MeshRecoverer

TORCH = (EAGER, "torch-mixed", "torch-compile", "torch-cuda-graph")
"""PyTorch's rows, the baseline."""


@dataclass(frozen=True)
class Options:
    """What opening a backend may depend on.

    Attributes:
        threads: Threads of CPU kernels; the backend's own choice where None.
        checkpoint: Weights for PyTorch's rows; random ones of the same configuration where None.
        addresses: Addresses of backends on servers, at most one for each row.
    """

    threads: int | None = None
    checkpoint: Path | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runner:
    """An opened backend.

    Attributes:
        name: One of :func:`glnet_bench.runners.registry.backend_names`.
        backend: The backend as a product runs it, for end-to-end times.
        staged: The same network, timed in stages; may be the same object.
        device: ``cpu``, ``cuda``, or ``server`` for another process's.
        precision: ``fp32`` or ``mixed``.
        clock: What measures the network.
        description: What runs, for the report.
        most_crops: Most crops of one call, None where there is no bound.
        close: Frees everything; calling it twice is allowed.
    """

    name: str
    backend: Backend
    staged: Staged
    device: str
    precision: str
    clock: str
    description: str
    most_crops: int | None
    close: Callable[[], None]

    @property
    def at_once(self) -> int:
        """Crops that a recoverer gives to the backend in one call."""
        return usual_batch_size(self.backend)

    def recoverer(self, bundle: Bundle, backend: Backend) -> MeshRecoverer:
        """A recoverer on one of the two backends, in batches as a product runs them."""
        return MeshRecoverer(bundle, backend, batch_size=self.at_once)

    @property
    def times_itself(self) -> bool:
        """Whether the staged backend does the same work as the product's, so that one call is enough for both."""
        return isinstance(self.staged, WholeCalls) or self.backend is self.staged


def whole_calls(name: str, backend: Backend, precision: str, description: str, device: str = "cpu") -> Runner:
    """A backend whose whole call is the network's: on a CPU there is nothing else, of another's we see nothing else."""
    return Runner(name, backend, WholeCalls(backend), device, precision, HostClock.what, description, None, backend.close)
