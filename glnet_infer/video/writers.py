"""Videos written frame by frame, and put in their place as a whole when they are closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import GlnetError, InputError, OutputError, first_line, install_hint
from glnet_infer.files import Replacement, told_as_output
from glnet_infer.forks import HomeProcess, OfThisProcess, keep_through_forks
from glnet_infer.video.encoders import Encoder, OpenCvEncoder, PyavEncoder, encoder_errors, has_h264
from glnet_infer.video.sources import Sound, Source

SUFFIX = ".mp4"


class VideoWriter(OfThisProcess):
    """Writes an MP4: H.264 with the frames' own times and sound, or VP9 where PyAV is not installed.

    In a ``with`` statement, Ctrl-C completes the file with what is done. Other errors remove it, and leave what was there
    before. A process that is killed leaves a file whose name begins with a dot.

    Args:
        path: The file; its name ends with ``.mp4``.
        width: Width of the images in pixels. The file repeats the last column of an odd one, for encoders want even sides.
        height: Height of the images in pixels, in the same way.
        rate: Frames per second, nominal.
        time_base: Seconds, of which the frames' times are multiples.
        start: The time that is the file's beginning, seconds.
        end: The time at which its sound ends at the latest, seconds; None: where the sound itself ends.
        sound: The sound that belongs to the frames.

    Attributes:
        frames: Frames written so far.

    Raises:
        OutputError: The file cannot be written there.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        width: int,
        height: int,
        rate: float = 30.0,
        time_base: Fraction = Fraction(1, 90_000),
        start: float = 0.0,
        end: float | None = None,
        sound: Sound | None = None,
    ) -> None:
        if Path(path).suffix.lower() != SUFFIX:
            raise OutputError(f"Cannot write {path}.", why="videos are written as MP4", fix=f"use a name with {SUFFIX}")
        self._path, self._shape = path, (height, width, 3)
        self._home = HomeProcess()
        keep_through_forks(self)  # encoders have threads, for which their end waits
        self._start, self._end = Fraction(start), end
        self._time = -1.0
        self._step = Fraction(1 / rate)
        self.frames = 0
        self._replacement = Replacement(path, SUFFIX)
        size = (width + width % 2, height + height % 2)
        self._encoder: Encoder
        try:
            self._replacement.begin()
            with self._told():
                if has_h264():
                    self._encoder = PyavEncoder(self._replacement.partial, size, rate, time_base, sound, self._start)
                else:
                    self._encoder = OpenCvEncoder(self._replacement.partial, size, rate)
        except BaseException:
            self._replacement.discard()
            raise
        self._closed = False

    @classmethod
    def like(cls, path: str | PathLike[str], source: Source) -> VideoWriter:
        """A writer for what is drawn on a source's frames: same size, times and sound; time zero where its window begins.

        Args:
            path: The file; its name ends with ``.mp4``.
            source: An open source.

        Raises:
            OutputError: The file cannot be written there.
        """
        facts = source.facts
        return cls(
            path,
            width=facts.width,
            height=facts.height,
            rate=source.rate,
            time_base=facts.time_base,
            start=source.start,
            end=source.end,
            sound=facts.sound,
        )

    @property
    def lost(self) -> tuple[str, ...]:
        """What the file does not hold, each in a few words."""
        return self._encoder.lost

    @property
    def remedy(self) -> str:
        """How to lose less; empty where nothing helps."""
        return install_hint("video") if isinstance(self._encoder, OpenCvEncoder) else ""

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Add a frame.

        Args:
            image: H x W x 3 uint8, BGR, of the writer's size.
            time: Seconds, in the source's time; grows from frame to frame.

        Raises:
            InputError: The image has another size or type, or the time does not grow.
            OutputError: The file cannot be written.
        """
        self._home.check("video writer", "make it after the fork")
        if image.shape != self._shape or image.dtype != np.uint8:
            raise InputError(
                f"A frame has shape {image.shape} and type {image.dtype}.",
                why=f"this video has {self._shape} and uint8",
                fix="write frames of one size",
            )
        if self.frames and time <= self._time:
            raise InputError(
                f"A frame at {time} s follows one at {self._time} s.", why="times grow", fix="write frames in order"
            )
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
        with self._told():
            self._encoder.write(image, max(Fraction(time) - self._start, Fraction(0)))
        self._time = time
        self.frames += 1

    def close(self, *, cut: bool = False) -> None:
        """Complete the file and put it in its place; nothing is left where no frame was written.

        In a forked process it does nothing: the file is the parent's.

        Args:
            cut: Whether the sound ends with the pictures, because the source was not read to its end.

        Raises:
            OutputError: The file cannot be written; what was there before is left.
        """
        if self._closed or not self._home.is_here:
            return
        if not self.frames:
            self.discard()
            return
        self._closed = True
        end = None if self._end is None else Fraction(self._end)
        if cut:
            end = Fraction(self._time) + self._step
        try:
            with self._told():
                try:
                    self._encoder.finish(None if end is None else end - self._start)
                except BaseException:
                    self._encoder.abandon()
                    raise
            self._replacement.finish()
        except BaseException:
            self._replacement.discard()
            raise

    def discard(self) -> None:
        """Remove what was written, and leave what was there before."""
        if not self._closed and self._home.is_here:
            self._closed = True
            self._encoder.abandon()
            self._replacement.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self.close(cut=True)
        else:
            self.discard()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the libraries' errors into ours.

        Raises:
            OutputError: The block failed.
        """
        with told_as_output(self._path):
            try:
                yield
            except encoder_errors() as error:
                if isinstance(error, OSError | GlnetError):
                    raise
                raise OutputError(
                    f"Cannot write {self._path}.", why=first_line(error), fix="try images of another size"
                ) from error
