"""Image files read and written. Pillow looks at the header, with all that costs and misleads; OpenCV decodes the pixels.

What is transparent is decoded by Pillow: OpenCV leaves transparency out, or keeps it and the turn that EXIF asks for not.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError, OutputError, first_line
from glnet_infer.files import ELSEWHERE, is_directory, open_regular, replace_file, utf8_name
from glnet_infer.images import LARGEST_IMAGE, MAXIMUM_SIDE
from glnet_infer.native_messages import overheard, unheard

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
"""What is taken for an image in a folder."""

LARGEST_FILE = 1 << 30
"""Bytes. As many pixels as are read, 16 bits each and not compressed."""

LARGEST_COSTLY = 32_000_000
"""Pixels of images whose decoders take 16 bytes for each: AVIF, JPEG 2000, and what is transparent."""

GROUND = 128
"""Grey level that is put behind what is transparent."""

_MOST_WORK = 2_000_000_000
"""Pixels times passes over them of a JPEG. Each takes a nanosecond; ten passes are usual."""

_KINDS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
"""What is read, by Pillow's names."""

_DEEP = ("PNG", "TIFF", "JPEG2000", "PPM")
"""Kinds of 16 bits, whose range is looked at."""

_OTHERS = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"#?", "Radiance HDR, which holds light and no grey levels"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR, which holds light and no grey levels"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "PDF"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched"),
    (0, b"<", "HTML, SVG or other text"),
)
"""What is often taken for an image: where its mark stands, the mark, and what it is."""

_DAMAGE = ("premature end of data", "bad Huffman code", "instead of RST", "TIFF_Error")
"""What libjpeg and libtiff say of pixels that they made up. They say other things, too, of images that are whole."""

_ORIENTATION = 0x0112
"""EXIF's tag of how the picture was held."""

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""What makes it upright, in Pillow's words."""

_CONVERT = "convert it to JPEG or PNG"


@dataclass(frozen=True, eq=False)
class Picture:
    """An image file's content.

    Attributes:
        image: H x W x 3 uint8, BGR.
        notes: What was done to it or left out, and what is wrong with it, each in a few words.
    """

    image: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Header:
    """What is known of an image before it is decoded."""

    kind: str
    opened: ImageFile
    transparent: bool
    notes: tuple[str, ...]


def read_image(path: str | PathLike[str], *, oriented: bool = True) -> NDArray[np.uint8]:
    """The image of :func:`read_picture`, whatever is to be said of it."""
    return read_picture(path, oriented=oriented).image


def read_picture(path: str | PathLike[str], *, oriented: bool = True, listening: bool = False) -> Picture:
    """A file as OpenCV's BGR image: JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000, AVIF or PPM.

    A JPEG that breaks off is refused, where ``cv2.imread`` would fill it up with grey. What is transparent is laid over
    grey. 16 bits that hold fewer are spread over the whole range. Of several pictures in a file, the first is taken.

    Args:
        path: The file.
        oriented: Whether to turn it as its EXIF data says, which is how people see it; datasets label the stored pixels.
        listening: Whether to find out if a JPEG or TIFF has damaged parts, by what its decoder writes to stderr. It is for
            command lines, see :func:`glnet_infer.native_messages.overheard`.

    Raises:
        InputError: There is no such file; it is not an image, is damaged, or has more than :data:`LARGEST_IMAGE` pixels.
    """
    try:
        with open_regular(path) as file:
            return _read(path, file, oriented, listening)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The image {path} was not read.",
            why=str(getattr(error, "strerror", None) or error),
            fix="check the path and its permissions",
        ) from error


def decode_picture(content: bytes, *, name: str = "The picture") -> Picture:
    """The content of an image file, as :func:`read_picture` reads it, from memory.

    Args:
        content: All bytes of the file.
        name: What messages call it.

    Raises:
        InputError: It is not an image, is damaged, or has more than :data:`LARGEST_IMAGE` pixels.
    """
    return _read(name, io.BytesIO(content), oriented=True, listening=False)


def _read(path: str | PathLike[str], file: BinaryIO, oriented: bool, listening: bool) -> Picture:
    """The picture of an open file.

    Raises:
        InputError: It is not an image, is damaged, or too large.
        OSError: It cannot be read.
    """
    try:
        header = _header(path, file)
        size = file.seek(0, os.SEEK_END)
        if size > LARGEST_FILE:
            raise _too_large(path, f"it has {size} bytes, and at most {LARGEST_FILE} are read")
        file.seek(0)
        content = file.read(size)
        _check_work(path, header, content)
        with overheard() if listening else unheard() as heard:
            blended = _blended(path, header, oriented) if header.transparent else None
            picture = blended or _decoded(path, header, content, oriented)
    except MemoryError as error:
        raise _too_large(path, "there is not enough memory for it") from error
    damaged = next((line for line in heard if any(words in line for words in _DAMAGE)), "")
    notes = (
        [f"it is damaged, and parts of it are made up: {damaged.rpartition('TIFF_Error ')[2].strip()}"] if damaged else []
    )
    return Picture(picture.image, (*header.notes, *picture.notes, *notes))


def is_image_name(name: str) -> bool:
    """Whether a folder's file is taken for an image by its name; hidden ones are not, such as macOS' ``._photo.jpg``."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def begins_like_an_image(path: str | PathLike[str]) -> bool:
    """Whether a file's first bytes are those of an image that is read."""
    try:
        with open_regular(path) as file:
            start = file.read(16)
    except (OSError, ValueError):
        return False
    return any(accepts(start) is True for _, _, accepts in _plugins())


@functools.cache
def _plugins() -> tuple[tuple[str, Callable[..., Any], Callable[[bytes], bool | str]], ...]:
    """What Pillow reads each kind with, and knows it by. ``Image.open`` knows many more, and warns of large images."""
    from PIL import (  # noqa: F401 - each adds itself to the list
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    # It tells of damage by its logger too, which without any handler prints on stderr.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    return tuple((kind, Image.OPEN[kind][0], Image.OPEN[kind][1] or (lambda start: False)) for kind in _KINDS)


_reading = Lock()
"""Python's filters of warnings are the process's."""


def _header(path: str | PathLike[str], file: BinaryIO) -> _Header:
    """What the header says, checked.

    Raises:
        InputError: It is no image that is read, or a very large one.
    """
    start = file.read(32)
    kind, opens = next(((kind, opens) for kind, opens, accepts in _plugins() if accepts(start[:16]) is True), ("", None))
    if opens is None:
        other = next((what for at, mark, what in _OTHERS if start[at:].startswith(mark)), "")
        why = f"it is {other}" if other else "its first bytes are those of no kind that is read" if start else "it is empty"
        raise InputError(f"{path} is not an image that is read.", why=why, fix=_CONVERT)
    file.seek(0)
    try:
        with _reading, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EXIF data
            opened = opens(file, "")
            notes = _notes(kind, opened)
            transparent = bool(opened.has_transparency_data)
            repeated = kind == "TIFF" and _repeats(file)
            tile = math.prod(int(opened.tag_v2.get(tag, 1)) for tag in (322, 323)) if kind == "TIFF" else 1
    except MemoryError:
        raise
    except Exception as error:  # each plugin has kinds of its own
        raise _damaged(path, first_line(error)) from error
    width, height = opened.size
    largest = LARGEST_COSTLY if transparent or kind in ("AVIF", "JPEG2000") else LARGEST_IMAGE
    if width * height > largest or max(width, height) > MAXIMUM_SIDE:
        raise _too_large(path, f"it has {width} x {height} pixels, and at most {largest // 1_000_000} million are read")
    if repeated or tile > LARGEST_IMAGE:
        raise _damaged(path, "it says its size twice" if repeated else "its tiles are larger than images")
    if opened.mode in ("F", "I"):
        raise InputError(f"{path} is not an image that is read.", why="its numbers are no grey levels", fix=_CONVERT)
    return _Header(kind, opened, transparent, notes)


def _notes(kind: str, opened: Any) -> tuple[str, ...]:
    several = kind != "JPEG" and getattr(opened, "is_animated", False)
    opened.seek(0)
    return (
        *(["it holds several pictures, and the first was taken"] if several else ()),
        *(["it has one bit a pixel: black and white alone"] if opened.mode == "1" else ()),
    )


def _repeats(file: BinaryIO) -> bool:
    """Whether the first directory of a TIFF has an entry twice: readers differ in which one counts."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    at = struct.unpack(f"{order}Q" if big else f"{order}I", head[8:16] if big else head[4:8])[0]
    file.seek(at)
    count = struct.unpack(f"{order}Q" if big else f"{order}H", file.read(8 if big else 2))[0]
    size = 20 if big else 12
    entries = file.read(size * min(count, 1 << 16))
    tags = [entries[each : each + 2] for each in range(0, len(entries), size)]
    return len(set(tags)) < len(tags)


def _check_work(path: str | PathLike[str], header: _Header, content: bytes) -> None:
    """Refuse images that take long although they are not large.

    Raises:
        InputError: It is one.
    """
    width, height = header.opened.size
    passes = content.count(b"\xff\xda") if header.kind == "JPEG" else 1
    if passes * width * height > _MOST_WORK:
        raise _too_large(path, f"it has {width} x {height} pixels in {passes} passes")
    if header.kind == "PNG" and not _chunks_fit(content):
        raise _damaged(path, "one of its parts is longer than the file")
    if header.kind == "JPEG2000":
        # The stream inside has a size of its own, which the box around it need not repeat.
        at = content.find(b"\xff\x4f\xff\x51")
        stream = content[at + 8 : at + 42] if at >= 0 else b""
        if len(stream) < 34:
            raise _damaged(path, "it holds no stream of pixels")
        right, lower, left, upper, *_, components = struct.unpack(">8IH", stream)
        if (right - left, lower - upper) != (width, height) or components > 4:
            raise _damaged(path, "its parts differ in its size")


def _chunks_fit(content: bytes) -> bool:
    """Whether every chunk of a PNG ends inside it: OpenCV makes room for what a chunk says of its length."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        at += 12 + length
        if at > len(content):
            return False
    return True


def _blended(path: str | PathLike[str], header: _Header, oriented: bool) -> Picture | None:
    """A transparent image over the ground; None where nothing shows through.

    Raises:
        InputError: It is damaged.
    """
    from PIL import Image

    try:
        with _reading, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Both libraries turn a TIFF when they decode it, whatever they are asked for.
            turn = header.opened.getexif().get(_ORIENTATION, 1) if oriented and header.kind != "TIFF" else 1
            whole = header.opened.convert("RGBA")
        if turn in _TURNS:
            whole = whole.transpose(Image.Transpose[_TURNS[turn]])
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, first_line(error)) from error
    least, most = whole.getchannel("A").getextrema()
    if least == 255:
        return None
    if most == 0:
        note = "it is transparent everywhere, which was ignored"
        return Picture(np.asarray(whole.convert("RGB"), np.uint8)[..., ::-1].copy(), (note,))
    ground = Image.new("RGBA", whole.size, (GROUND, GROUND, GROUND, 255))
    ground.alpha_composite(whole)
    note = "it is transparent in part, and was laid over grey"
    return Picture(np.asarray(ground.convert("RGB"), np.uint8)[..., ::-1].copy(), (note,))


def _decoded(path: str | PathLike[str], header: _Header, content: bytes, oriented: bool) -> Picture:
    flags = cv2.IMREAD_COLOR if oriented else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if header.kind in _DEEP:
        flags |= cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise _damaged(path, str(error.err)) from error
    if image is None:
        raise _damaged(path, "OpenCV does not decode it: it is damaged, or of a variety that it does not know")
    if image.dtype == np.uint16:
        return _of_8_bits(image)
    if image.dtype != np.uint8:
        raise InputError(f"{path} is not an image that is read.", why=f"its numbers are {image.dtype}", fix=_CONVERT)
    return Picture(np.asarray(image, np.uint8))


def _of_8_bits(image: NDArray[Any]) -> Picture:
    """The upper 8 of those bits that are in use; sensors have 10, 12 or 14, and lossy pictures some levels more."""
    most = int(image.max())
    bits = next(bits for bits in (8, 10, 12, 14, 16) if most < 1.01 * (1 << bits))
    scaled = np.minimum(image >> (bits - 8), 255).astype(np.uint8)
    return Picture(scaled, () if bits == 16 else (f"its 16 bits hold values of {bits} only, and were made brighter",))


def _damaged(path: str | PathLike[str], why: str) -> InputError:
    return InputError(f"{path} cannot be decoded.", why=why, fix=f"copy it again, or {_CONVERT}")


def _too_large(path: str | PathLike[str], why: str) -> InputError:
    return InputError(f"{path} is too large.", why=why, fix="make it smaller")


_SUFFIXES = "use a suffix such as .jpg or .png"


def check_image_path(path: Path) -> None:
    """Raise OutputError where :func:`write_image` could not write: before the work that makes the image."""
    if not is_directory(path.parent):
        raise OutputError(f"Cannot write {path}.", why="there is no such directory", fix=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"Cannot write {path}.", why=f"nothing can be written into {path.parent}", fix=ELSEWHERE)
    if not _is_written(path.suffix):
        raise OutputError(f"Cannot write {path}.", why=f"{path.suffix!r} is no image format", fix=_SUFFIXES)


def _is_written(suffix: str) -> bool:
    try:
        return cv2.haveImageWriter(f"image{utf8_name(suffix)}")
    except ValueError:
        return False


def write_image(path: str | PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a BGR image; the suffix names the format, as for ``cv2.imwrite``.

    Raises:
        OutputError: OpenCV does not know the format, or the file cannot be written.
    """
    try:
        _, encoded = cv2.imencode(utf8_name(Path(path).suffix), image)
    except (cv2.error, ValueError) as error:
        why = str(error.err) if isinstance(error, cv2.error) else f"{Path(path).suffix!r} is no image format"
        raise OutputError(f"Cannot write {path}.", why=why, fix=_SUFFIXES) from error
    replace_file(path, encoded.tobytes())
