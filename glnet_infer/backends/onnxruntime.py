"""ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.backends.base import USUAL_BATCH_SIZE, Outputs
from glnet_infer.backends.promise import Promise, check_content
from glnet_infer.bundle import Bundle
from glnet_infer.bundle.checked_file import CheckedFile
from glnet_infer.bundle.records import INT8, RUNTIME
from glnet_infer.devices import cores, gpus, has_int8_dot_products
from glnet_infer.errors import BackendError, GlnetError, first_line, install_hint, one_line
from glnet_infer.forks import HomeProcess, OfThisProcess, keep_through_forks
from glnet_infer.onnxruntime_sessions import import_onnxruntime, open_session, session_options

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # TF32 keeps 10 bits of what the graph says is float32: emulated in the kinematics, it moves vertices by up to 8 mm.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""Execution provider and its options, by device."""


class OnnxRuntimeBackend(OfThisProcess):
    """A session on one of the bundle's graphs. May be called from several threads at once.

    A CPU with N threads runs N crops side by side, one thread each: threads that share a crop wait for each other at every
    layer. That takes a second session, opened when it is first needed.

    Args:
        bundle: The opened bundle.
        device: ``cpu`` or ``cuda``.
        threads: Threads of the CPU kernels; one for each core that this process may use where None.
        purpose: The graph's, ``RUNTIME`` or ``INT8`` of :mod:`glnet_infer.bundle.records`.

    Raises:
        BackendError: ONNX Runtime is not installed, lacks the device's provider, or refuses the graph; the bundle has none
            for the purpose.

    Attributes:
        batch_size: Number of crops that suit it in one call.
    """

    def __init__(self, bundle: Bundle, device: str, threads: int | None = None, purpose: str = RUNTIME) -> None:
        onnxruntime = import_onnxruntime()
        missing = load_cuda(onnxruntime) if device == "cuda" else ""
        provider, provider_options = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise BackendError(
                f"This ONNX Runtime cannot run on {device}.",
                why=f"version {onnxruntime.__version__} has {', '.join(onnxruntime.get_available_providers())}",
                fix=f"pip uninstall onnxruntime, then {install_hint('gpu')}",
            )
        graph = bundle.manifest.graph_for(purpose)
        if graph is None:
            raise BackendError(f"The bundle {bundle.directory} has no int8 graph.", fix="export it again with --int8")
        file = bundle.graph_file if purpose == RUNTIME else CheckedFile(bundle.directory, graph.file)
        half = graph.precision == "mixed"

        def open_graph(threads: int | None) -> Any:
            options = session_options(threads)
            if device == "cpu" and half:
                # ONNX Runtime 1.32 crashed at ORT_ENABLE_ALL on some half-precision graphs on the CPU, never at EXTENDED.
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            if purpose == INT8 and not has_int8_dot_products():
                # Without them, x86 adds pairs of products in 16 bits, which overflow.
                options.add_session_config_entry("session.x64quantprecision", "1")
            # From the bytes that were checked: the bundle may be replaced before the second session is opened.
            content = file.read()
            check_content(content, file.path)
            options.add_session_config_entry("session.load_model_format", "ONNX")  # which was looked through
            try:
                session = open_session(content, options, provider, provider_options)
                keep_through_forks(session)
                return session
            except Exception as error:  # ONNX Runtime's exceptions share no base class but this
                raise BackendError(
                    f"ONNX Runtime does not load {file.path}.",
                    why=one_line(error),
                    fix="export the checkpoint again, or update onnxruntime"
                    + (f"; {install_hint('gpu')} brings CUDA and cuDNN" if device == "cuda" else ""),
                ) from error

        self._home = HomeProcess()
        session = open_graph(threads)
        if session.get_providers()[0] != provider:
            got = session.get_providers()[0]
            raise BackendError(
                f"ONNX Runtime did not start on {device}.",
                why=f"it fell back to {got}: {missing or 'driver, CUDA or cuDNN do not fit its version'}",
                fix=f"{install_hint('gpu')} brings CUDA and cuDNN; compare versions with glnet-doctor, or ask for the CPU "
                "with backend='onnxruntime-cpu'",
            )
        Promise(bundle, file.path).check_session(session)
        self._session: Any = session
        self._has_threads = device == "cuda" or threads != 1
        self._names = [output.name for output in bundle.manifest.outputs]
        self.name = f"onnxruntime-{device if purpose == RUNTIME else graph.precision}"
        self._team: _Team | None = None
        self._together: int | None = None
        self.batch_size = USUAL_BATCH_SIZE
        if device == "cpu":
            weights, threads = graph.file.bytes, threads or cores()
            self.batch_size = self._together = cpu_batch_size(threads, weights)
            if 1 < threads <= USUAL_BATCH_SIZE:  # more would take more crops at once, and their memory
                self._team = _Team(lambda: open_graph(1), threads, weights)
                self.batch_size = self._team.members * self._team.crops_each

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`glnet_infer.backends.base.Backend`."""
        session, team, parts = self._session, self._team, []
        if session is None:
            raise BackendError(f"The {self.name} backend is closed.", fix="make a new MeshRecoverer")
        if self._has_threads:
            self._home.check(
                f"{self.name} backend", "make the MeshRecoverer after the fork, or with threads=1 on the CPU before it"
            )
        try:
            for shares in self._shares(len(crops)):
                feeds = [{"crops": crops[share], "cameras": cameras[share]} for share in shares]
                if team is not None and len(feeds) > 1:
                    found = team.run(self._names, feeds)
                else:
                    found = [session.run(self._names, feed) for feed in feeds]
                parts += found
        except GlnetError:  # of a second session that is opened here
            raise
        except Exception as error:  # see above
            raise BackendError(
                f"{self.name} failed on {len(crops)} crops.",
                why=one_line(error),
                fix="free memory if it ran out, or use a smaller batch_size; else check the bundle with glnet-export",
            ) from error
        if len(parts) == 1:
            return dict(zip(self._names, parts[0], strict=True))
        return {name: np.concatenate(values) for name, *values in zip(self._names, *parts, strict=True)}

    def _shares(self, count: int) -> Iterator[list[slice]]:
        """Groups of slices, run one after the other; the slices of a group run side by side and are equally long."""
        start = 0
        while start < count:
            left = count - start
            if self._team is not None and left >= self._team.members:
                number, each = self._team.members, min(self._team.crops_each, left // self._team.members)
            else:
                number, each = 1, min(self._together or left, left)
            yield [slice(start + each * index, start + each * (index + 1)) for index in range(number)]
            start += each * number

    def close(self) -> None:
        """Drop the sessions."""
        self._session = None
        if self._team is not None:
            self._team.close()


class _Team:
    """Workers that run crops side by side on a CPU.

    Args:
        open_session: Opens a session of one thread; several would be shared by all members, who then wait for them.
        members: Number of crops, or batches of them, that run at a time.
        weights: Bytes of the graph's file.

    Attributes:
        members: Number of crops, or batches of them, that run at a time.
        crops_each: Number of crops that suit a member in one call.
    """

    def __init__(self, open_session: Callable[[], Any], members: int, weights: int) -> None:
        self.members = members
        self.crops_each = min(cpu_batch_size(1, weights), USUAL_BATCH_SIZE // members)
        self._open_session = open_session
        self._opening = threading.Lock()
        self._session: Any = None
        self._workers = ThreadPoolExecutor(self.members, thread_name_prefix="glnet-crops")  # starts them when needed

    def run(self, names: list[str], feeds: list[dict[str, Any]]) -> list[list[Any]]:
        """Outputs of several inputs, each run by one member; members share the session, whose calls may overlap."""
        with self._opening:
            if self._session is None:
                self._session = self._open_session()
        session = self._session
        return list(self._workers.map(lambda feed: session.run(names, feed), feeds))

    def close(self) -> None:
        """Drop the session and let the workers go."""
        self._session = None
        self._workers.shutdown(wait=False)


def obstacle_to_cuda() -> str:
    """Why ONNX Runtime cannot use the GPU; empty where it can, as far as shows before it starts."""
    try:
        onnxruntime = import_onnxruntime()
    except BackendError as error:  # opening the CPU backend then says what to install
        return error.why
    if PROVIDERS["cuda"][0] in onnxruntime.get_available_providers():
        return ""
    return f"this ONNX Runtime {onnxruntime.__version__} is built without it; onnxruntime-gpu has it"


def describe(device: str) -> str:
    """Whether ONNX Runtime can start on a device, ``cpu`` or ``cuda``, in words."""
    try:
        providers = import_onnxruntime().get_available_providers()
    except Exception as error:  # a broken installation is what glnet-doctor is for
        return f"cannot be loaded: {error.why if isinstance(error, BackendError) else first_line(error)}"
    if device == "cpu":
        return "available"
    if PROVIDERS["cuda"][0] not in providers:
        return "this ONNX Runtime is built without CUDA"
    return "built with CUDA; whether its libraries load shows when it starts" if gpus() else "no GPU"


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
    """Number of crops in one call that suits a number of threads.

    Batches spread the fixed cost of a call, which is much of a small network's time, and take memory. Measured on two
    threads (docs/benchmarks.md): a crop of w32 (166 MB) keeps them busy and batches gain nothing, the demo network (19 MB)
    takes 30 % less time in eights. That more threads want more crops is a guess.

    Args:
        threads: Threads that run side by side.
        weights: Bytes of the graph's file.
    """
    return min(max(threads * _WEIGHTS_PER_THREAD // max(weights, 1), 1), USUAL_BATCH_SIZE)
