"""What a forked process may do with what its parent opened."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from glnet_infer.errors import BackendError


class HomeProcess:
    """The process in which something was opened.

    Threads and CUDA do not survive a fork: a child that went on with its parent's would wait for ever.
    """

    def __init__(self) -> None:
        self._number = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._number

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


def keep_for_ever(thing: Any) -> None:
    """Never free an object, not even when Python exits: in a forked child, what its end would wait for is not there."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
