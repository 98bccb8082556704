"""Actors by Ray: on this machine, or on those of a cluster that runs already."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from types import TracebackType
from typing import Any, TextIO, cast

from glnet_infer.devices import cores
from glnet_infer.errors import BackendError, first_line, install_hint
from glnet_infer.jobs.actor import Worker
from glnet_infer.jobs.items import Item, Orders
from glnet_infer.jobs.run import Answer, Died

HERE = "local"
"""The address that stands for this machine alone."""

_OBJECT_STORE = 100 << 20
"""Bytes of shared memory on this machine. Items and outcomes are small: results go to files."""

_REACH = 10.0
"""Seconds that a cluster may take to answer."""

_WAIT = 0.5
"""Seconds from one look at the clock to the next."""


def installed_ray() -> Any:
    """The module.

    Raises:
        BackendError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise BackendError("Ray is not installed.", why=first_line(error), fix=install_hint("ray")) from error
    return ray


class RayPool:
    """Actors that hold a :class:`Worker` each. A context manager, which ends them, and Ray where it began it.

    An actor that dies stays dead, and what it did is not repeated by Ray: by default that would go on for ever. The driver
    begins another one, and counts.

    Args:
        orders: What every actor must know.
        address: :data:`HERE`, or a cluster's as ``ray.init`` takes it.
        actors: How many there will be.
        gpus: GPUs of each actor; parts of one, too.
        worker: What the actors hold.

    Raises:
        BackendError: Ray is not installed, or cannot be reached or started.
    """

    def __init__(
        self, orders: Orders, address: str, *, actors: int, gpus: float = 0.0, worker: type[Worker] = Worker
    ) -> None:
        self._ray = ray = installed_ray()
        self._working: dict[Any, int] = {}
        self._actors: dict[int, Any] = {}
        self._was_running = ray.is_initialized()
        self._stdout = sys.stdout
        if not self._was_running:
            self._begin(address, actors * orders.threads)
        # A logical CPU for each thread: so Ray fills machines evenly. Nothing else asks for one, for the driver is no task.
        self._kind = ray.remote(worker).options(
            num_cpus=orders.threads, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._orders = ray.put(orders)
        # A thread of Ray's prints to stdout which of its processes died: among the results, which programs read.
        sys.stdout = cast(TextIO, _ByThread(sys.stdout, sys.stderr))

    def start(self, place: int) -> None:
        """See :class:`glnet_infer.jobs.run.Pool`."""
        self._actors[place] = self._kind.remote(self._orders)
        self._working[self._actors[place].start.remote()] = place

    def do(self, place: int, item: Item) -> None:
        """See :class:`glnet_infer.jobs.run.Pool`."""
        self._working[self._actors[place].do.remote(item)] = place

    def answers(self) -> list[tuple[int, Answer]]:
        """See :class:`glnet_infer.jobs.run.Pool`."""
        if not self._working:
            return []
        ready, _ = self._ray.wait(list(self._working), num_returns=1, timeout=_WAIT)
        return [(self._working.pop(each), self._answer(each)) for each in ready]

    def kill(self, place: int) -> None:
        """See :class:`glnet_infer.jobs.run.Pool`."""
        self._working = {each: other for each, other in self._working.items() if other != place}
        self._ray.kill(self._actors.pop(place), no_restart=True)

    def close(self) -> None:
        """End the actors, and Ray where it was begun here."""
        sys.stdout = self._stdout
        for actor in self._actors.values():
            self._ray.kill(actor, no_restart=True)
        self._actors, self._working = {}, {}
        if not self._was_running:
            self._ray.shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, address: str, threads: int) -> None:
        # Ray would report what it is used for to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"address": address}
        if address == HERE:
            options.update(num_cpus=max(threads, cores()), object_store_memory=_OBJECT_STORE, include_dashboard=False)
        else:
            _check_reachable(address)
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM) if in_main_thread else None
        try:
            # What actors print would come out on stdout, among the results; it is in Ray's logs.
            self._ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds
            raise BackendError(
                "Ray cannot be started here." if address == HERE else f"The Ray cluster at {address} cannot be used.",
                why=first_line(error),
                fix="see `ray status`; `--ray local` uses this machine alone",
            ) from error
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)  # which Ray replaces by an end without cleaning up

    def _answer(self, reference: Any) -> Answer:
        try:
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Died(_reason(str(error)))
        return answer


class _ByThread:
    """A stream for this thread, and another one for all others."""

    def __init__(self, mine: TextIO, others: TextIO) -> None:
        self._mine, self._others, self._thread = mine, others, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine if threading.get_ident() == self._thread else self._others, name)


def _check_reachable(address: str) -> None:
    """Refuse an address at which nobody listens: Ray itself would wait for minutes.

    Raises:
        BackendError: Nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise BackendError(
            f"There is no Ray cluster at {address}.",
            why=str(getattr(error, "strerror", None) or error),
            fix="see `ray status`; `--ray local` uses this machine alone",
        ) from error


def _reason(text: str) -> str:
    """What Ray says of a dead actor, in one line."""
    details = re.search(r"exit detail: *(.+)", text)
    return " ".join((details.group(1) if details else text).split())[:300]
