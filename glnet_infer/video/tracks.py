"""Tracks: which box of a frame is which person of the frames before.

Two stages by overlap, as in ByteTrack (Zhang et al., ECCV 2022): sure boxes first, unsure ones for who is left. A third
stage finds persons again who were hidden for a moment. Velocities are pixels per second and times are the frames' own, so
any frame rate will do, and one that changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOBODY = -1
"""The number of a box that belongs to no track."""


@dataclass(eq=False)
class _Track:
    number: int
    box: NDArray[np.float64]
    time: float
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    boxes: int = 1

    def expected(self, time: float) -> NDArray[np.float64]:
        """The box at a later time. A person who is hidden stays near the place where they were seen last."""
        return self.box + self.velocity * min(time - self.time, _COASTING)

    def take(self, box: NDArray[np.float64], time: float) -> None:
        elapsed = time - self.time
        if elapsed > 0:
            velocity = (box - self.box) / elapsed
            self.velocity = velocity if self.boxes == 1 else 0.7 * self.velocity + 0.3 * velocity
        self.box, self.time, self.boxes = box, time, self.boxes + 1


@dataclass
class _Frame:
    """The boxes of a frame, and the tracks that they are given."""

    boxes: NDArray[np.float64]
    time: float

    def __post_init__(self) -> None:
        self.numbers = np.full(len(self.boxes), NOBODY, np.int64)

    def unmatched(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Those of the chosen boxes that have no track yet."""
        return np.flatnonzero(chosen & (self.numbers == NOBODY))


_COASTING = 0.5
"""Seconds for which a hidden person is expected to walk on."""


class Tracker:
    """Gives every person a number that stays.

    Args:
        sure: Least score of a box that is matched first.
        unsure: Least score of a box that is matched at all.
        new: Least score of a box that begins a track.
        overlap: Least intersection over union of a box with the one that is expected.
        patience: Seconds for which a track waits for a person who is hidden.
    """

    def __init__(
        self, *, sure: float = 0.5, unsure: float = 0.1, new: float = 0.5, overlap: float = 0.2, patience: float = 1.5
    ) -> None:
        self.sure, self.unsure, self.new, self.overlap, self.patience = sure, unsure, new, overlap, patience
        self._tracks: list[_Track] = []
        self._last = 0

    def update(self, boxes: NDArray[Any], scores: NDArray[Any], time: float) -> NDArray[np.int64]:
        """The track of each box of a frame.

        Args:
            boxes: N x 4, x1, y1, x2, y2 in pixels.
            scores: N, 0 to 1.
            time: Seconds, growing.

        Returns:
            N track numbers from 1 on, each at most once; :data:`NOBODY` for a box too unsure to begin a track.
        """
        self._tracks = [track for track in self._tracks if time - track.time <= self.patience]
        frame = _Frame(np.asarray(boxes, np.float64).reshape(-1, 4), time)
        trust = np.asarray(scores, np.float64).ravel()
        free = list(self._tracks)
        for chosen in (trust >= self.sure, (trust < self.sure) & (trust >= self.unsure)):
            self._match(free, frame, frame.unmatched(chosen))
        self._find_again([track for track in free if track.time < time], frame, frame.unmatched(trust >= self.new))
        for index in frame.unmatched(trust >= self.new):
            self._last += 1
            self._tracks.append(_Track(self._last, frame.boxes[index], time))
            frame.numbers[index] = self._last
        return frame.numbers

    def _match(self, free: list[_Track], frame: _Frame, chosen: NDArray[np.intp]) -> None:
        """Match by overlap; who is matched leaves ``free``."""
        if free and len(chosen):
            expected = np.array([track.expected(frame.time) for track in free])
            _take_best(free, intersection_over_union(expected, frame.boxes[chosen]), self.overlap, frame, chosen)

    def _find_again(self, hidden: list[_Track], frame: _Frame, chosen: NDArray[np.intp]) -> None:
        """Match who was hidden by distance: within half a body's size, and one more for each second that passed."""
        if not hidden or not len(chosen):
            return
        expected, found = np.array([track.expected(frame.time) for track in hidden]), frame.boxes[chosen]
        sizes = [np.linalg.norm(each[:, 2:] - each[:, :2], axis=1) for each in (expected, found)]
        middles = [(each[:, 2:] + each[:, :2]) / 2 for each in (expected, found)]
        distances = np.linalg.norm(middles[0][:, None] - middles[1][None], axis=-1) / sizes[0][:, None]
        ratios = np.maximum(sizes[0][:, None] / sizes[1][None], sizes[1][None] / sizes[0][:, None])
        waited = np.array([frame.time - track.time for track in hidden])[:, None]
        # One for the same place, zero at the edge of what is believed.
        _take_best(hidden, np.where(ratios < 1.6, 1 - distances / (0.5 + waited), 0), 0, frame, chosen)


def _take_best(
    tracks: list[_Track], likeness: NDArray[np.float64], least: float, frame: _Frame, chosen: NDArray[np.intp]
) -> None:
    """Give tracks their boxes, the likest pair first; who got one leaves the list."""
    rows = list(tracks)
    while likeness.max() > least:
        row, column = np.unravel_index(int(likeness.argmax()), likeness.shape)
        track, index = rows[int(row)], chosen[int(column)]
        track.take(frame.boxes[index], frame.time)
        frame.numbers[index] = track.number
        tracks.remove(track)
        likeness[row], likeness[:, column] = -1, -1


def intersection_over_union(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The overlap of every box of one list with every one of another: N x M, 0 to 1."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))
