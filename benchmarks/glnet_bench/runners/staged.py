"""Backends that say how long the parts of their calls took."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glnet_bench.machine.clocks import Stopwatch
from glnet_bench.measure.sampling import Timed
from glnet_infer.backends import Backend, Outputs


class Steps(Protocol):
    """A call on a GPU in three steps."""

    def upload(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> None:
        """Put the inputs into the GPU's memory."""

    def execute(self) -> None:
        """Queue the network; need not wait."""

    def download(self) -> Outputs:
        """The outputs in host memory."""

    def close(self) -> None:
        """Free everything."""


class Staged(Protocol):
    """A backend of the runtime that times itself.

    Attributes:
        parts: Milliseconds by part since :meth:`reset`, summed over calls.
        began: When the first call since then was entered, seconds of the host's clock.
        ended: When the last one returned.
    """

    name: str
    parts: Timed
    began: float
    ended: float

    def reset(self) -> None:
        """Begin anew."""

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See ``glnet_infer.backends.Backend``."""

    def close(self) -> None:
        """Free what was made for timing."""


class _Times:
    """What every staged backend keeps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset()

    def reset(self) -> None:
        """See :class:`Staged`."""
        self.parts: Timed = {}
        self.began = self.ended = 0.0

    def _enter(self) -> float:
        now = time.perf_counter()
        self.began = self.began if self.parts else now
        return now

    def _add(self, part: str, milliseconds: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + milliseconds


class WholeCalls(_Times):
    """A backend on the CPU: nothing is uploaded, the call is the engine.

    Args:
        backend: Whose calls; the caller closes it.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.name)
        self._backend = backend

    def run(self, crops: NDArray[np.uint8], cameras: NDArray[np.float32]) -> Outputs:
        """See :class:`Staged`."""
        start = self._enter()
        outputs = self._backend.run(crops, cameras)
        self.ended = time.perf_counter()
        self._add("engine", 1000 * (self.ended - start))
        return outputs

    def close(self) -> None:
        """Nothing to free."""


class StagedCalls(_Times):
    """Calls on a GPU, step by step: upload and engine by the stopwatch, download the rest of the call.

    Args:
        name: Of the backend.
        steps: What runs.
        stopwatch: Of the stream that the steps are queued on.
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
        upload, engine = (self._stopwatch.milliseconds(*pair) for pair in pairwise(marks))
        self._add("upload", upload)
        self._add("engine", engine)
        self._add("download", max(0.0, 1000 * (self.ended - start) - upload - engine))
        return outputs

    def close(self) -> None:
        """See :class:`Staged`."""
        self._steps.close()
