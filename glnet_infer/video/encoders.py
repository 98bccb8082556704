"""Encoders of MP4 files: H.264 with exact times and sound by PyAV, VP9 at a constant rate by OpenCV."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import first_line
from glnet_infer.files import utf8_name
from glnet_infer.native_messages import quiet
from glnet_infer.video.sources.base import Sound

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

QUALITY = 20
"""x264's constant rate factor: lower is better and larger. At 23, its own default, thin lines of a mesh blur."""

_FINEST = Fraction(1, 12_800)
"""Seconds. Ticks at least as fine, so that sound and pictures of a window stay together."""

_COPIED_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "mp3float", "opus"})
"""Decoders of the codecs that players expect in an MP4; other sound becomes AAC."""

_AAC_RATES = frozenset({8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000})


def encoder_errors() -> tuple[type[Exception], ...]:
    """What encoders and the libraries below them raise."""
    try:
        import av
    except ImportError:
        return (OSError, ValueError)
    return (OSError, ValueError, av.error.FFmpegError)


def has_h264() -> bool:
    """Whether PyAV is installed, and built with an encoder of H.264."""
    try:
        import av
    except ImportError:
        return False
    return "libx264" in av.codecs_available


class Encoder(Protocol):
    """Writes one file.

    Attributes:
        lost: What the file cannot hold, each in a few words.
    """

    lost: tuple[str, ...]

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Add a picture of even sides, at a time in seconds from the file's beginning; times grow."""
        ...

    def finish(self, sound_until: Fraction | None) -> None:
        """Complete the file; sound after a time, seconds, is left out."""
        ...

    def abandon(self) -> None:
        """Let go of the file as it is."""
        ...


class PyavEncoder:
    """H.264, with the frames' own times and sound.

    Args:
        path: The file.
        size: Width and height, even.
        rate: Frames per second, nominal.
        time_base: Seconds, of which times are multiples.
        sound: Sound to copy.
        start: The time of the sound's source at the file's beginning, seconds.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], rate: float, time_base: Fraction, sound: Sound | None, start: Fraction
    ) -> None:
        import av

        self.lost: tuple[str, ...] = ()
        # Times at which sound and pictures begin are kept in the movie's ticks, which are milliseconds otherwise.
        flags = {"movflags": "+faststart", "movie_timescale": "90000"}
        self._file: OutputContainer = av.open(f"file:{path}", "w", format="mp4", options=flags)
        self._sound = None
        try:
            nominal = Fraction(rate).limit_denominator(1001)
            # One key frame a second, for players that jump. No frames that refer to later ones: with them, a file of a
            # varying rate says a wrong length.
            options = {"crf": str(QUALITY), "preset": "veryfast", "g": str(max(1, round(rate))), "bf": "0"}
            self._stream = self._file.add_stream("libx264", rate=nominal, options=options)
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            self._base = time_base / ceil(time_base / _FINEST)
            self._stream.time_base = context.time_base = self._base
            # Said, because players guess by the size of the picture.
            context.color_range, context.colorspace = 1, 1  # MPEG's range, BT.709
            context.color_primaries = context.color_trc = 1
            self._last = -1
            if sound is not None:
                try:
                    self._sound = _SoundTrack(self._file, sound, start)
                except encoder_errors() as error:
                    self.lost = (f"sound, which cannot be read ({first_line(error)})",)
        except BaseException:
            self.abandon()
            raise

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Encode a picture, and copy the sound before it."""
        import av

        self._last = max(self._last + 1, round(time / self._base))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = self._last, self._base
        self._copy_sound(time)
        self._file.mux(self._stream.encode(frame))

    def finish(self, sound_until: Fraction | None) -> None:
        """Encode what is held back, copy the rest of the sound and complete the file."""
        self._copy_sound(sound_until)
        self._file.mux(self._stream.encode(None))
        if self._sound is not None:
            self._file.mux(self._sound.held_back())
            if self._sound.broken:
                self.lost = (f"the rest of the sound ({self._sound.broken})",)
            self._sound.close()
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        if self._sound is not None:
            self._sound.close()
        with suppress(*encoder_errors()):
            self._file.close()

    def _copy_sound(self, until: Fraction | None) -> None:
        if self._sound is not None:
            for packets in self._sound.until(until):
                self._file.mux(packets)


class _SoundTrack:
    """The first sound of a file, packet by packet: copied as it is, or encoded anew where an MP4 cannot hold it.

    Args:
        output: The file that gets the sound.
        sound: The file that holds it.
        start: Where it begins, in seconds of the source's time; a packet that begins earlier is left out.

    Attributes:
        broken: Why it ended before its end; empty where it did not.
    """

    def __init__(self, output: OutputContainer, sound: Sound, start: Fraction) -> None:
        import av

        self._source = av.open(f"file:{sound.path.absolute()}", options={"protocol_whitelist": "file,crypto"})
        try:
            if not self._source.streams.audio:
                raise ValueError("there is none")
            self._given = self._source.streams.audio[0]
            base = self._given.time_base or Fraction(1, 48_000)
            self._first = round((sound.origin + start) / base) if start else None
            self._shift = round((sound.origin + start) / base)
            self._base = base
            context = self._given.codec_context
            self._resampler: Any = None
            if context.name in _COPIED_SOUND:
                self._stream: Any = output.add_stream_from_template(self._given)
            else:
                rate = context.rate if context.rate in _AAC_RATES else 48_000
                layout = "mono" if context.layout.nb_channels == 1 else "stereo"
                self._stream = output.add_stream("aac", rate=rate, layout=layout)
                self._resampler = av.AudioResampler("fltp", layout, rate, frame_size=1024)
            if self._first is not None:
                self._source.seek(self._first, stream=self._given)
        except BaseException:
            self._source.close()
            raise
        self.broken = ""
        self._packets = self._read()
        self._waiting = next(self._packets, None)

    def until(self, time: Fraction | None) -> Iterator[list[Packet[Any]]]:
        """Packets to be written before a time in seconds; all where None."""
        while self._waiting is not None and (time is None or self._waiting[0] < time):
            yield self._waiting[1]()
            self._waiting = next(self._packets, None)

    def held_back(self) -> list[Packet[Any]]:
        """Packets that the encoder still holds."""
        if self._resampler is None:
            return []
        frames = self._resampler.resample(None)
        return [packet for frame in (*frames, None) for packet in self._stream.encode(frame)]

    def close(self) -> None:
        """Let go of the file that is read."""
        self._packets.close()
        self._source.close()

    def _read(self) -> Generator[tuple[Fraction, Callable[[], list[Packet[Any]]]], None, None]:
        """Times in the output, seconds, and what gives the packets."""
        last = -math.inf
        try:
            for packet in self._source.demux(self._given):
                if packet.pts is None or packet.dts is None or (self._first is not None and packet.pts < self._first):
                    continue
                if packet.dts < last:  # pictures go on by a clock of their own: what follows would not fit them
                    self.broken = "its time stamps jump back"
                    return
                if packet.dts == last:
                    continue
                last = packet.dts
                yield (packet.pts - self._shift) * self._base, partial(self._ready, packet)
        except IndexError:  # how PyAV may say the end of a file in which a stream began on the way
            return
        except encoder_errors() as error:
            self.broken = first_line(error)

    def _ready(self, packet: Packet[Any]) -> list[Packet[Any]]:
        if self._resampler is None:
            packet.pts, packet.dts = (packet.pts or 0) - self._shift, (packet.dts or 0) - self._shift
            packet.stream = self._stream
            return [packet]
        ready = []
        try:
            decoded = self._given.codec_context.decode(packet)
        except encoder_errors():  # a damaged packet is a moment of silence
            decoded = []
        for frame in decoded:
            if frame.pts is not None:
                frame.pts -= self._shift
            for piece in self._resampler.resample(frame):
                ready += self._stream.encode(piece)
        return ready


class OpenCvEncoder:
    """VP9 at a constant rate, without sound: what OpenCV can write and browsers play.

    Args:
        path: The file; its name ends with ``.mp4``.
        size: Width and height, even.
        rate: Frames per second.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: float) -> None:
        self.lost: tuple[str, ...] = (
            "the frames' own times: every frame lasts as long",
            "sound",
            "H.264: the pictures are VP9",
        )
        self._path, self._frames = path, 0
        try:
            name = utf8_name(path)
        except ValueError as error:
            raise OSError(errno.EILSEQ, str(error)) from error
        with quiet:
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"vp09"), rate, size)
        if not self._writer.isOpened():
            raise OSError(errno.EIO, "OpenCV opens no VP9 encoder there")

    def write(self, image: NDArray[np.uint8], time: Fraction) -> None:
        """Encode a picture."""
        with quiet:
            self._writer.write(image)
        self._frames += 1

    def finish(self, sound_until: Fraction | None) -> None:
        """Complete the file, and look whether it is whole: OpenCV keeps to itself what goes wrong."""
        with quiet:
            self._writer.release()
            written = cv2.VideoCapture(utf8_name(self._path), cv2.CAP_FFMPEG)
            count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
            written.release()
        if count != self._frames or not _is_whole(self._path):
            raise OSError(errno.EIO, "the file that OpenCV wrote is not whole; the disk may be full")

    def abandon(self) -> None:
        """Let go of the file as it is."""
        with quiet:
            self._writer.release()


def _is_whole(path: Path) -> bool:
    """Whether the outermost boxes of an MP4 (ISO/IEC 14496-12, 4.2) end where the file does."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            length = int.from_bytes(file.read(4), "big")
            if length == 1:
                file.seek(4, 1)
                length = int.from_bytes(file.read(8), "big")
            if length < 8:
                return False
            place += length
    return place == size
