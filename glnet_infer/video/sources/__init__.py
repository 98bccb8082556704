"""Sources of frames: video files, webcams, network streams and numbered images, opened by one function."""

from __future__ import annotations

import re
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from glnet_infer.errors import InputError
from glnet_infer.files import is_directory, open_regular
from glnet_infer.numbers import is_number
from glnet_infer.video.sources.base import Reader, Sound, Source, SourceFacts, VideoFrame, Window, WindowedSource
from glnet_infer.video.sources.images import ImageReader, is_pattern
from glnet_infer.video.sources.opencv import OpenCvReader
from glnet_infer.video.sources.pyav import PyavReader

__all__ = [
    "Sound",
    "Source",
    "SourceFacts",
    "VideoFrame",
    "Window",
    "camera_number",
    "is_live",
    "is_pattern",
    "is_video",
    "moments_of",
    "open_source",
    "shown",
]

SCHEMES = ("rtsp", "rtsps", "http", "https")

SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv .y4m".split()  # noqa: SIM905
)
"""What is taken for a video by its name. Other files that hold one can be opened, too."""

_CAMERA_DIGITS = 9
"""What fits into OpenCV's 32 bits."""

_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")


def open_source(
    spec: str | PathLike[str],
    *,
    start: float | None = None,
    end: float | None = None,
    every: int = 1,
    fps: float | None = None,
) -> Source:
    """Open a source and read its first frame.

    Args:
        spec: Video file; number of a webcam, such as ``0``; address of a network stream (rtsp, http); folder of numbered
            images, or pattern of their names, such as ``frame_%04d.png``.
        start: Seconds from the beginning; earlier frames are left out.
        end: Seconds from the beginning; frames at that time and later ones are left out.
        every: Stride: 1 takes all frames, 2 every second one.
        fps: Frames per second of numbered images, which say nothing of time.

    Raises:
        InputError: There is no such source, it holds no frame in the window, is damaged or too large; or an argument makes
            no sense.
    """
    window = Window(start, end, every)
    window.check()
    text = str(spec)
    if fps is not None:
        if not (is_number(fps) and 0.001 <= fps <= 10_000):
            raise InputError(f"{fps} frames per second cannot be.", fix="use a number such as 30")
        if not _is_images(text):
            raise InputError(
                f"A frame rate was given for {shown(text)}.",
                why="only numbered images need one; this source has its own times",
                fix="leave out the frame rate",
            )
    return WindowedSource(_reader(text, start, fps), window)


def moments_of(path: Path) -> list[tuple[float, bool]] | None:
    """When each frame of a video file is shown, in order, and whether decoding can begin there.

    Returns:
        Seconds, as the frames have them, and whether it is a key frame; None where that is not known without decoding.

    Raises:
        InputError: The file cannot be read as a video.
    """
    _check_file(path)
    if not _has_pyav():
        return None
    reader = PyavReader(path, str(path), None)
    try:
        return reader.moments()
    finally:
        reader.close()


def camera_number(spec: str | PathLike[str]) -> int | None:
    """The number of a webcam; None for every other source, and for more digits than a camera has."""
    text = str(spec)
    return int(text) if text.isdecimal() and len(text) <= _CAMERA_DIGITS else None


def is_live(spec: str | PathLike[str]) -> bool:
    """Whether a source is a webcam or a network stream: not a path."""
    return camera_number(spec) is not None or bool(_ADDRESS.match(str(spec)))


def is_video(spec: str | PathLike[str]) -> bool:
    """Whether a name is that of a video: a live source, a file that ends like one, or a pattern of numbered images."""
    text = str(spec)
    return is_live(text) or Path(text).suffix.lower() in SUFFIXES or is_pattern(text)


def _is_images(text: str) -> bool:
    return not is_live(text) and (is_directory(text) or is_pattern(text))


def _reader(text: str, start: float | None, fps: float | None) -> Reader:
    camera = camera_number(text)
    if camera is not None:
        return OpenCvReader(camera, f"camera {camera}")
    if address := _ADDRESS.match(text):
        if address.group(1).lower() not in SCHEMES:
            raise InputError(
                f"{shown(text)} cannot be opened.",
                why=f"{address.group(1)} is none of {', '.join(SCHEMES)}",
                fix="give such an address, a file, or the number of a camera",
            )
        return PyavReader(text, shown(text), start) if _has_pyav() else OpenCvReader(text, shown(text))
    if _is_images(text):
        return ImageReader(text, fps)
    path = Path(text)
    _check_file(path)
    return PyavReader(path, text, start) if _has_pyav() else OpenCvReader(path, text)


def _check_file(path: Path) -> None:
    """Say plainly what libraries say in code.

    Raises:
        InputError: The path is no file with content that may be read.
    """
    try:
        with open_regular(path) as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(
            f"The video {path} was not read.",
            why=str(error.strerror or error),
            fix="check the path and its permissions; a webcam is given by its number",
        ) from error
    except ValueError as error:  # a null byte in the name
        raise InputError(f"The video {str(path)!r} was not read.", why=str(error), fix="check the path") from error
    if empty:
        raise InputError(f"{path} is empty.", why="it has no bytes", fix="copy it again")


def shown(text: str) -> str:
    """A source in messages: without the password that an address may hold."""
    if not _ADDRESS.match(text):
        return text
    try:
        parts = urlsplit(text)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    except ValueError:
        return "the address"


def _has_pyav() -> bool:
    try:
        return find_spec("av") is not None
    except ValueError:  # how a test takes it away
        return False
