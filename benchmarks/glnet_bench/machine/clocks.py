"""Clocks for parts of a call: the host's, or events on a GPU's stream."""

from __future__ import annotations

import itertools
import time
from typing import Any, Protocol

from glnet_bench.machine.nvidia import CudaDriver


class Stopwatch(Protocol):
    """Takes marks, and tells the time between two of them."""

    what: str
    """Which clock this is, for the report."""

    def mark(self) -> Any:
        """Now, as the device that does the work sees it."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Between two marks; waits until the second has happened."""


class HostClock:
    """The machine's monotonic clock, for work that is done when its call returns."""

    what = "monotonic clock"

    def mark(self) -> int:
        """Nanoseconds."""
        return time.perf_counter_ns()

    def milliseconds(self, start: int, end: int) -> float:
        """See :class:`Stopwatch`."""
        return (end - start) / 1e6


class CudaEvents:
    """Events on a stream: times at which the GPU reached the marks, whatever the host did meanwhile.

    Args:
        driver: The GPU's.
        stream: The handle of the stream that the work is queued on.
    """

    what = "CUDA events"

    def __init__(self, driver: CudaDriver, stream: int) -> None:
        self._driver = driver
        self._stream = stream
        # A call takes three marks and reads them before the next one; events are used again in turn.
        self._events = itertools.cycle([driver.event() for _ in range(8)])

    def mark(self) -> int:
        """An event, valid until seven more were taken."""
        event = next(self._events)
        self._driver.record(event, self._stream)
        return event

    def milliseconds(self, start: int, end: int) -> float:
        """See :class:`Stopwatch`."""
        self._driver.wait(end)
        return self._driver.elapsed(start, end)
