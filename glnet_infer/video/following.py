"""Persons followed through frames: found every few frames, recovered in all of them.

Recordings are read ahead to the next frame in which persons are looked for. So boxes in between lie on the way from one
detection to the next, and the crops of these frames are run together. Live sources have no next frame: their boxes follow
the keypoints. Either way, whoever the detector loses is followed by their keypoints for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glnet_infer.camera import Intrinsics
from glnet_infer.detection import DEFAULT_THRESHOLD
from glnet_infer.errors import InputError
from glnet_infer.numbers import is_number
from glnet_infer.results.meshes import Meshes
from glnet_infer.video.observing import Observes
from glnet_infer.video.sources import VideoFrame
from glnet_infer.video.tracks import NOBODY, Tracker, intersection_over_union

DETECT_EVERY = 0.15
"""Seconds. Who walks moves by a tenth of their height meanwhile: boxes in between hardly differ from detected ones."""

CONFIDENCE = 0.3
"""Confidence below which a frame of a person is doubted. The demo network gives rendered persons 0.6 and more."""

UNSURE = 0.1
"""Least score of a detection that may keep a track, though it begins none."""

_ALONE = 1.0
"""Seconds for which a person is followed by keypoints without a detection."""

_SAME_PERSON = 0.5
"""Overlap from which a followed box and a detected one are of one person, or of one who hides the other."""

_SAME_POSE = 0.1
"""Share of a person's extent: keypoints that are nearer than this on the whole are of one person."""

_MARGIN = 0.5
"""Share of the keypoints' extent: no box reaches farther beyond them. A detection of another person would."""

_MOST_AHEAD = 8
"""Frames that are read ahead at most, which bounds memory where there are hundreds a second."""


@dataclass(frozen=True, eq=False)
class FollowedFrame:
    """A frame and its persons, in the order of their tracks.

    Attributes:
        index: Number of the frame in its source.
        time: Seconds since the source's start.
        image: H x W x 3 uint8, BGR.
        tracks: N numbers from 1 on, growing; a person keeps theirs.
        scores: N float32, the detector's trust, 0 to 1; 0 where the box follows the keypoints, or the person's way.
        doubted: N bool: the network's confidence is below the threshold.
        meshes: The N persons; smoothed where that was asked for.
        raw: The same persons as they were recovered.
    """

    index: int
    time: float
    image: NDArray[np.uint8]
    tracks: NDArray[np.int64]
    scores: NDArray[np.float32]
    doubted: NDArray[np.bool_]
    meshes: Meshes
    raw: Meshes


@dataclass(frozen=True)
class FollowOptions:
    """How persons are followed.

    Attributes:
        detect_every: Seconds from one detection to the next; 0: every frame. In recordings eight frames at most, which
            bounds memory.
        score: Least score of a detection that begins a track, 0 to 1.
        most: Most persons at a time, those who are there already first; None: all.
        confidence: Confidence below which a frame of a person is doubted, 0 to 1.
        intrinsics: The camera; None: guessed from the image's size.

    Raises:
        InputError: A value cannot be.
    """

    detect_every: float = DETECT_EVERY
    score: float = DEFAULT_THRESHOLD
    most: int | None = None
    confidence: float = CONFIDENCE
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        every, most = self.detect_every, self.most
        for name, value, right, fix in (
            ("detect_every", every, is_number(every) and every >= 0, "use seconds, 0 for every frame"),
            ("score", self.score, is_number(self.score) and 0 <= self.score <= 1, "use 0 to 1"),
            ("confidence", self.confidence, is_number(self.confidence) and 0 <= self.confidence <= 1, "use 0 to 1"),
            ("most", most, most is None or (type(most) is int and most >= 1), "use 1 or more, or None for all"),
        ):
            if not right:
                raise InputError(f"{name} is {value!r:.40}.", fix=fix)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a person is in a frame.

    Attributes:
        box: x1, y1, x2, y2 in pixels.
        score: The detector's; 0 where the box follows the keypoints.
        detected: When a detector saw this person last, seconds.
    """

    box: NDArray[np.float64]
    score: float
    detected: float


@dataclass(frozen=True, eq=False)
class _Look:
    """How a person looked to the network in the last frame.

    Attributes:
        extent: Box around the keypoints, x1, y1, x2, y2 in pixels.
        margins: How far a detected box reaches beyond it, of its width and height.
        doubted: Whether the network was unsure.
    """

    extent: NDArray[np.float64]
    margins: NDArray[np.float64]
    doubted: bool

    def box(self) -> NDArray[np.float64]:
        """The box that the keypoints ask for."""
        return self.extent + self.margins * _sides(self.extent)


_Places = dict[int, _Place]
"""By track, in the order of the tracks."""


def is_due(elapsed: float, frames: int, detect_every: float) -> bool:
    """Whether persons are looked for again in a recording. It depends on times alone, not on what is seen.

    Args:
        elapsed: Seconds since the last detection.
        frames: How many frames were read since, with the one of the detection.
        detect_every: Seconds from one detection to the next.
    """
    # Times are rounded: a thousandth of a second must not cost a frame.
    return frames >= _MOST_AHEAD or elapsed >= detect_every - 1e-3


class Follower:
    """Follows the persons of one source.

    Args:
        observer: What sees persons; better also those of whom its detector is unsure, down to :data:`UNSURE`.
        options: How persons are followed.
    """

    def __init__(self, observer: Observes, options: FollowOptions | None = None) -> None:
        self._observer, self._options = observer, options or FollowOptions()
        score = self._options.score
        self._tracker = Tracker(sure=score, new=score, unsure=min(UNSURE, score))
        self._looks: dict[int, _Look] = {}
        self._looks_again = False

    def ahead(self, frames: Iterable[VideoFrame]) -> Iterator[FollowedFrame]:
        """The persons of a recording's frames, up to a detection's distance behind them.

        Raises:
            InputError: A frame cannot be used.
            BackendError: The detector or the network failed.
        """
        group: list[VideoFrame] = []
        places: _Places = {}
        for frame in frames:
            if group and not is_due(frame.time - group[0].time, len(group), self._options.detect_every):
                group.append(frame)
                continue
            found = self._found(frame)
            if group:
                yield from self._recovered(group, [self._on_the_way(places, found, group[0], at, frame) for at in group])
                found |= self._lost(places, found, frame)
                self._looks_again = False  # they were looked for in this frame
            group, places = [frame], self._chosen(found, places)
        if len(group) > 1:  # the end: where the persons of the last frame are is known, too
            found = self._found(group[-1])
            way = [self._on_the_way(places, found, group[0], at, group[-1]) for at in group]
            way[-1] = self._chosen(found | way[-1], places)
            yield from self._recovered(group, way)
        elif group:
            yield from self._recovered(group, [places])

    def live(self, frames: Iterable[VideoFrame]) -> Iterator[FollowedFrame]:
        """The persons of frames that come one by one, each at once; raises as :meth:`ahead` does."""
        detected: VideoFrame | None = None
        places: _Places = {}
        for frame in frames:
            if detected is None or self._due(frame, detected):
                found, detected = self._found(frame), frame
                found |= self._lost(places, found, frame)
                places = self._chosen(found, places)
            else:
                places = {n: self._moved(n, place, frame) for n, place in places.items() if n in self._looks}
            yield from self._recovered([frame], [places])

    def _due(self, frame: VideoFrame, detected: VideoFrame) -> bool:
        """Whether persons are looked for in a live frame: some time after the last detection, and where trust was lost."""
        return self._looks_again or is_due(frame.time - detected.time, 1, self._options.detect_every)

    def _found(self, frame: VideoFrame) -> _Places:
        """Who is detected in a frame."""
        self._looks_again = False
        found = self._observer.find(frame)
        numbers = self._tracker.update(found.boxes, found.scores, frame.time, found.looks).tolist()
        return {
            number: _Place(box, score, frame.time)
            for number, box, score in zip(numbers, found.boxes, found.scores.tolist(), strict=True)
            if number != NOBODY
        }

    def _on_the_way(
        self, places: _Places, found: _Places, start: VideoFrame, frame: VideoFrame, end: VideoFrame
    ) -> _Places:
        """Persons in a frame between two detections: on the way to where they are found again, or as they moved before."""
        share = (frame.time - start.time) / (end.time - start.time)

        def at(number: int, place: _Place) -> _Place:
            to = found.get(number)
            if to is not None:
                box, score = place.box + share * (to.box - place.box), place.score + share * (to.score - place.score)
                return replace(place, box=box, score=score)
            now, then = self._tracker.expected(number, start.time), self._tracker.expected(number, frame.time)
            moved = place.box if now is None or then is None else place.box + then - now
            return replace(place, box=moved, score=0.0)

        return {number: at(number, place) for number, place in places.items()}

    def _lost(self, before: _Places, found: _Places, frame: VideoFrame) -> _Places:
        """Who was there and was not detected: at their keypoints, for a while, where nobody else was detected."""
        boxes = _boxes(found)
        lost = {}
        for number, place in before.items():
            look = self._looks.get(number)
            if number in found or look is None or look.doubted or frame.time - place.detected > _ALONE:
                continue
            box = look.box()
            if _inside(box, frame.image) and (intersection_over_union(box[None], boxes) < _SAME_PERSON).all():
                lost[number] = self._moved(number, place, frame)
        return lost

    def _moved(self, number: int, place: _Place, frame: VideoFrame) -> _Place:
        """Where the last frame's keypoints say that a person is."""
        box = self._looks[number].box()
        self._tracker.place(number, box, frame.time)
        return replace(place, box=box, score=0.0)

    def _chosen(self, places: _Places, before: _Places) -> _Places:
        """As many as there may be: who was there before, then the surest."""
        ranked = sorted(places, key=lambda number: (number not in before, -places[number].score, number))
        return {number: places[number] for number in sorted(ranked[: self._options.most])}

    def _recovered(self, frames: list[VideoFrame], places: list[_Places]) -> Iterator[FollowedFrame]:
        """The frames with the meshes of the persons at their places, all run together."""
        places = [_in_sight(each, frame.image) for frame, each in zip(frames, places, strict=True)]
        results = self._observer.recover(frames, [_boxes(each) for each in places])
        for frame, asked, found in zip(frames, places, results, strict=True):
            each, meshes = _each_once(asked, found)
            doubted = meshes.confidence < self._options.confidence
            self._look(each, meshes, doubted)
            # What lies on the GPU is valid until the next call, which other frames make.
            meshes = replace(meshes, device=None)
            yield FollowedFrame(
                index=frame.index,
                time=frame.time,
                image=frame.image,
                tracks=np.fromiter(each, np.int64, len(each)),
                scores=np.array([place.score for place in each.values()], np.float32),
                doubted=doubted,
                meshes=meshes,
                raw=meshes,
            )

    def _look(self, places: _Places, meshes: Meshes, doubted: NDArray[np.bool_]) -> None:
        """Keep how persons look; where the network is no longer sure, they are looked for at once."""
        before, self._looks = self._looks, {}
        for row, (number, place) in enumerate(places.items()):
            known = before.get(number)
            keypoints = meshes.keypoints_2d[row].astype(np.float64)
            extent = np.concatenate([keypoints.min(axis=0), keypoints.max(axis=0)])
            margins = np.clip((place.box - extent) / _sides(extent), -_MARGIN, _MARGIN)
            if known is not None and not place.score:  # the box came from the keypoints
                margins = known.margins
            unsure = bool(doubted[row])
            self._looks[number] = _Look(extent, margins, unsure)
            self._looks_again |= unsure and not (known is not None and known.doubted)


def _each_once(places: _Places, meshes: Meshes) -> tuple[_Places, Meshes]:
    """Persons without those who follow their keypoints to where somebody else is."""
    keypoints = meshes.keypoints_2d
    spreads = np.ptp(keypoints, axis=1).max(axis=-1) if len(keypoints) else np.zeros(0)
    scores = [place.score for place in places.values()]
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda row: -scores[row]):
        distances = np.linalg.norm(keypoints[kept] - keypoints[row], axis=-1).mean(axis=-1)
        if scores[row] or (distances > _SAME_POSE * spreads[row]).all():
            kept.append(row)
    if len(kept) == len(scores):
        return places, meshes
    rows = sorted(kept)
    numbers = list(places)
    return {numbers[row]: places[numbers[row]] for row in rows}, meshes.select(rows)


def _sides(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width and height, twice; a pixel at least."""
    return np.tile(np.maximum(box[2:] - box[:2], 1.0), 2)


def _inside(box: NDArray[np.float64], image: NDArray[np.uint8]) -> bool:
    """Whether the middle of a box is in the image: who walks out of it is not followed."""
    middle, size = (box[:2] + box[2:]) / 2, image.shape[1::-1]
    return bool((middle >= 0).all() and (middle <= size).all())


def _in_sight(places: _Places, image: NDArray[np.uint8]) -> _Places:
    """Persons whose boxes reach into the image by a pixel at least; who walks out of it is gone."""
    height, width = image.shape[:2]

    def seen(box: NDArray[np.float64]) -> bool:
        low, high = np.maximum(box[:2], 0), np.minimum(box[2:], (width, height))
        return bool((high - low >= 1).all())

    return {number: place for number, place in places.items() if seen(place.box)}


def _boxes(places: _Places) -> NDArray[np.float64]:
    return np.array([place.box for place in places.values()], np.float64).reshape(-1, 4)
