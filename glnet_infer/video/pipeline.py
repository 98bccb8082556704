"""Steps of a video's way that work at the same time: decoding, recovering, drawing, encoding, each in its own thread.

Between two steps lies a queue of few items, so that memory does not grow with the video. Libraries let go of Python's lock
while they work on pixels, which is why threads suffice.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from glnet_infer.forks import HomeProcess

DEPTH = 4
"""Items in a queue. More only costs memory: the slowest step sets the pace."""

Stage = Callable[[Iterator[Any]], Iterable[Any]]
"""A step: takes an iterator of items and gives results, as many as it likes; a generator function, mostly."""


def each(function: Callable[[Any], Any]) -> Stage:
    """The step that turns every item into one result."""
    return lambda items: map(function, items)


class Pipeline:
    """Runs steps in threads of their own, and gives the results of the last one, in order.

    Use it in a ``with`` statement, inside that of the source: leaving it ends all threads. What a step or the items raise
    ends everything, and is raised once, by the iteration.

    Args:
        items: What goes in; iterated in a thread of its own.
        stages: The steps, in order.
        depth: Most items in each queue.
        drop_late: Whether items that nobody has taken make way for newer ones; for live sources.

    Attributes:
        dropped: Items that made way.
        stopped: Whether :meth:`stop` was called.
    """

    def __init__(self, items: Iterable[Any], *stages: Stage, depth: int = DEPTH, drop_late: bool = False) -> None:
        self._links = [_Link(depth, drop_late and not place) for place in range(len(stages) + 1)]
        self._error: BaseException | None = None
        self._home = HomeProcess()
        self.stopped = self._closed = False
        self._busy = [0.0] * (len(stages) + 1)
        works = [lambda _: self._until_stopped(items), *stages]
        self._threads = [
            threading.Thread(target=self._work, args=(place, stage), name=f"pipeline-{place}", daemon=True)
            for place, stage in enumerate(works)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped(self) -> int:
        """Items that made way for newer ones."""
        return self._links[0].dropped

    @property
    def busy(self) -> list[float]:
        """Seconds for which the items and each step were at work, not waiting for each other; of those that have ended."""
        return list(self._busy)

    def __iter__(self) -> Iterator[Any]:
        self._check_home()
        with suppress(_AbandonedError):
            for item in self._links[-1]:
                yield item
                self._check_home()
                del item  # as in the queue
        if self._error is not None:
            self.close()
            error, self._error = self._error, None
            raise error
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Take no more items. What is on its way still comes; a handler of signals may call this."""
        self.stopped = True  # and nothing else: the thread that a signal interrupts may hold a lock

    def close(self) -> None:
        """Drop what is on its way, and wait for the threads to end. A forked process has none of them."""
        if not self._home.is_here:
            return
        self._closed = True
        self._abandon()
        for thread in self._threads:
            if thread is not threading.current_thread():  # who collects garbage may be one of them
                thread.join()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_home(self) -> None:
        self._home.check("video's pipeline", "begin it after the fork")

    def _until_stopped(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if self.stopped or self._closed:
                return
            yield item

    def _work(self, place: int, stage: Stage) -> None:
        inlet = self._links[place - 1] if place else None
        outlet = self._links[place]
        began = time.perf_counter()
        try:
            for result in stage(iter(inlet or ())):
                outlet.put(result)
        except _AbandonedError:
            pass
        except BaseException as error:  # of whatever kind: the thread that waits for the results raises it
            if self._error is None:
                self._error = error
            self._abandon()
        finally:
            waited = outlet.waited_to_put + (inlet.waited_to_get if inlet is not None else 0)
            self._busy[place] = time.perf_counter() - began - waited
            outlet.end()
            if inlet is not None:
                inlet.abandon()  # a step may end before its items do: then nobody takes them

    def _abandon(self) -> None:
        for link in self._links:
            link.abandon()


class _AbandonedError(Exception):
    """Nobody is at the other end of a queue any more."""


class _Link:
    """A bounded queue between two threads that either of them can end."""

    def __init__(self, depth: int, drop_late: bool) -> None:
        self._depth, self._drop_late = depth, drop_late
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = self._abandoned = False
        self.dropped = 0
        self.waited_to_put = self.waited_to_get = 0.0

    def put(self, item: Any) -> None:
        """Add an item; wait for room, or make it."""
        with self._changed:
            if self._drop_late and len(self._items) >= self._depth:
                self._items.popleft()
                self.dropped += 1
            began = time.perf_counter()
            self._changed.wait_for(lambda: self._abandoned or len(self._items) < self._depth)
            self.waited_to_put += time.perf_counter() - began
            if self._abandoned:
                raise _AbandonedError
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                began = time.perf_counter()
                self._changed.wait_for(lambda: self._abandoned or self._ended or self._items)
                self.waited_to_get += time.perf_counter() - began
                if self._abandoned:
                    raise _AbandonedError
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # or one picture more would live while the next is waited for

    def end(self) -> None:
        """Say that no more items come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop all items, and let nobody wait."""
        with self._changed:
            if not (self._ended and not self._items):  # who was told the end need not be told more
                self._abandoned = True
                self._items.clear()
            self._changed.notify_all()


@contextmanager
def on_interrupt(ask: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask for an end, in good order; a second one comes through as ever.

    What the process ignores, as a shell's background jobs ignore Ctrl-C, stays ignored.

    Args:
        ask: Called from within the signal's handler, :meth:`Pipeline.stop` for example. Outside of the main thread, where
            no signal arrives, it is never called.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {number: handler for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)}

    def forget() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def heard(number: int, frame: object) -> None:
        forget()
        ask()

    for number in previous:
        signal.signal(number, heard)
    try:
        yield
    finally:
        forget()
