"""Photographs in, result files out: what ``glnet-infer`` does once its command line is parsed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glnet_infer.camera import Intrinsics
from glnet_infer.commands.console import behind_camera, print_json, print_result, report, say, talk
from glnet_infer.commands.opening import opened
from glnet_infer.commands.photograph_inputs import OVERLAY_SUFFIX, find_photographs, in_words, read_boxes
from glnet_infer.commands.typed import PHOTOGRAPH_FORMATS, check_formats, check_no_detector, numbers
from glnet_infer.detection import DEFAULT_DETECTOR, DEFAULT_THRESHOLD, Detector, find_persons, open_detector
from glnet_infer.errors import GlnetError, InputError
from glnet_infer.image_files import read_picture, write_image
from glnet_infer.persons import Persons
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes

DEFAULT_FORMATS = ("overlay", "glb", "npz")
MOST_PIXELS = 100_000_000
"""Pixels of photographs that wait for one batch; three bytes each."""


@dataclass(frozen=True)
class Job:
    """Checked work for :func:`run`.

    Attributes:
        images: Files, each with a name of its own.
        left_out: What else was in the folders.
        output: Directory for results.
        boxes: Boxes by image; None where the detector finds them.
        detector: Name or file of the detector; None where all boxes are given.
        threshold: Least score of what counts as a person.
        most: Most persons of an image that are taken from the detector; None: all.
        intrinsics: The camera of all images, if known.
        formats: Which files to write.
    """

    images: list[Path]
    left_out: list[Path]
    output: Path
    boxes: dict[Path, Any]
    detector: str | None
    threshold: float
    most: int | None
    intrinsics: Intrinsics | None
    formats: list[str]

    @classmethod
    def parse(
        cls,
        *,
        images: list[Path],
        output: Path,
        boxes: list[str],
        boxes_file: Path | None,
        detector: str | None,
        threshold: float | None,
        most: int | None,
        intrinsics: Intrinsics | None,
        formats: list[str],
    ) -> Job:
        """Check what was typed.

        Raises:
            InputError: Something was mistyped, or does not fit together.
        """
        formats = check_formats(formats, PHOTOGRAPH_FORMATS, DEFAULT_FORMATS)
        _check_detection(
            given="--boxes" if boxes else "--boxes-file" if boxes_file is not None else "",
            wanted={"--detector": detector, "--detector-threshold": threshold, "--max-persons": most},
        )
        files, left_out = find_photographs(images)
        by_image: dict[Path, Any]
        if boxes_file is not None:
            if boxes:
                raise InputError("Both --boxes and --boxes-file were given.", fix="give one of them")
            by_image = read_boxes(boxes_file, files)
        elif boxes:
            if len(files) > 1:
                raise InputError(
                    f"--boxes was given for {len(files)} images.",
                    why="every image has its own persons",
                    fix="use --boxes-file, or call glnet-infer once per image",
                )
            by_image = {files[0]: [numbers(text, "box", "x1,y1,x2,y2") for text in boxes]}
        else:
            by_image = dict.fromkeys(files)
        if None in by_image.values():
            detector = detector or DEFAULT_DETECTOR
        threshold = DEFAULT_THRESHOLD if threshold is None else threshold
        return cls(files, left_out, output, by_image, detector, threshold, most, intrinsics, formats)


def run(job: Job, bundle: Path, *, backend: str, threads: int | None, as_json: bool) -> GlnetError | None:
    """Do the work, image by image; files written are listed on stdout, or all in one JSON document.

    Returns:
        The first image's failure, if any failed; the others were done.

    Raises:
        GlnetError: Nothing could be started.
    """
    detector = None if job.detector is None else open_detector(job.detector, threshold=job.threshold, threads=threads)
    with opened(bundle, job.output, backend=backend, threads=threads) as recoverer:
        if job.left_out:
            say(f"Left out, as no images that are read, {in_words(job.left_out)}", style="yellow")
        work = _Work(recoverer, detector, job, as_json)
        for path in _with_progress(job.images):
            work.add(path)
        work.finish()
        if as_json:
            document = {"bundle": str(bundle), "backend": recoverer.backend, "detector": job.detector}
            print_json({**document, "left_out": list(map(str, job.left_out)), "images": work.entries})
    return work.failure


def _with_progress(images: list[Path]) -> Iterator[Path]:
    """The images, with a progress bar on a terminal; where results are listed on the same terminal they are progress."""
    if not talk.is_terminal or (sys.stdout is not None and sys.stdout.isatty()):
        yield from images
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk) as progress:
        yield from progress.track(images, description="recovering")


@dataclass
class _Photograph:
    """One that was read and waits for the network; its results go into ``entry``, file by file."""

    path: Path
    image: NDArray[np.uint8]
    persons: Persons
    scores: list[float] | None
    entry: dict[str, Any]


class _Work:
    """Photographs one after the other, their crops run in batches across them. A failure is one photograph's alone.

    Attributes:
        entries: The results of each photograph, or its error, as ``--json`` prints them.
    """

    def __init__(self, recoverer: MeshRecoverer, detector: Detector | None, job: Job, as_json: bool) -> None:
        self.entries: list[dict[str, Any]] = []
        self._failures: dict[Path, GlnetError] = {}
        self._recoverer = recoverer
        self._detector = detector
        self._job = job
        self._as_json = as_json
        self._waiting: list[_Photograph] = []

    def add(self, path: Path) -> None:
        """Read a photograph and find its persons; run those that wait where it does not fit beside them."""
        entry: dict[str, Any] = {"image": str(path), "warnings": []}
        self.entries.append(entry)
        with self._reported(path, entry):
            boxes: ArrayLike | None = self._job.boxes[path]
            scores = None
            picture = read_picture(path, listening=True)
            image = picture.image
            self._warn(path, entry, *picture.notes)
            if boxes is None and self._detector is not None:
                found = find_persons(self._detector, image).best(self._job.most)
                boxes, scores = found.boxes, found.scores.tolist()
                if not len(found):
                    say(f"{path}: nobody was found; a lower --detector-threshold finds more")
            elif boxes == []:
                say(f"{path}: no boxes, so no persons")
            persons = self._recoverer.prepare(image, boxes, self._job.intrinsics)
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

    @property
    def failure(self) -> GlnetError | None:
        """The failure of the first photograph that failed, in their order."""
        return next((self._failures[path] for path in self._job.images if path in self._failures), None)

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
            for name in self._job.formats:
                entry["files"].append(str(_write(meshes, photograph.image, self._job.output, path.stem, name)))
        finally:
            if not self._as_json:  # when all are written: a reader who has read enough costs none of them
                for file in entry["files"]:
                    print_result(file)

    @contextmanager
    def _reported(self, path: Path, entry: dict[str, Any]) -> Iterator[None]:
        """A photograph's failure is said and kept, and the work goes on."""
        try:
            yield
        except BrokenPipeError:
            raise  # nobody reads the results any more
        except Exception as error:
            self._failures[path] = report(str(path), error, entry)

    @staticmethod
    def _warn(path: Path, entry: dict[str, Any], *notes: str) -> None:
        """Say what is to be known of a photograph, and keep it."""
        for note in notes:
            say(f"{path}: {note}", style="yellow")
        entry["warnings"] += notes


def _write(meshes: Meshes, image: NDArray[np.uint8], folder: Path, stem: str, name: str) -> Path:
    if name != "overlay":
        return meshes.save(folder / f"{stem}.{name}")
    path = folder / f"{stem}{OVERLAY_SUFFIX}"
    write_image(path, meshes.overlay(image))
    return path


def _check_detection(*, given: str, wanted: dict[str, Any]) -> None:
    """Refuse options of the detector where no detector finds anything.

    Args:
        given: The option that gives the boxes; empty where none does.
        wanted: The detector's options; None where one was not typed.
    """
    typed = [option for option, value in wanted.items() if value is not None]
    if given and typed:
        raise InputError(f"Both {given} and {typed[0]} were given.", why="boxes need no detector", fix="give one of them")
    check_no_detector(wanted)
