"""Numbered images as a source: a folder of them, or a pattern such as ``frame_%04d.png``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError, first_line
from glnet_infer.files import is_directory, is_file, is_there
from glnet_infer.image_files import Picture, is_image_name, read_picture
from glnet_infer.video.sources.base import RawFrame, SourceFacts, check_size

USUAL_RATE = 30.0
"""Frames per second of images that say nothing of time."""

PATTERN = re.compile(r"%(?:0(\d+))?d")


def is_pattern(spec: str) -> bool:
    """Whether a path's name has one number left open, as in ``frame_%04d.png``, and nothing is there by that very name."""
    return len(PATTERN.findall(Path(spec).name)) == 1 and not is_there(spec)


class ImageReader:
    """Frames that lie in a folder as images. Times follow their numbers, so that a missing one leaves a gap.

    Args:
        spec: Folder, or pattern in a folder.
        rate: Images per second; :data:`USUAL_RATE` where None.

    Raises:
        InputError: There are no such images, or the first cannot be read.
    """

    def __init__(self, spec: str, rate: float | None) -> None:
        self._files = _matching(Path(spec)) if is_pattern(spec) else _numbered(Path(spec))
        if not self._files:
            raise InputError(
                f"There are no numbered images in {spec}." if is_directory(spec) else f"No image fits {spec}.",
                fix="give a folder of images, or a pattern such as frame_%04d.png",
            )
        self._step = 1 / Fraction(rate or USUAL_RATE).limit_denominator(1001)
        # Opening shows what the images are; a damaged first one is no reason to refuse the others.
        first = next((picture for picture in map(self._try, range(len(self._files))) if picture is not None), None)
        if first is None:
            raise InputError(
                f"None of the {len(self._files)} images of {spec} can be read.",
                why="OpenCV decodes none of them",
                fix="convert them to PNG or JPEG",
            )
        height, width = first.image.shape[:2]
        check_size(spec, width, height)
        assumed = () if rate else (f"the rate: images have none, {USUAL_RATE:g} per second are assumed",)
        span = self._files[-1][0] - self._files[0][0] + 1
        self.facts = SourceFacts(
            spec,
            width,
            height,
            rate=float(1 / self._step),
            time_base=self._step,
            duration=float(span * self._step),
            frames=len(self._files),
            lost=assumed,
        )
        self.skipped, self.ended_early = 0, ""
        self._noted: dict[str, str] = {}  # what opening showed need not lie in the window

    def __iter__(self) -> Iterator[RawFrame]:
        first = self._files[0][0]
        for position, (number, _) in enumerate(self._files):
            yield RawFrame(number - first, float((number - first) * self._step), partial(self._image, position))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was said of the pictures so far: each kind once, after the name of the first picture."""
        return tuple(self._noted.values())

    def close(self) -> None:
        """Nothing is held open."""

    def _image(self, position: int) -> NDArray[np.uint8] | None:
        picture = self._try(position)
        if picture is None:
            return None
        for note in picture.notes:
            self._noted.setdefault(re.sub(r"\d+", "", note), f"{self._files[position][1]}: {note}")
        return picture.image

    def _try(self, position: int) -> Picture | None:
        try:
            return read_picture(self._files[position][1])
        except InputError:
            return None


def _matching(pattern: Path) -> list[tuple[int, Path]]:
    """The files that fit a pattern, by their numbers."""
    before, after = PATTERN.split(pattern.name)[::2]
    name = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    width = int(PATTERN.findall(pattern.name)[0] or 1)
    matches = ((name.fullmatch(path.name), path) for path in _listed(pattern.parent))
    found = ((match.group(1), path) for match, path in matches if match)
    return sorted((int(digits), path) for digits, path in found if digits == f"{int(digits):0{width}d}")


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The images of a folder: by the number where their names differ in nothing else, else in the order of their names."""
    paths = [path for path in _listed(folder) if is_image_name(path.name) and is_file(path)]
    split = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.name.removesuffix(path.suffix)) for path in paths]
    if all(split) and len({(match.group(1), match.group(3)) for match in split if match}) == 1:
        numbers = [int(match.group(2)) for match in split if match]
        if len(set(numbers)) == len(numbers):
            return sorted(zip(numbers, paths, strict=True))
    return list(enumerate(sorted(paths, key=lambda path: _in_words(path.name))))


def _in_words(name: str) -> list[tuple[int, str]]:
    """A key that puts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"The folder {folder} was not read.", why=error.strerror or first_line(error), fix="check the path"
        ) from error
