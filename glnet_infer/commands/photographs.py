"""Photographs in, result files out: what ``glnet-infer`` does once its command line is parsed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glnet_infer.camera import Intrinsics
from glnet_infer.commands.console import print_json, print_result, report, say, talk
from glnet_infer.commands.opening import opened
from glnet_infer.commands.photograph_inputs import find_photographs, in_words, read_boxes
from glnet_infer.commands.typed import PHOTOGRAPH_FORMATS, check_formats, check_no_detector, numbers
from glnet_infer.detection import DEFAULT_DETECTOR, DEFAULT_THRESHOLD, open_detector
from glnet_infer.devices import cores
from glnet_infer.errors import GlnetError, InputError
from glnet_infer.jobs.photographs import PhotographWork, Wanted

DEFAULT_FORMATS = ("overlay", "glb", "npz")


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
        wanted = Wanted(job.output, job.formats, job.most, job.intrinsics)
        with PhotographWork(recoverer, detector, wanted, _AtTheTerminal(as_json), threads or cores()) as work:
            for path in _with_progress(job.images):
                work.add(path, job.boxes[path])
            work.finish()
        if as_json:
            document = {"bundle": str(bundle), "backend": recoverer.backend, "detector": job.detector}
            print_json({**document, "left_out": list(map(str, job.left_out)), "images": work.entries})
    return next((work.failures[path] for path in job.images if path in work.failures), None)


def shows_progress() -> bool:
    """Whether a bar is shown: on a terminal. Where results are listed on the same terminal they are progress."""
    return talk.is_terminal and not (sys.stdout is not None and sys.stdout.isatty())


def _with_progress(images: list[Path]) -> Iterator[Path]:
    """The images, with a progress bar where one is shown."""
    if not shows_progress():
        yield from images
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk) as progress:
        yield from progress.track(images, description="recovering")


class _AtTheTerminal:
    """Tells people on stderr what happens, and lists files on stdout."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.say, self.failed = say, report

    def written(self, files: Sequence[str]) -> None:
        """List them, where no document does."""
        if not self._as_json:
            for file in files:
                print_result(file)


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
