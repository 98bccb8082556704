"""Which photographs are worked on, and whose boxes are whose."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple

from glnet_infer.errors import InputError
from glnet_infer.files import is_file, read_json
from glnet_infer.image_files import IMAGE_SUFFIXES, begins_like_an_image, is_image_name
from glnet_infer.jobs.photographs import OVERLAY_SUFFIX

BOXES_FORM = '{"photo.jpg": [[x1, y1, x2, y2], ...], ...}'

_NAMED = 5
"""Files that are named of those that were left out."""


class Photographs(NamedTuple):
    """Photographs, and what lies beside them.

    Attributes:
        files: Each with a name of its own, sorted within each folder.
        left_out: Files and folders in the folders that are no photographs. Hidden ones and overlays are not counted.
    """

    files: list[Path]
    left_out: list[Path]


def find_photographs(arguments: list[Path]) -> Photographs:
    """Files, and the images in folders. Results are named after them, so names must differ.

    Raises:
        InputError: A path does not exist or cannot be read, a folder holds no images, or two have the same name.
    """
    files: list[Path] = []
    left_out: list[Path] = []
    for path in arguments:
        inside, others = _inside(path) if _is_folder(path) else ([path], [])
        if not inside:
            beside = f", and found {in_words(others)}" if others else ""
            raise InputError(
                f"There are no images in {path}.",
                why=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}{beside}",
                fix="name the files themselves if they end otherwise",
            )
        files += inside
        left_out += others
    files = list(dict.fromkeys(files))
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"{other} and {file} would be written to the same files.",
                why="results are named after the image",
                fix="call glnet-infer once for each, with different -o",
            )
    return Photographs(files, left_out)


def in_words(paths: list[Path]) -> str:
    """How many there are, and the first few names."""
    names = ", ".join(path.name for path in paths[:_NAMED])
    return f"{len(paths)} other{'s' * (len(paths) > 1)}: {names}" + (", ..." if len(paths) > _NAMED else "")


def _is_folder(path: Path) -> bool:
    try:
        return S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        fix = "check the path"
        if "," in path.name:
            fix += "; several boxes are --boxes A --boxes B, each with its flag"
        raise InputError(f"There is no image or folder {path}.", fix=fix) from error
    except OSError as error:
        raise _unread(path, error) from error


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images of a folder, and what else is in it."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unread(folder, error) from error
    shown = [entry for entry in entries if not entry.name.startswith(".") and not entry.name.endswith(OVERLAY_SUFFIX)]
    images = [entry for entry in shown if is_file(entry) and _is_image(entry)]
    known = set(images)
    return images, [entry for entry in shown if entry not in known]


def _is_image(path: Path) -> bool:
    return is_image_name(path.name) or (not path.suffix and begins_like_an_image(path))


def _unread(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} was not read.", why=str(error.strerror), fix="check the path and its permissions")


def read_boxes(path: Path, images: list[Path]) -> dict[Path, Any]:
    """The boxes of each image from a file; an empty list for those that it does not name.

    Names are compared as people see them, however their accents are stored. Of a key that is a path, the name counts.

    Raises:
        InputError: The file cannot be read, or has boxes for what is not among the images, or twice for one.
    """
    table = read_json(path, InputError, fix=f"write {BOXES_FORM}")
    if not isinstance(table, dict) or None in table.values():
        raise InputError(
            f"{path} does not hold boxes by file name.",
            why="it is not an object with boxes for every name",
            fix=f"write {BOXES_FORM}",
        )
    by_name = {_seen(image.name): image for image in images}
    boxes: dict[Path, Any] = {}
    for key, value in table.items():
        image = by_name.get(_seen(key)) or by_name.get(_seen(re.split(r"[/\\]", key)[-1]))
        if image is None:
            raise InputError(
                f"{path} has boxes for {key!r}, which is not among the images.",
                fix="use file names as keys, and name every image on the command line",
            )
        if image in boxes:
            raise InputError(
                f"{path} has boxes for {image.name!r} twice.",
                why="folders in its keys are not looked at",
                fix="call glnet-infer once for each folder",
            )
        boxes[image] = value
    return {image: boxes.get(image, []) for image in images}


def _seen(name: str) -> str:
    return unicodedata.normalize("NFC", name)
