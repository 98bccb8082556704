"""Backends that say how long the stages of their calls took."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glnet_bench.estimates import Timed
from glnet_bench.machine.clocks import Stopwatch
from glnet_bench.record.names import NETWORK
from glnet_infer.backends import Backend, Outputs


class Steps(Protocol):
    """A call on a GPU in three steps."""

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """Put the inputs into the GPU's memory."""

    def execute(self) -> None:
        """Queue the network; need not wait."""

    def download(self) -> Outputs:
        """Give the outputs in host memory."""

    def close(self) -> None:
        """Free everything. Calling it twice is allowed."""


class Staged(Protocol):
    """A backend of the runtime that times itself.

    Attributes:
        times: Milliseconds by stage since :meth:`reset`, summed over calls.
        began: When the first call since then was entered, seconds of the host's clock.
        ended: When the last one returned.
    """

    times: Timed
    began: float
    ended: float

    @property
    def name(self) -> str:
        """See ``glnet_infer.backends.Backend``."""

    def reset(self) -> None:
        """Begin anew."""

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See ``glnet_infer.backends.Backend``."""

    def close(self) -> None:
        """Free what was made for timing. Calling it twice is allowed."""


class _Times:
    """What every staged backend keeps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """See :class:`Staged`."""
        self.times: Timed = {}
        self.began = self.ended = 0.0

    def _enter(self) -> float:
        now = time.perf_counter()
        self.began = self.began if self.times else now
        return now

    def _add(self, stage: str, milliseconds: float) -> None:
        self.times[stage] = self.times.get(stage, 0.0) + milliseconds


class WholeCalls(_Times):
    """A backend on the CPU: nothing is uploaded, the call is the network.

    Args:
        backend: What is called; the caller closes it.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.name)
        self._backend = backend

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`Staged`."""
        start = self._enter()
        outputs = self._backend.run(crops, cameras)
        self.ended = time.perf_counter()
        self._add(NETWORK, 1000 * (self.ended - start))
        return outputs

    def close(self) -> None:
        """Nothing to free."""


class StagedCalls(_Times):
    """Calls on a GPU, step by step: upload and network by the stopwatch, download the rest of the call.

    Args:
        name: Name of the backend.
        steps: What runs.
        stopwatch: Clock of the stream that the steps are queued on; it is closed with the steps.
    """

    def __init__(self, name: str, steps: Steps, stopwatch: Stopwatch) -> None:
        super().__init__(name)
        self._steps = steps
        self._stopwatch = stopwatch

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`Staged`."""
        start = self._enter()
        marks = [self._stopwatch.mark()]
        self._steps.upload(crops, cameras)
        marks.append(self._stopwatch.mark())
        self._steps.execute()
        marks.append(self._stopwatch.mark())
        outputs = self._steps.download()
        self.ended = time.perf_counter()
        upload, network = (self._stopwatch.milliseconds(*pair) for pair in pairwise(marks))
        self._add("upload", upload)
        self._add(NETWORK, network)
        self._add("download", max(0.0, 1000 * (self.ended - start) - upload - network))
        return outputs

    def close(self) -> None:
        """See :class:`Staged`."""
        self._steps.close()
        self._stopwatch.close()
