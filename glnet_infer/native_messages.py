"""What OpenCV and the libraries in it write to stderr by themselves: kept quiet, or heard and not shown."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

import cv2

_MOST = 1 << 16
"""Bytes that are heard. A damaged picture may have a message for each of its rows."""


class _Quiet:
    """Keeps OpenCV and its copy of libav from writing to stderr. What went wrong is said once, by an error.

    OpenCV has one level for all threads: it comes back when the last of them leaves.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._level = Lock(), 0, 0

    def __enter__(self) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET, read when the first video is opened
        with self._lock:
            if not self._inside:
                self._level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                cv2.utils.logging.setLogLevel(self._level)


quiet = _Quiet()
"""``with quiet:`` around what OpenCV does with a video or an image."""


@contextmanager
def unheard() -> Iterator[list[str]]:
    """No lines at all, and OpenCV is quiet."""
    with quiet:
        yield []


_DECODERS = (
    *(b"Corrupt JPEG", b"Premature end of JPEG", b"Invalid SOS", b"Inconsistent progression", b"Unknown Adobe"),
    *(b"Warning: unknown JFIF", b"Application transferred", b"Unsupported marker", b"Warning, unknown"),
    *(b"libpng ", b"TIFF", b"[ WARN:", b"[ERROR:", b"[ INFO:", b"[WARNING]", b"[ERROR]", b"[INFO]"),
)
"""How lines of libjpeg, libpng, libtiff, OpenJPEG and OpenCV begin."""

_hearing = Lock()


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Lines that C libraries write to stderr inside the block, after it; decoders' are not shown.

    libjpeg tells of damage in no other way. The whole process's stderr is turned for that long, for command lines alone.
    What another thread says meanwhile comes out at the end of the block.
    """
    heard: list[str] = []
    with _hearing:
        stderr, file = None, None
        with suppress(OSError, ValueError, AttributeError):  # there is no stderr, or no place for a file
            sys.stderr.flush()
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
            stderr = os.dup(2)
            os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            if stderr is not None:
                os.dup2(stderr, 2)
                os.close(stderr)
            if file is not None:
                file.seek(0)
                said = file.read(_MOST).splitlines(keepends=True)
                heard += [line.decode(errors="replace").rstrip("\r\n") for line in said]
                if stderr is not None:
                    _show(b"".join(line for line in said if line.strip() and not line.startswith(_DECODERS)))
                file.close()


def _show(text: bytes) -> None:
    """Write to stderr what was said there."""
    with suppress(OSError):
        while text:
            text = text[os.write(2, text) :]
