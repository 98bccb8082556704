"""Photographs in, result files out: the work itself, in the process of a command or in a Ray actor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glnet_infer.camera import Intrinsics, behind_camera
from glnet_infer.detection import Detections, Detector, find_persons
from glnet_infer.errors import GlnetError
from glnet_infer.image_files import read_picture, write_image
from glnet_infer.persons import Persons
from glnet_infer.recoverer import MeshRecoverer
from glnet_infer.results.meshes import Meshes

OVERLAY_SUFFIX = ".overlay.jpg"
MOST_PIXELS = 100_000_000
"""Pixels of photographs that are held; three bytes each. One more is read before those are let go, and each writer has an
overlay of its own."""

AHEAD = 2
"""Photographs that the detector looks at before their turn: one in work, and one that is done when it is asked for."""

MOST_WRITERS = 4
"""Threads that draw and write files."""

Result = TypeVar("Result")


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
    """One that was read; its results go into ``entry``, file by file.

    Attributes:
        path: The file.
        image: H x W x 3, BGR.
        boxes: Boxes of its persons; None where the detector finds them.
        entry: Its results.
        found: What the detector finds; None where it does not look.
        scores: The detector's, once they are known.
    """

    path: Path
    image: NDArray[np.uint8]
    boxes: ArrayLike | None
    entry: dict[str, Any]
    found: Future[Detections] | None
    scores: list[float] | None = None

    @property
    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


class PhotographWork:
    """Photographs one after the other, their crops run in batches across them. A failure is one photograph's alone.

    With several threads, the detector looks at the next photographs and the files of the last batch are drawn and written
    beside the network's work. Reading, and all that is told, stays in the caller's thread.

    Use it in a ``with`` statement: leaving it waits for what is being written, tells of it, and drops the rest.

    Args:
        recoverer: What recovers persons.
        detector: What finds persons where boxes are not given; None: one person fills such an image.
        wanted: What is wanted.
        told: Who is told what happens.
        threads: 1: all is done in the caller's thread. More: the detector has one, and files have as many, up to
            :data:`MOST_WRITERS`.

    Attributes:
        entries: The results of each photograph, or its error, as ``--json`` prints them.
        failures: The errors, by photograph.
    """

    def __init__(
        self, recoverer: MeshRecoverer, detector: Detector | None, wanted: Wanted, told: Told, threads: int = 1
    ) -> None:
        self.entries: list[dict[str, Any]] = []
        self.failures: dict[Path, GlnetError] = {}
        self._recoverer = recoverer
        self._detector = detector
        self._wanted = wanted
        self._told = told
        self._looking = ThreadPoolExecutor(1, "glnet-detector") if threads > 1 else None
        self._writing = ThreadPoolExecutor(min(threads, MOST_WRITERS), "glnet-files") if threads > 1 else None
        self._looked_at: deque[_Photograph] = deque()
        self._waiting: list[tuple[_Photograph, Persons]] = []
        self._written: deque[tuple[_Photograph, Future[None]]] = deque()

    def __enter__(self) -> PhotographWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pool in (self._looking, self._writing):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        if not isinstance(error, BrokenPipeError):  # then nobody reads the results any more
            self._written = deque(each for each in self._written if not each[1].cancelled())
            self._tell_written()

    def add(self, path: Path, boxes: Any) -> None:
        """Read a photograph and let its persons be found; run those that wait where it does not fit beside them.

        Args:
            path: The photograph.
            boxes: Boxes of its persons; None where the detector finds them.
        """
        entry: dict[str, Any] = {"image": str(path), "warnings": []}
        self.entries.append(entry)
        with self._reported(path, entry):
            picture = read_picture(path, listening=True)
            self._warn(path, entry, *picture.notes)
            found = None
            if boxes is None and self._detector is not None:
                found = _begun(self._looking, partial(find_persons, self._detector, picture.image))
            self._looked_at.append(_Photograph(path, picture.image, boxes, entry, found))
        ahead = 0 if self._looking is None else AHEAD
        while self._looked_at and (len(self._looked_at) > ahead or self._pixels() > MOST_PIXELS):
            self._take()

    def finish(self) -> None:
        """Run what waits, and write all files."""
        while self._looked_at:
            self._take()
        self._run()
        self._tell_written()

    def _take(self) -> None:
        """Let the next photograph's persons wait for the network; run those before where they do not fit beside them."""
        self._tell_written(wait=False)
        photograph = self._looked_at.popleft()
        with self._reported(photograph.path, photograph.entry):
            given = photograph.boxes
            if photograph.found is not None:
                found = photograph.found.result().best(self._wanted.most)
                given, photograph.scores = found.boxes, found.scores.tolist()
                if not len(found):
                    self._told.say(f"{photograph.path}: nobody was found; a lower --detector-threshold finds more")
            elif given == []:
                self._told.say(f"{photograph.path}: no boxes, so no persons")
            persons = self._recoverer.prepare(photograph.image, given, self._wanted.intrinsics)
            if not self._recoverer.fits([*(each for _, each in self._waiting), persons]):
                self._run()
            self._waiting.append((photograph, persons))
        if self._pixels() > MOST_PIXELS:
            self._run()
            self._tell_written()

    def _run(self) -> None:
        """Run what waits, and let its files be written, once those of the batch before are."""
        waiting, self._waiting = self._waiting, []
        try:
            results = self._recoverer.recover([persons for _, persons in waiting])
        except Exception as error:  # a mistake of ours is one photograph's alone, too
            if len(waiting) > 1:  # whose fault it is shows when each is run alone
                for each in waiting:
                    self._waiting = [each]
                    self._run()
            else:
                photograph, _ = waiting[0]
                with self._reported(photograph.path, photograph.entry):
                    raise error
            return
        self._tell_written()
        for (photograph, _), meshes in zip(waiting, results, strict=True):
            path, entry = photograph.path, photograph.entry
            with self._reported(path, entry):
                self._warn(path, entry, *behind_camera(int(meshes.behind_camera.sum()), len(meshes)))
                entry.update(persons=len(meshes), boxes=meshes.boxes.tolist(), scores=photograph.scores)
                entry.update(confidence=meshes.confidence.tolist(), files=[])
                files = _begun(self._writing, partial(self._write_files, photograph, meshes))
                self._written.append((photograph, files))
        if self._writing is None:
            self._tell_written()

    def _tell_written(self, wait: bool = True) -> None:
        """Tell of the files of the last batch: of all, or in order of those that are written already."""
        while self._written and (wait or self._written[0][1].done()):
            photograph, files = self._written[0]
            wait_for([files])  # who is interrupted here tells of it on the way out
            self._written.popleft()
            with self._reported(photograph.path, photograph.entry):
                try:
                    files.result()
                finally:
                    # When all are written: a reader who has read enough costs none of them.
                    self._told.written(photograph.entry["files"])

    def _pixels(self) -> int:
        """Pixels of all photographs that are held."""
        held = [*self._looked_at, *(photograph for photograph, _ in (*self._waiting, *self._written))]
        return sum(photograph.pixels for photograph in held)

    def _write_files(self, photograph: _Photograph, meshes: Meshes) -> None:
        path = photograph.path
        for name in self._wanted.formats:
            file = file_of(path, self._wanted.output, name)
            if name == "overlay":
                write_image(file, meshes.overlay(photograph.image))
            else:
                meshes.save(file)
            photograph.entry["files"].append(str(file))

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


def _begun(pool: Executor | None, work: Callable[[], Result]) -> Future[Result]:
    """Work that was begun in a pool; without one, it is done here and now."""
    if pool is not None:
        return pool.submit(work)
    future: Future[Result] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # raised where the result is asked for
        future.set_exception(error)
    return future
