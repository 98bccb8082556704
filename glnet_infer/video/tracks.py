"""Tracks: which box of a frame is which person of the frames before.

Two stages by overlap, as in ByteTrack (Zhang et al., ECCV 2022): sure boxes first, unsure ones for who is left. A third
stage finds persons again who were hidden for a moment. Velocities are pixels per second and times are the frames' own, so
any frame rate will do, and one that changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NOBODY = -1
"""The number of a box that belongs to no track."""


@dataclass(eq=False)
class _Track:
    """A person, as an alpha-beta filter expects them; sizes follow slowly, for two persons are often found as one.

    Attributes:
        number: The track's number.
        middle: x, y in pixels.
        size: Width and height in pixels.
        time: When the person was seen last, seconds.
        looks: H, the person's colours; None where they are not known.
        velocity: Pixels per second.
        boxes: How many boxes there were.
    """

    number: int
    middle: NDArray[np.float64]
    size: NDArray[np.float64]
    time: float
    looks: NDArray[np.float64] | None = None
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    boxes: int = 1

    def expected(self, time: float) -> NDArray[np.float64]:
        """The box at a later time. A person who is hidden stays near the place where they were seen last."""
        middle = self.middle + self.velocity * min(time - self.time, _COASTING)
        return np.concatenate([middle - self.size / 2, middle + self.size / 2])

    def take(self, box: NDArray[np.float64], time: float, looks: NDArray[np.float64] | None = None) -> None:
        """Take a box as this person's."""
        if looks is not None:
            self.looks = looks if self.looks is None else (1 - _LOOKS) * self.looks + _LOOKS * looks
        elapsed = time - self.time
        middle, size = _middle(box), _size(box)
        missed = middle - self.middle - self.velocity * elapsed
        if self.boxes == 1:
            self.middle, self.velocity = middle, missed / elapsed if elapsed > 0 else self.velocity
        else:
            self.middle = middle - (1 - _POSITION) * missed
            self.velocity = self.velocity + (_SPEED * missed / elapsed if elapsed > 0 else 0.0)
        self.size = self.size + _SIZE * (size - self.size)
        self.time, self.boxes = time, self.boxes + 1


_POSITION, _SPEED, _SIZE, _LOOKS = 0.7, 0.3, 0.3, 0.1
"""Shares of what a box says that the filter believes."""


@dataclass
class _Frame:
    """The boxes of a frame, and the tracks that they are given."""

    boxes: NDArray[np.float64]
    time: float
    looks: NDArray[np.float64] | None

    def __post_init__(self) -> None:
        self.numbers = np.full(len(self.boxes), NOBODY, np.int64)

    def looks_of(self, index: int) -> NDArray[np.float64] | None:
        """The colours of a box, where they are known."""
        return None if self.looks is None else self.looks[index]

    def resemblance(self, tracks: list[_Track], chosen: list[int]) -> NDArray[np.float64] | float:
        """How much tracks and boxes look alike, 0 to 1 (Bhattacharyya's coefficient, squared); 1 where nobody knows."""
        if self.looks is None:
            return 1.0
        mine = self.looks[chosen]
        rows = [np.ones(len(chosen)) if track.looks is None else np.sqrt(mine * track.looks).sum(1) for track in tracks]
        return np.stack(rows) ** 2

    def apart(self, chosen: NDArray[np.bool_]) -> list[int]:
        """Those without a track that are no part of somebody who has one, or of each other: the larger of these."""
        taken = np.flatnonzero(self.numbers != NOBODY).tolist()
        apart: list[int] = []
        areas = _size(self.boxes).prod(axis=1)
        for index in sorted(self.unmatched(chosen), key=lambda index: -areas[index]):
            others = [*taken, *apart]
            shared = _shared(self.boxes[[index]], self.boxes[others])[0]
            if (shared < _PART * np.minimum(areas[index], areas[others])).all():
                apart.append(index)
        return sorted(apart)

    def unmatched(self, chosen: NDArray[np.bool_]) -> list[int]:
        """Those of the chosen boxes that have no track yet."""
        return [int(index) for index in np.flatnonzero(chosen & (self.numbers == NOBODY))]


_PART = 0.6
"""Share of a box that lies in another, from which both may be of one person."""

_COASTING = 0.5
"""Seconds for which a hidden person is expected to walk on."""


class Tracker:
    """Gives every person a number that stays.

    Args:
        sure: Least score of a box that is matched first.
        unsure: Least score of a box that is matched at all.
        new: Least score of a box that begins a track.
        overlap: Least likeness of a sure box and the one that is expected: intersection over union, times the ratio of
            their heights. Who passes behind another is not taken for the one in front.
        unsure_overlap: The same of an unsure box. Those are often parts of a person, which would spoil the track's box.
        patience: Seconds for which a track waits for a person who is hidden; twice the time from one call of :meth:`update`
            to the next where this is longer.
    """

    def __init__(
        self,
        *,
        sure: float = 0.5,
        unsure: float = 0.1,
        new: float = 0.5,
        overlap: float = 0.2,
        unsure_overlap: float = 0.4,
        patience: float = 1.5,
    ) -> None:
        self.sure, self.unsure, self.new, self.patience = sure, unsure, new, patience
        self.overlap, self.unsure_overlap = overlap, unsure_overlap
        self._tracks: list[_Track] = []
        self._before, self._interval = -math.inf, math.inf
        self._last = 0

    def update(
        self, boxes: NDArray[Any], scores: NDArray[Any], time: float, looks: NDArray[Any] | None = None
    ) -> NDArray[np.int64]:
        """The track of each box of a frame.

        Args:
            boxes: N x 4, x1, y1, x2, y2 in pixels.
            scores: N, 0 to 1.
            time: Seconds, growing.
            looks: N x H, what :func:`colours` says of the boxes; None where overlap shall decide alone.

        Returns:
            N track numbers from 1 on, each at most once; :data:`NOBODY` for a box too unsure to begin a track.
        """
        interval, self._interval = self._interval, time - self._before
        self._before = time
        usual = min(interval, self._interval)  # a source that hung for a while is not slow
        patience = max(self.patience, 2 * usual) if math.isfinite(usual) else self.patience
        self._tracks = [track for track in self._tracks if time - track.time <= patience]
        frame = _Frame(np.asarray(boxes, np.float64).reshape(-1, 4), time, looks)
        trust = np.asarray(scores, np.float64).ravel()
        free = list(self._tracks)
        self._match(free, frame, frame.unmatched(trust >= self.sure), self.overlap)
        unsure = (trust < self.sure) & (trust >= self.unsure)
        self._match(free, frame, frame.unmatched(unsure), self.unsure_overlap)
        self._find_again([track for track in free if track.time < time], frame, frame.apart(trust >= self.new))
        for index in frame.apart(trust >= self.new):
            self._last += 1
            box = frame.boxes[index]
            self._tracks.append(_Track(self._last, _middle(box), _size(box), time, frame.looks_of(index)))
            frame.numbers[index] = self._last
        return frame.numbers

    def expected(self, number: int, time: float) -> NDArray[np.float64] | None:
        """The box at which a track's person is expected, x1, y1, x2, y2 in pixels; None where the track has ended."""
        return next((track.expected(time) for track in self._tracks if track.number == number), None)

    def place(self, number: int, box: NDArray[Any], time: float) -> None:
        """Tell where a track's person is, where something else than a detection says so.

        Args:
            number: The track; one that has ended stays so.
            box: x1, y1, x2, y2 in pixels.
            time: Seconds, growing.
        """
        for track in self._tracks:
            if track.number == number:
                track.take(np.asarray(box, np.float64), time)

    def _match(self, free: list[_Track], frame: _Frame, chosen: list[int], least: float) -> None:
        """Match by overlap and height; who is matched leaves ``free``."""
        if free and len(chosen):
            expected, found = np.array([track.expected(frame.time) for track in free]), frame.boxes[chosen]
            heights = [np.maximum(_size(boxes)[:, 1], 1.0) for boxes in (expected, found)]
            ratios = heights[0][:, None] / heights[1][None]
            likeness = intersection_over_union(expected, found) * np.minimum(ratios, 1 / ratios)
            likeness *= frame.resemblance(free, chosen)
            _take_best(free, likeness, least, frame, chosen)

    def _find_again(self, hidden: list[_Track], frame: _Frame, chosen: list[int]) -> None:
        """Match who was hidden by distance: within half a body's size, and one more for each second that passed."""
        if not hidden or not len(chosen):
            return
        expected, found = np.array([track.expected(frame.time) for track in hidden]), frame.boxes[chosen]
        sizes = [np.linalg.norm(_size(boxes), axis=1) for boxes in (expected, found)]
        middles = [_middle(boxes) for boxes in (expected, found)]
        distances = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=-1) / sizes[0][:, None]
        ratios = np.maximum(sizes[0][:, None] / sizes[1][None], sizes[1][None] / sizes[0][:, None])
        waited = np.array([frame.time - track.time for track in hidden])[:, None]
        # One for the same place, zero at the edge of what is believed.
        _take_best(hidden, np.where(ratios < 1.6, 1 - distances / (0.5 + waited), 0), 0, frame, chosen)


def _take_best(
    tracks: list[_Track], likeness: NDArray[np.float64], least: float, frame: _Frame, chosen: Sequence[int]
) -> None:
    """Give tracks their boxes, the likest pair first; who got one leaves the list."""
    rows = list(tracks)
    while likeness.max() > least:
        row, column = np.unravel_index(int(likeness.argmax()), likeness.shape)
        track, index = rows[int(row)], chosen[int(column)]
        track.take(frame.boxes[index], frame.time, frame.looks_of(index))
        frame.numbers[index] = track.number
        tracks.remove(track)
        likeness[row], likeness[:, column] = -1, -1


def _shared(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that every box of one list shares with every one of another, N x M."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=-1))


def _middle(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middle of one box or of several, ... x 2."""
    return np.asarray((boxes[..., :2] + boxes[..., 2:]) / 2)


def _size(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width and height of one box or of several, ... x 2."""
    return np.asarray(boxes[..., 2:] - boxes[..., :2])


def intersection_over_union(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The overlap of every box of one list with every one of another: N x M, 0 to 1."""
    shared = _shared(first, second)
    areas = [_size(boxes).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))


def colours(image: NDArray[np.uint8], boxes: NDArray[Any]) -> NDArray[np.float64]:
    """How persons look: the colours of each box's middle, where the body is.

    Args:
        image: H x W x 3 uint8, BGR.
        boxes: N x 4, x1, y1, x2, y2 in pixels.

    Returns:
        N x 64, each row a histogram in L*a*b*, which sums to 1.
    """
    height, width = image.shape[:2]
    result = np.full((len(boxes), 64), 1 / 64)
    for row, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, np.float64)):
        left, right = x1 + 0.3 * (x2 - x1), x2 - 0.3 * (x2 - x1)
        top, bottom = y1 + 0.15 * (y2 - y1), y1 + 0.6 * (y2 - y1)
        part = image[max(int(top), 0) : min(int(bottom) + 1, height), max(int(left), 0) : min(int(right) + 1, width)]
        if part.size:
            small = cv2.cvtColor(cv2.resize(part, (16, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2Lab)
            counts = cv2.calcHist([small], [0, 1, 2], None, [4, 4, 4], [0, 256, 64, 192, 64, 192]).ravel() + 0.5
            result[row] = counts / counts.sum()
    return result
