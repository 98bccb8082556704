"""What every source of frames has in common: frames, facts, the window of time and the stride."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError
from glnet_infer.forks import HomeProcess, OfThisProcess, keep_through_forks
from glnet_infer.images import LARGEST_IMAGE
from glnet_infer.numbers import is_number

READABLE = "convert it, for example to H.264 in MP4; or copy it again, if it is damaged"


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One picture of a source.

    Attributes:
        index: Its number in the source, from 0 on. Frames that are skipped keep theirs, whatever window is read.
        time: Seconds since the source's start, as its own clock says; grows from frame to frame.
        image: H x W x 3 uint8, BGR, upright.
    """

    index: int
    time: float
    image: NDArray[np.uint8]


class Sound(NamedTuple):
    """Sound that belongs to a source's frames.

    Attributes:
        path: The file that holds it.
        origin: The file's own time at the source's zero, seconds.
    """

    path: Path
    origin: Fraction


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a source once it is open.

    Attributes:
        name: What messages call it; passwords of addresses are left out.
        width: Width of the images in pixels, upright.
        height: Height of the images in pixels, upright.
        rate: Frames per second, nominal; frames need not keep it.
        time_base: Seconds; times are whole multiples of it, as far as the source says.
        live: Whether frames come when they will, and are gone when nobody takes them.
        duration: Length in seconds, as the source says; None where it does not, or says nonsense.
        frames: Number of frames, as the source says; None where it does not.
        sound: The sound; None where there is none or it cannot be kept.
        lost: What the source holds and cannot give, each in a few words.
        remedy: How to lose less; empty where nothing helps.
    """

    name: str
    width: int
    height: int
    rate: float
    time_base: Fraction
    live: bool = False
    duration: float | None = None
    frames: int | None = None
    sound: Sound | None = None
    lost: tuple[str, ...] = ()
    remedy: str = ""


class Source(Protocol):
    """Frames, in order, once. :func:`glnet_infer.video.sources.open_source` opens it; a ``with`` statement closes it."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of it."""
        ...

    @property
    def start(self) -> float:
        """Seconds, where its window begins."""
        ...

    @property
    def end(self) -> float | None:
        """Seconds, where its window ends; None where it takes all."""
        ...

    @property
    def rate(self) -> float:
        """Frames per second that it gives, nominal: those of the facts over the stride."""
        ...

    @property
    def expected(self) -> int | None:
        """How many frames it will give: None where nobody knows, and about right where the rate varies."""
        ...

    @property
    def skipped(self) -> int:
        """Damaged frames that were left out so far."""
        ...

    @property
    def ended_early(self) -> str:
        """Why it broke off before its end; empty while it did not."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to its pictures so far, or is wrong with them: each kind once, with the first picture's name."""
        ...

    def __iter__(self) -> Iterator[VideoFrame]: ...

    def close(self) -> None:
        """Let go of the file, camera or connection."""
        ...

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A frame whose pixels are converted only when it is wanted.

    Attributes:
        index: Its number, as in :class:`VideoFrame`.
        time: Seconds, as in :class:`VideoFrame`.
        image: Gives the picture, upright, before the next frame is asked for; None where it is damaged.
    """

    index: int
    time: float
    image: Callable[[], NDArray[np.uint8] | None]


class Reader(Protocol):
    """One kind of source: all its frames, from some frame at or before the window on."""

    facts: SourceFacts
    skipped: int
    ended_early: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said of its pictures so far, as :attr:`Source.notes`."""
        ...

    def __iter__(self) -> Iterator[RawFrame]: ...

    def close(self) -> None:
        """Let go of the file, camera or connection."""
        ...


class Window(NamedTuple):
    """Which frames are taken: from ``start`` on, before ``end``, in seconds; and of these every so many."""

    start: float | None = None
    end: float | None = None
    every: int = 1

    def check(self) -> None:
        """Refuse what no frame can meet.

        Raises:
            InputError: A time is negative or no number, the end is not after the start, or the stride is not positive.
        """
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (is_number(value) and value >= 0):
                raise InputError(f"The {name} is {value}.", why="it counts seconds from the beginning", fix="use 0 or more")
        if self.end is not None and self.end <= (self.start or 0):
            raise InputError(
                f"The end, {self.end:g} s, is not after the start, {self.start or 0:g} s.",
                fix="give the end in seconds from the video's beginning, too",
            )
        if type(self.every) is not int or self.every < 1:
            raise InputError(f"Every {self.every} frames is not a stride.", fix="use 1 for all frames, 2 for every second")


class WindowedSource(OfThisProcess):
    """A reader's frames inside a window. The first is read at once, so that what is wrong shows when a source is opened.

    Args:
        reader: Reader that gives all frames; closed with the source, and where this fails.
        window: The window, checked.

    Raises:
        InputError: No frame lies in the window.
    """

    def __init__(self, reader: Reader, window: Window) -> None:
        self._reader, self._window = reader, window
        self._home = HomeProcess()
        keep_through_forks(self)  # decoders have threads, for which their end waits
        self._skipped, self._ended_early = 0, ""
        self._frames = self._inside()
        try:
            self._first = next(self._frames, None)
            if self._first is None:
                raise self._nothing()
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> SourceFacts:
        """What is known of it."""
        return self._reader.facts

    @property
    def start(self) -> float:
        """Seconds, where the window begins."""
        return self._window.start or 0.0

    @property
    def end(self) -> float | None:
        """Seconds, where the window ends; None where it takes all."""
        return self._window.end

    @property
    def rate(self) -> float:
        """Frames per second that it gives, nominal."""
        return self.facts.rate / self._window.every

    @property
    def expected(self) -> int | None:
        """How many frames there will be: None where nobody knows, and about right where the rate varies."""
        start, end, every = self.start, self._window.end, self._window.every
        frames, rate, duration = self.facts.frames, self.facts.rate, self.facts.duration
        if frames is not None and not start and end is None:
            return max(1, -(-frames // every))
        ends = [each for each in (end, duration) if each is not None]
        return max(1, math.ceil((min(ends) - start) * rate / every - 1e-6)) if ends else None

    @property
    def skipped(self) -> int:
        """Damaged frames that were left out so far."""
        return self._reader.skipped + self._skipped

    @property
    def ended_early(self) -> str:
        """Why it broke off; empty while it did not."""
        return self._ended_early or self._reader.ended_early

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to its pictures so far, or is wrong with them."""
        return self._reader.notes

    def __iter__(self) -> Iterator[VideoFrame]:
        self._check_home()
        if self._first is not None:
            first, self._first = self._first, None
            yield first
            self._check_home()
        for frame in self._frames:
            yield frame
            self._check_home()

    def _check_home(self) -> None:
        self._home.check("video", "open it after the fork")

    def close(self) -> None:
        """Let go of the file, camera or connection. In a forked process it does nothing: they are the parent's."""
        if not self._home.is_here:
            return
        self._frames.close()
        self._reader.close()

    def __enter__(self) -> WindowedSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _inside(self) -> Generator[VideoFrame, None, None]:
        start, end, every = self._window
        first = None
        for frame in self._reader:
            if end is not None and frame.time >= end:
                return
            if start is not None and frame.time < start:
                continue
            first = frame.index if first is None else first
            if (frame.index - first) % every:
                continue
            image = frame.image()
            if image is None:
                self._skipped += 1
                continue
            height, width = image.shape[:2]
            if (width, height) != (self.facts.width, self.facts.height):
                self._ended_early = f"from {frame.time:.2f} s on, images have another size: {width} x {height}"
                return
            yield VideoFrame(frame.index, frame.time, image)

    def _nothing(self) -> InputError:
        start, end = self.start, self._window.end
        facts = self.facts
        if not start and end is None:
            return InputError(
                f"{facts.name} has no frame that can be decoded.", why=self.ended_early or "it is damaged", fix=READABLE
            )
        until = "" if end is None else f" and before {end:g} s"
        length = "" if facts.duration is None else f"it is {facts.duration:g} s long"
        return InputError(
            f"{facts.name} has no frame from {start:g} s on{until}.",
            why=self.ended_early or length,
            fix="choose another start or end",
        )


class Clock:
    """Times that grow, from time stamps that may be missing or jump back.

    A stamp is taken as it is where it can be. Where there is none, the frame comes one step after the last; where stamps
    jump back, as they do when a camera starts anew, the clock goes on from there.

    Args:
        from_zero: Whether the first frame is at zero, whatever its stamp.
    """

    def __init__(self, *, from_zero: bool) -> None:
        self._origin: Fraction | None = None if from_zero else Fraction(0)
        self._last: Fraction | None = None

    def __call__(self, stamp: Fraction | None, step: Fraction) -> float:
        """The time of the next frame.

        Args:
            stamp: Its time stamp, seconds.
            step: Time since the last frame where the stamps do not tell, seconds; positive.
        """
        following = Fraction(0) if self._last is None else self._last + step
        if stamp is None:
            time = following
        else:
            if self._origin is None:
                self._origin = stamp - following
            time = stamp - self._origin
            if self._last is not None and time <= self._last:
                time, self._origin = following, stamp - following
        self._last = time
        return float(time)


def check_size(name: str, width: int, height: int) -> None:
    """Refuse images too large to be worked on.

    Raises:
        InputError: There are more than :data:`LARGEST_IMAGE` pixels.
    """
    if width * height > LARGEST_IMAGE:
        raise InputError(
            f"{name} has images of {width} x {height} pixels.",
            why=f"at most {LARGEST_IMAGE // 1_000_000} million are read",
            fix="make the images smaller",
        )
