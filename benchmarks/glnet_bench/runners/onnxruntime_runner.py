"""ONNX Runtime on an NVIDIA GPU: the runtime's own backend, and a session whose steps are timed."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_bench.machine.clocks import CudaEvents
from glnet_bench.machine.cuda import CudaDriver
from glnet_bench.runners.base import Options, Runner
from glnet_bench.runners.staged import StagedCalls
from glnet_infer.backends import Outputs, open_backend
from glnet_infer.backends.onnxruntime import PROVIDERS
from glnet_infer.bundle import Bundle
from glnet_infer.onnxruntime_sessions import import_onnxruntime, open_session, session_options

NAME = "onnxruntime-cuda"


def open_cuda(bundle: Bundle, options: Options) -> Runner:
    """Open both.

    Raises:
        BackendError: ONNX Runtime lacks CUDA, or there is no GPU.
    """
    with contextlib.ExitStack() as opened:
        backend = opened.enter_context(contextlib.closing(open_backend(NAME, bundle, options.threads)))
        onnxruntime = import_onnxruntime()
        stopwatch = CudaEvents(CudaDriver().start())
        opened.callback(stopwatch.close)
        provider, provider_options = PROVIDERS["cuda"]
        # Events must be on the stream that the kernels are on.
        provider_options = {**provider_options, "user_compute_stream": str(stopwatch.stream)}
        session = open_session(bundle.graph_file.read(), session_options(options.threads), provider, provider_options)
        steps = BoundSteps(session, [output.name for output in bundle.manifest.outputs], onnxruntime.OrtValue)
        opened.callback(steps.close)  # before the stream goes that it works on
        del session
        close = opened.pop_all().close
    return Runner(
        name=NAME,
        backend=backend,
        staged=StagedCalls(NAME, steps, stopwatch),
        device="cuda",
        precision=bundle.manifest.graph.precision,
        clock=stopwatch.what,
        description=f"ONNX Runtime {onnxruntime.__version__}",
        most_crops=None,
        close=close,
    )


class BoundSteps:
    """A session whose inputs and outputs stay on the GPU.

    Args:
        session: Session of ONNX Runtime with its CUDA provider.
        outputs: Names of the outputs.
        values: The class ``onnxruntime.OrtValue``.
    """

    def __init__(self, session: Any, outputs: list[str], values: Any) -> None:
        self._session = session
        self._names = outputs
        self._values = values
        self._binding: Any = None

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._binding = self._session.io_binding()
        for name, array in (("crops", crops), ("cameras", cameras)):
            self._binding.bind_ortvalue_input(name, self._values.ortvalue_from_numpy(array, "cuda", 0))
        for name in self._names:
            self._binding.bind_output(name, "cuda", 0)

    def execute(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._session.run_with_iobinding(self._binding)

    def download(self) -> Outputs:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        return dict(zip(self._names, self._binding.copy_outputs_to_cpu(), strict=True))

    def close(self) -> None:
        """See :class:`glnet_bench.runners.staged.Steps`."""
        self._binding = self._session = None
