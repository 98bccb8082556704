"""A long video in chunks: where they begin, and what was seen in each, as a file.

Following persons needs order, seeing them does not. So chunks are followed each by itself, in any order, and everything
that the detector and the network said is kept. Afterwards the whole video is followed once more, by what was kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.archives import ArraySpec, read_archive, storable
from glnet_infer.errors import InputError
from glnet_infer.jobs.items import Cut
from glnet_infer.results.formats import write_npz
from glnet_infer.results.meshes import Meshes
from glnet_infer.skeleton import BODY_JOINTS, SKELETON_JOINTS
from glnet_infer.video.following import is_due
from glnet_infer.video.observing import Observes, Seen
from glnet_infer.video.sources import Source, VideoFrame, Window

VERSION = 1

OF_PERSONS: dict[str, ArraySpec] = {
    "keypoints_2d": ArraySpec(("P", "K", 2), "float32"),
    "joints": ArraySpec(("P", SKELETON_JOINTS, 3), "float32"),
    "rotations": ArraySpec(("P", BODY_JOINTS, 3, 3), "float32"),
    "betas": ArraySpec(("P", 10), "float32"),
    "translation": ArraySpec(("P", 3), "float32"),
    "confidence": ArraySpec(("P",), "float32"),
    "reference_points": ArraySpec(("P", 2), "float32"),
    "boxes": ArraySpec(("P", 4), "float64"),
}
"""Arrays of :class:`Meshes` that are kept of each person. Of the vertices the nearest one is, which tells who reaches
behind the camera."""

_SPECS: dict[str, ArraySpec] = {
    "version": ArraySpec((), "int64"),
    "frame_numbers": ArraySpec(("F",), "int64"),
    "frame_times": ArraySpec(("F",), "float64"),
    "found_in": ArraySpec(("D",), "int64"),
    "found_counts": ArraySpec(("D",), "int64"),
    "found_boxes": ArraySpec(("B", 4), "float64"),
    "found_scores": ArraySpec(("B",), "float32"),
    "found_looks": ArraySpec(("B", 64), "float64"),
    "person_frames": ArraySpec(("P",), "int64"),
    "asked_boxes": ArraySpec(("P", 4), "float64"),
    "nearest": ArraySpec(("P", 1, 3), "float32"),
    **OF_PERSONS,
    "skipped": ArraySpec((), "int64"),
    "ended_early": ArraySpec((), "str"),
    "backend": ArraySpec((), "str"),
}

_LARGEST = 2 << 30
"""Bytes of a chunk's arrays: a million persons."""


def cuts(moments: Sequence[tuple[float, bool]], window: Window, detect_every: float, least: int) -> list[Cut]:
    """Where chunks of a video begin: where persons would be looked for anyhow, just behind a key frame.

    Args:
        moments: When each frame is shown, and whether it is a key frame.
        window: Which frames are taken.
        detect_every: Seconds from one detection to the next.
        least: Least number of frames of a chunk.

    Returns:
        The chunks; the first begins with the first frame. None where no frame is taken.
    """
    inside = [
        (time, key)
        for time, key in moments
        if time >= (window.start or -np.inf) and (window.end is None or time < window.end)
    ]
    places: list[int] = []
    in_chunk = in_group = 0
    detected = -np.inf
    fresh = False  # whether a key frame came since the last detection
    for place, (time, key) in enumerate(inside):
        fresh |= key
        if place % window.every:
            continue
        if not places or is_due(time - detected, in_group, detect_every):
            if not places or (fresh and in_chunk >= least):
                places.append(place)
                in_chunk = 0
            detected, in_group, fresh = time, 0, False
        in_chunk += 1
        in_group += 1
    return [Cut(inside[first][0], last - first) for first, last in pairwise([*places, len(inside)])]


def windows(chunks: Sequence[Cut], window: Window) -> list[Window]:
    """The window of each chunk. It holds the next one's first frame, too: what is before lies on the way there."""
    firsts: list[float | None] = [window.start, *(cut.start for cut in chunks[1:])]
    ends = [float(np.nextafter(cut.start, np.inf)) for cut in chunks[1:]]
    return [Window(first, end, window.every) for first, end in zip(firsts, [*ends, window.end], strict=True)]


class Recorder:
    """Sees by another observer, and keeps what it said.

    Args:
        observer: What sees.
    """

    def __init__(self, observer: Observes) -> None:
        self._observer = observer
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._found: list[tuple[int, Seen]] = []
        self._persons: list[tuple[int, NDArray[np.float64], Meshes]] = []

    def passing(self, source: Iterable[VideoFrame]) -> Iterable[VideoFrame]:
        """A source's frames, which are counted as they pass."""
        for frame in source:
            self._numbers.append(frame.index)
            self._times.append(frame.time)
            yield frame

    def find(self, frame: VideoFrame) -> Seen:
        """See :class:`Observes`."""
        seen = self._observer.find(frame)
        self._found.append((frame.index, seen))
        return seen

    def recover(self, frames: Sequence[VideoFrame], boxes: Sequence[NDArray[np.float64]]) -> list[Meshes]:
        """See :class:`Observes`."""
        results = self._observer.recover(frames, boxes)
        for frame, asked, meshes in zip(frames, boxes, results, strict=True):
            if len(meshes):
                self._persons.append((frame.index, asked, _lean(meshes)))
        return results

    def save(self, path: Path, source: Source | None) -> None:
        """Write all that was kept, whole or not at all.

        Args:
            path: The file.
            source: Where the frames came from; None where it could not be opened.

        Raises:
            OutputError: The file cannot be written.
        """
        seen = [each for _, each in self._found]
        meshes = [each for _, _, each in self._persons]
        counts = [len(each) for each in meshes]

        def column(name: str) -> NDArray[Any]:
            spec = OF_PERSONS[name]
            empty = np.zeros((0, *(0 if isinstance(n, str) else n for n in (spec.shape or ())[1:])), spec.dtype)
            return np.concatenate([getattr(each, name) for each in meshes]) if meshes else empty

        write_npz(
            path,
            {
                "version": np.asarray(VERSION, np.int64),
                "frame_numbers": np.asarray(self._numbers, np.int64),
                "frame_times": np.asarray(self._times, np.float64),
                "found_in": np.asarray([number for number, _ in self._found], np.int64),
                "found_counts": np.asarray([len(each.boxes) for each in seen], np.int64),
                "found_boxes": np.concatenate([np.zeros((0, 4)), *(each.boxes for each in seen)]),
                "found_scores": np.concatenate([np.zeros(0, np.float32), *(each.scores for each in seen)]),
                "found_looks": np.concatenate([np.zeros((0, 64)), *(each.looks for each in seen)]),
                "person_frames": np.repeat(np.asarray([number for number, _, _ in self._persons], np.int64), counts),
                "asked_boxes": np.concatenate([np.zeros((0, 4)), *(asked for _, asked, _ in self._persons)]),
                "nearest": np.concatenate([np.zeros((0, 1, 3), np.float32), *(each.vertices for each in meshes)]),
                **{name: column(name) for name in OF_PERSONS},
                "skipped": np.asarray(0 if source is None else source.skipped, np.int64),
                "ended_early": np.asarray(storable("" if source is None else source.ended_early)),
                "backend": np.asarray(storable(meshes[0].backend if meshes else "")),
            },
        )


def read_recording(path: Path) -> dict[str, NDArray[Any]]:
    """What :meth:`Recorder.save` wrote, as arrays.

    Raises:
        InputError: The file is missing or damaged.
    """
    what, fix = f"{path} is not what was seen in a chunk of a video.", f"delete {path.parent}, and run it again"
    arrays = read_archive(path, _SPECS, InputError, what=what, fix=fix, limit=_LARGEST)
    counts, numbers, times = arrays["found_counts"], arrays["frame_numbers"], arrays["frame_times"]
    for wrong, why in (
        (int(arrays["version"]) != VERSION, "it is of another version"),
        ((counts < 0).any() or counts.sum() != len(arrays["found_boxes"]), "its counts do not fit its boxes"),
        (any(a >= b for column in (numbers, times) for a, b in pairwise(column.tolist())), "its frames are out of order"),
    ):
        if wrong:
            raise InputError(what, why=why, fix=fix)
    return arrays


def _lean(meshes: Meshes) -> Meshes:
    """The persons without their vertices but one, the nearest to the camera's plane: it is behind where any is."""
    nearest = meshes.vertices[..., 2].argmin(axis=1)
    return replace(meshes, vertices=meshes.vertices[np.arange(len(meshes)), nearest][:, None], device=None)
