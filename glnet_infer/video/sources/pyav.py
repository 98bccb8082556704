"""Video files and network streams read by PyAV: exact times, rotation applied, damaged frames left out."""

from __future__ import annotations

import heapq
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError, first_line
from glnet_infer.images import LARGEST_IMAGE
from glnet_infer.video.sources.base import READABLE, Clock, RawFrame, Sound, SourceFacts, check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

OPEN_SECONDS, READ_SECONDS = 15.0, 10.0
"""How long a network stream may take to begin, and to bring the next frame."""

USUAL_RATE = Fraction(25)
"""Frames per second of a source that says nothing, or nonsense."""

_MOST_FAILURES = 100
"""Reads in a row that may fail before a source is given up. Containers find the next whole packet themselves."""

_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

# A file never leads to the network: playlists and other containers can name addresses. Streams lead to nothing else.
_PROTOCOLS = {
    "file": "file,crypto",
    "http": "http,https,tcp,tls,crypto,data",
    "rtsp": "rtsp,rtp,rtcp,srtp,udp,tcp,tls,http,https",
}


class PyavReader:
    """Frames of a file or of a network stream.

    Args:
        location: Path or address.
        name: What messages call it.
        start: Seconds; frames before it need not be given.

    Raises:
        InputError: It cannot be reached or read, holds no pictures, or pictures that are too large.
    """

    def __init__(self, location: Path | str, name: str, start: float | None) -> None:
        import av

        self._errors = (av.error.FFmpegError, OSError, ValueError)
        self._name, self._location = name, location
        self.skipped, self.ended_early = 0, ""
        self.notes: tuple[str, ...] = ()
        self._container = self._open()
        try:
            self._begin(start)
        except BaseException:
            self._container.close()
            raise

    def _begin(self, start: float | None) -> None:
        container, stream = self._container, self._pictures(self._container)
        self._stream = stream
        base = stream.time_base or Fraction(1, 1000)
        self._base = base
        duration = _seconds(container.duration, Fraction(1, 1_000_000)) or _seconds(stream.duration, base)
        remote = isinstance(self._location, str)
        self._live = remote and (duration is None or _kind(self._location) == "rtsp")
        # Players count from the moment at which the first of pictures and sound begins; so do we. A container with an
        # edit list begins at zero and has frames before, which are not shown.
        self._origin = Fraction(0) if self._live else _beginning(container)
        self._step = 1 / _rate(stream)
        self._keyframe = None if self._live or not start else self._keyframe_before(start)
        self._frames = self._decoded()
        first = self._waiting = next(self._frames, None)
        if first is None:
            raise InputError(
                f"{self._name} has no frame that can be decoded.",
                why=self.ended_early or (f"{self.skipped} damaged ones were found" if self.skipped else "it is empty"),
                fix=READABLE,
            )
        turned = _quarters(first) % 2
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        check_size(self._name, width, height)
        sounds = list(container.streams.audio)
        lost = []
        if sounds and remote:
            lost.append("sound, which is kept from files only")
        if stream.sample_aspect_ratio not in (None, 0, 1):
            lost.append("the shape of its pixels, which are not square: images look squeezed")
        self.facts = SourceFacts(
            self._name,
            width,
            height,
            rate=float(1 / self._step),
            time_base=base,
            live=self._live,
            duration=None if self._live else duration,
            frames=stream.frames if stream.frames > 0 and not self._live else None,
            sound=Sound(self._location, self._origin) if sounds and isinstance(self._location, Path) else None,
            lost=tuple(lost),
        )

    def __iter__(self) -> Iterator[RawFrame]:
        clock, arrived = Clock(from_zero=self._live), time.monotonic()
        index = -1
        frame = self._waiting
        self._waiting = None
        while frame is not None:
            now = time.monotonic()
            # A live frame without a stamp comes when it comes.
            step = max(Fraction(now - arrived), Fraction(1, 1000)) if self._live else self._step
            arrived = now
            stamp = _stamp(frame)
            index = max(index + 1, self._numbers.before(stamp))
            exact = None if stamp is None else stamp * self._base - self._origin
            yield RawFrame(index, clock(exact, step), partial(self._upright, frame))
            frame = next(self._frames, None)

    def close(self) -> None:
        """Close the file or the connection."""
        self._frames.close()
        self._container.close()

    def _open(self) -> InputContainer:
        import av

        remote = isinstance(self._location, str)
        kind = _kind(self._location)
        # Decoders refuse larger pictures before they ask for memory.
        options = {"protocol_whitelist": _PROTOCOLS[kind], "max_pixels": str(LARGEST_IMAGE)}
        if kind == "rtsp":
            options["rtsp_flags"] = "prefer_tcp"  # UDP loses packets, and does not pass most firewalls
        # "file:" keeps a name with a colon from being taken for an address.
        address = self._location if remote else f"file:{Path(self._location).absolute()}"
        try:
            timeout = (OPEN_SECONDS, READ_SECONDS) if remote else None
            return av.open(str(address), options=options, timeout=timeout)
        except self._errors as error:
            raise self._unreadable(error) from error

    def _pictures(self, container: InputContainer) -> VideoStream:
        """The first stream of moving pictures; the cover of an album is none."""
        import av

        cover = av.stream.Disposition.attached_pic
        stream = next((each for each in container.streams.video if not each.disposition & cover), None)
        if stream is None:
            sound = bool(container.streams.audio)
            raise InputError(
                f"{self._name} has no pictures.",
                why="it holds sound only" if sound else f"it holds no video stream ({container.format.name})",
                fix="give a video",
            )
        if stream.codec_context is None:
            raise InputError(
                f"{self._name} cannot be decoded.", why="no decoder is known for its pictures", fix="convert it to H.264"
            )
        check_size(self._name, stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "AUTO"
        return stream

    def _keyframe_before(self, start: float) -> int | None:
        """The decoding time stamp of a key frame at or before a time; None where it takes all frames from the first."""
        target = Fraction(start) + self._origin
        with self._open() as probe:
            stream = self._pictures(probe)
            for back in (0, 1, 5, 30):  # key frames are sought by decoding time, which may be earlier than they are shown
                try:
                    probe.seek(int((target - back) / self._base), stream=stream)
                    packet = next((each for each in probe.demux(stream) if each.is_keyframe), None)
                except (*self._errors, IndexError):  # as in _packets
                    return None
                if packet is None or packet.pts is None or packet.dts is None:
                    return None
                if packet.pts * self._base <= target:
                    return int(packet.dts)
        return None

    def _packets(self) -> Iterator[Packet[Any]]:
        failures = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    if packet.size:
                        yield packet
            except IndexError:  # how PyAV may say the end of a file in which a stream began on the way
                return
            except self._errors as error:
                failures += 1
                if self._live or isinstance(error, OSError) or failures > _MOST_FAILURES:
                    reason = self._reason(error)
                    self.ended_early = f"the connection ended: {reason}" if isinstance(self._location, str) else reason
                    return
            else:
                return

    def _decoded(self) -> Generator[VideoFrame, None, None]:
        """Frames in the order of their times."""
        self._numbers = _Numbers()
        seen, needed = 0, self._keyframe is None
        for packet in self._packets():
            seen += 1
            if not packet.is_discard:
                self._numbers.add(packet)
            if not needed:
                needed = packet.is_keyframe and packet.dts is not None and packet.dts >= (self._keyframe or 0)
            if needed:
                yield from self._decode(packet)
        yield from self._decode(None)
        if not self.ended_early and not self._live and seen < self._stream.frames:
            self.ended_early = f"it breaks off after {seen} of {self._stream.frames} frames"

    def _decode(self, packet: Packet[Any] | None) -> Iterator[VideoFrame]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except self._errors:
            self.skipped += 1
            return
        yield from frames

    def _upright(self, frame: VideoFrame) -> NDArray[np.uint8] | None:
        """Pixels as a person sees them; None where the decoder made them up."""
        if frame.is_corrupt:
            return None
        try:
            image: NDArray[Any] = frame.to_ndarray(format="bgr24")
        except self._errors:
            return None
        turn = _TURNS.get(_quarters(frame))
        return np.asarray(image if turn is None else cv2.rotate(image, turn), np.uint8)

    def _reason(self, error: BaseException) -> str:
        import av

        if isinstance(error, av.error.ExitError):
            return f"nothing came for {READ_SECONDS:g} seconds"
        return str(getattr(error, "strerror", "") or first_line(error))

    def _unreadable(self, error: BaseException) -> InputError:
        import av

        if isinstance(self._location, str):
            if isinstance(error, av.error.ExitError):
                why = f"nothing came within {OPEN_SECONDS:g} seconds"
            else:
                why = self._reason(error)
            return InputError(
                f"{self._name} cannot be opened.", why=why, fix="check the address, and that the camera or server is on"
            )
        return InputError(f"{self._name} is not a video that can be read.", why=self._reason(error), fix=READABLE)


class _Numbers:
    """Counts frames by their time stamps: a frame's number is how many packets are shown before it.

    So a frame that cannot be decoded keeps its number, and the number does not depend on where decoding began. Where
    stamps are missing or jump back there is no such count, and the caller counts on.
    """

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._passed, self._ordered = 0, True
        self._decoded_at: int | None = None

    def add(self, packet: Packet[Any]) -> None:
        """Count a packet, in the order of decoding."""
        before, self._decoded_at = self._decoded_at, packet.dts
        if packet.pts is None or (before is not None and packet.dts is not None and packet.dts < before):
            self._ordered = False
        elif self._ordered:
            heapq.heappush(self._stamps, packet.pts)

    def before(self, stamp: int | None) -> int:
        """How many packets are shown before a frame."""
        while self._ordered and stamp is not None and self._stamps and self._stamps[0] < stamp:
            heapq.heappop(self._stamps)
            self._passed += 1
        return self._passed


def _stamp(frame: VideoFrame) -> int | None:
    """When it is shown. AVI has no such stamps, but stores frames in order."""
    return frame.dts if frame.pts is None else frame.pts


def _quarters(frame: VideoFrame) -> int:
    """Quarter turns counter-clockwise that make a frame upright."""
    return round(frame.rotation / 90) % 4


def _kind(location: Path | str) -> str:
    if isinstance(location, Path):
        return "file"
    return "rtsp" if location.lower().startswith("rtsp") else "http"


def _beginning(container: InputContainer) -> Fraction:
    """When the first of pictures and sound begins, seconds. The container's own figure is the same in microseconds."""
    streams = (*container.streams.video, *container.streams.audio)
    starts = (each.start_time * each.time_base for each in streams if each.start_time is not None and each.time_base)
    return min(starts, default=Fraction(0))


def _seconds(ticks: int | None, base: Fraction) -> float | None:
    return float(ticks * base) if ticks is not None and ticks > 0 else None


def _rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and Fraction(1, 100) <= rate <= 1000:
            return Fraction(rate)
    return USUAL_RATE
