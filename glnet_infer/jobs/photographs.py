"""Photographs in, result files out: the work itself, in the process of a command or in a Ray actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.camera import Intrinsics, behind_camera
from glnet_infer.detection import Detector, find_persons
from glnet_infer.errors import GlnetError
from glnet_infer.image_files import read_picture, write_image
from glnet_infer.persons import Persons
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes

OVERLAY_SUFFIX = ".overlay.jpg"
MOST_PIXELS = 100_000_000
"""Pixels of photographs that wait for one batch; three bytes each."""


class Told(Protocol):
    """Who is told what happens: people at a terminal, or the driver of many actors."""

    def say(self, text: str, style: str = "") -> None:
        """A message to people."""

    def failed(self, name: str, error: Exception, entry: dict[str, Any]) -> GlnetError:
        """One of several inputs failed: keep that in its entry, and give the error as one of this library's."""

    def written(self, files: Sequence[str]) -> None:
        """The files of a photograph are written."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of photographs.

    Attributes:
        output: Directory for results.
        formats: Which files to write.
        most: Most persons of an image that are taken from the detector; None: all.
        intrinsics: The camera of all images, if known.
    """

    output: Path
    formats: Sequence[str]
    most: int | None
    intrinsics: Intrinsics | None


def file_of(photograph: Path, output: Path, name: str) -> Path:
    """Where a photograph's result of a format is written."""
    return output / f"{photograph.stem}{OVERLAY_SUFFIX if name == 'overlay' else f'.{name}'}"


@dataclass
class _Photograph:
    """One that was read and waits for the network; its results go into ``entry``, file by file."""

    path: Path
    image: NDArray[np.uint8]
    persons: Persons
    scores: list[float] | None
    entry: dict[str, Any]


class PhotographWork:
    """Photographs one after the other, their crops run in batches across them. A failure is one photograph's alone.

    Args:
        recoverer: What recovers persons.
        detector: What finds persons where boxes are not given; None: one person fills such an image.
        wanted: What is wanted.
        told: Who is told what happens.

    Attributes:
        entries: The results of each photograph, or its error, as ``--json`` prints them.
        failures: The errors, by photograph.
    """

    def __init__(self, recoverer: MeshRecoverer, detector: Detector | None, wanted: Wanted, told: Told) -> None:
        self.entries: list[dict[str, Any]] = []
        self.failures: dict[Path, GlnetError] = {}
        self._recoverer = recoverer
        self._detector = detector
        self._wanted = wanted
        self._told = told
        self._waiting: list[_Photograph] = []

    def add(self, path: Path, boxes: Any) -> None:
        """Read a photograph and find its persons; run those that wait where it does not fit beside them.

        Args:
            path: The photograph.
            boxes: Boxes of its persons; None where the detector finds them.
        """
        entry: dict[str, Any] = {"image": str(path), "warnings": []}
        self.entries.append(entry)
        with self._reported(path, entry):
            given: ArrayLike | None = boxes
            scores = None
            picture = read_picture(path, listening=True)
            image = picture.image
            self._warn(path, entry, *picture.notes)
            if given is None and self._detector is not None:
                found = find_persons(self._detector, image).best(self._wanted.most)
                given, scores = found.boxes, found.scores.tolist()
                if not len(found):
                    self._told.say(f"{path}: nobody was found; a lower --detector-threshold finds more")
            elif boxes == []:
                self._told.say(f"{path}: no boxes, so no persons")
            persons = self._recoverer.prepare(image, given, self._wanted.intrinsics)
            photograph = _Photograph(path, image, persons, scores, entry)
            if not self._fits(photograph):
                self.finish()
            self._waiting.append(photograph)

    def finish(self) -> None:
        """Run what waits, and write its files."""
        waiting, self._waiting = self._waiting, []
        try:
            results = self._recoverer.recover([photograph.persons for photograph in waiting])
        except Exception as error:  # a mistake of ours is one photograph's alone, too
            if len(waiting) > 1:  # whose fault it is shows when each is run alone
                for photograph in waiting:
                    self._waiting = [photograph]
                    self.finish()
            else:
                with self._reported(waiting[0].path, waiting[0].entry):
                    raise error
            return
        for photograph, meshes in zip(waiting, results, strict=True):
            with self._reported(photograph.path, photograph.entry):
                self._write_files(photograph, meshes)

    def _fits(self, photograph: _Photograph) -> bool:
        together = [*self._waiting, photograph]
        pixels = sum(each.image.shape[0] * each.image.shape[1] for each in together)
        return pixels <= MOST_PIXELS and self._recoverer.fits([each.persons for each in together])

    def _write_files(self, photograph: _Photograph, meshes: Meshes) -> None:
        entry, path = photograph.entry, photograph.path
        self._warn(path, entry, *behind_camera(int(meshes.behind_camera.sum()), len(meshes)))
        entry.update(persons=len(meshes), boxes=meshes.boxes.tolist(), scores=photograph.scores)
        entry.update(confidence=meshes.confidence.tolist(), files=[])
        try:
            for name in self._wanted.formats:
                file = file_of(path, self._wanted.output, name)
                if name == "overlay":
                    write_image(file, meshes.overlay(photograph.image))
                else:
                    meshes.save(file)
                entry["files"].append(str(file))
        finally:
            self._told.written(entry["files"])  # when all are: a reader who has read enough costs none of them

    @contextmanager
    def _reported(self, path: Path, entry: dict[str, Any]) -> Iterator[None]:
        """A photograph's failure is said and kept, and the work goes on."""
        try:
            yield
        except BrokenPipeError:
            raise  # nobody reads the results any more
        except Exception as error:
            self.failures[path] = self._told.failed(str(path), error, entry)

    def _warn(self, path: Path, entry: dict[str, Any], *notes: str) -> None:
        """Say what is to be known of a photograph, and keep it."""
        for note in notes:
            self._told.say(f"{path}: {note}", style="yellow")
        entry["warnings"] += notes
