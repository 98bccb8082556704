"""What a forked process may do with what its parent opened."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, TypeVar

from glnet_infer.errors import BackendError


class HomeProcess:
    """The process in which something was opened.

    Threads and CUDA do not survive a fork: a child that went on with its parent's would wait for ever.
    """

    def __init__(self) -> None:
        self._number, self._process = os.getpid(), _process[0]

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        # In containers two processes may have one number. A fork that Python does not know of shows by the number alone.
        return self._process is _process[0] and os.getpid() == self._number

    def check(self, what: str, fix: str) -> None:
        """Refuse to run in a forked child.

        Args:
            what: What was opened, for the message: ``onnxruntime-cpu backend``, for example.
            fix: What the user can do about it.

        Raises:
            BackendError: This is another process.
        """
        if not self.is_here:
            raise BackendError(
                f"The {what} was opened in another process.",
                why="this process was forked from it, and threads and GPU contexts do not survive that",
                fix=fix,
            )


_process = [object()]
"""Stands for this process; a forked child has another one."""


class OfThisProcess:
    """What cannot be copied, or sent to another process: it holds threads, open files or memory of a GPU."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What ``pickle`` and ``copy`` call.

        Raises:
            BackendError: Always.
        """
        raise BackendError(
            f"A {type(self).__name__} cannot be copied or sent to another process.",
            why="it holds what belongs to this process: threads, open files, memory of its device",
            fix="send what it was made from, such as the bundle's path, and make another one there",
        )


_Thing = TypeVar("_Thing")

_kept: weakref.WeakSet[Any] = weakref.WeakSet()
"""What :func:`keep_through_forks` was given, and lives in this process."""


def keep_through_forks(thing: _Thing) -> _Thing:
    """Never end an object in a child that is forked from this process: its end waits for threads that the child has not.

    Returns:
        The object.
    """
    _kept.add(thing)
    return thing


def _begin_child() -> None:
    _process[0] = object()
    for thing in _kept:
        keep_for_ever(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)


def keep_for_ever(thing: Any) -> None:
    """Never free an object, not even when Python exits: in a forked child, what its end would wait for is not there."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
