"""Clocks for stages of a call: the host's, or events on a GPU's stream."""

from __future__ import annotations

import itertools
import time
from typing import Any, Protocol

from glnet_bench.machine.cuda import CudaDriver

_EVENTS = 8
"""A call takes three marks and reads them before the next one."""


class Stopwatch(Protocol):
    """Takes marks, and tells the time between two of them."""

    what: str
    """Which clock this is, for the report."""

    def mark(self) -> Any:
        """Now, as the device that does the work sees it."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks; waits until the second has happened."""

    def close(self) -> None:
        """Free what the marks were made of. Calling it twice is allowed."""


class HostClock:
    """The machine's monotonic clock, for work that is done when its call returns."""

    what = "monotonic clock"

    def mark(self) -> int:
        """Nanoseconds."""
        return time.perf_counter_ns()

    def milliseconds(self, start: int, end: int) -> float:
        """See :class:`Stopwatch`."""
        return (end - start) / 1e6

    def close(self) -> None:
        """Nothing to free."""


class CudaEvents:
    """Events on a stream: times at which the GPU reached the marks, whatever the host did meanwhile.

    Args:
        driver: The GPU's driver, started.
        stream: Handle of the stream that the work is queued on; None: one of their own, which is freed with them.
    """

    what = "CUDA events"

    def __init__(self, driver: CudaDriver, stream: int | None = None) -> None:
        self._driver = driver
        self._owns_stream = stream is None
        self.stream = driver.new_stream() if stream is None else stream
        self._events: list[int] = []
        try:
            self._events += (driver.new_event() for _ in range(_EVENTS))
        except BaseException:
            self.close()
            raise
        self._next = itertools.cycle(self._events)

    def mark(self) -> int:
        """An event, valid until seven more were taken."""
        event = next(self._next)
        self._driver.record(event, self.stream)
        return event

    def milliseconds(self, start: int, end: int) -> float:
        """See :class:`Stopwatch`."""
        self._driver.wait(end)
        return self._driver.elapsed(start, end)

    def close(self) -> None:
        """See :class:`Stopwatch`."""
        events, self._events = self._events, []
        for event in events:
            self._driver.free_event(event)
        if self._owns_stream:
            self._owns_stream = False
            self._driver.free_stream(self.stream)
