"""Smoothed persons: in frames while they pass, and in a whole motion afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glnet_infer.results.meshes import Meshes
from glnet_infer.results.motion import Motion
from glnet_infer.results.skin import Skin
from glnet_infer.video.following import FollowedFrame
from glnet_infer.video.smoothing import (
    REACH,
    SIGMA,
    LiveFilter,
    RunningMean,
    smooth_rotations,
    smooth_translations,
    steady_shape,
)

DELAY = REACH * SIGMA
"""Seconds by which smoothed frames of a recording come later: what lies further ahead has no weight."""

LONGEST_GAP = 0.5
"""Seconds for which a person may be missing in a motion and is filled in."""

HOW = (
    f"rotations and translation: Gaussian of {SIGMA:g} s, on geodesics and on (x/z, y/z, log z); "
    "betas: weighted median of the track"
)
"""What :func:`smooth_motion` does, for the motion's file."""

_FORGET = 60.0
"""Seconds after which a track that is away is forgotten, and its shape; no tracker waits so long at usual frame rates."""

_MEMORY = 1.0
"""Seconds of a track that are kept, so that a doubted frame finds a trusted one before it."""


def smooth_motion(motion: Motion, skin: Skin | None = None) -> Motion:
    """A recording's motion, smoothed.

    Short absences are filled in, doubted frames are bridged between trusted ones, and every track gets one shape.

    Args:
        motion: The motion as it was recovered.
        skin: The body's, from the bundle; gives the bones of the new shapes.
    """
    filled = motion.filled(LONGEST_GAP)
    rotations = filled.rotations.astype(np.float64)
    translation, betas = filled.translation.astype(np.float64), filled.betas.astype(np.float64)
    for track in filled.tracks:
        rows = filled.track == track
        times, trusted = filled.time[rows], filled.observed[rows]
        rotations[rows] = smooth_rotations(rotations[rows], times, trusted)
        translation[rows] = smooth_translations(translation[rows], times, trusted)
        betas[rows] = steady_shape(betas[rows], filled.confidence[rows] * trusted)
    return filled.smoothed(HOW, rotations=rotations, betas=betas, translation=translation, skin=skin)


def steadied(frames: Iterable[FollowedFrame], skin: Skin) -> Iterator[FollowedFrame]:
    """A recording's frames with smoothed meshes, :data:`DELAY` seconds behind.

    Poses are those of :func:`smooth_motion`, but near absences, which are not filled in here, and where doubted frames have
    no trusted one within the delay or the last second. The shape is the mean of all frames so far.

    Args:
        frames: Frames of one recording, in order.
        skin: The body's, from the bundle.
    """
    waiting: deque[FollowedFrame] = deque()
    tracks: dict[int, _Track] = {}
    for frame in frames:
        for row, track in enumerate(frame.tracks.tolist()):
            tracks.setdefault(track, _Track()).add(frame, row)
        waiting.append(frame)
        while frame.time - waiting[0].time > DELAY:
            yield _steady(waiting.popleft(), tracks, skin)
        for track in [track for track, known in tracks.items() if known.last < waiting[0].time - _FORGET]:
            del tracks[track]
    for frame in waiting:
        yield _steady(frame, tracks, skin)


def steadied_live(frames: Iterable[FollowedFrame], skin: Skin) -> Iterator[FollowedFrame]:
    """Frames with meshes smoothed at once, by One-Euro filters that do not look ahead.

    Args:
        frames: Frames of one source, in order.
        skin: The body's, from the bundle.
    """
    filters: dict[int, tuple[LiveFilter, float]] = {}
    for frame in frames:
        raw, poses = frame.raw, []
        for row, track in enumerate(frame.tracks.tolist()):
            live, _ = filters.get(track, (LiveFilter(), 0.0))
            filters[track] = live, frame.time
            values = raw.rotations[row], raw.betas[row], raw.translation[row]
            poses.append(live(*values, frame.time, float(raw.confidence[row])))
        filters = {track: each for track, each in filters.items() if each[1] > frame.time - _FORGET}
        yield replace(frame, meshes=_posed(raw, poses, skin))


_Pose = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Rotations 24 x 3 x 3, betas 10 and translation 3 of a person."""


@dataclass
class _Moment:
    """A person in a frame."""

    time: float
    rotations: NDArray[np.float32]
    translation: NDArray[np.float32]
    betas: NDArray[np.float64]
    trusted: bool


class _Track:
    """The last second of a person, and what is ahead."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        self._betas = RunningMean()

    @property
    def last(self) -> float:
        """Time of the last frame with this person, seconds."""
        return self._moments[-1].time

    def add(self, frame: FollowedFrame, row: int) -> None:
        """Add a frame, in which the person is the ``row``-th."""
        raw, doubted = frame.raw, bool(frame.doubted[row])
        weight = 1e-6 if doubted else float(raw.confidence[row]) + 1e-6
        betas = self._betas(raw.betas[row].astype(np.float64), weight)
        self._moments.append(_Moment(frame.time, raw.rotations[row], raw.translation[row], betas, not doubted))

    def pose(self, time: float) -> _Pose:
        """The smoothed pose at a frame's time; what is older than needed is dropped."""
        while self._moments[0].time < time - _MEMORY:
            self._moments.popleft()
        moments = [moment for moment in self._moments if moment.time <= time + DELAY]
        near = [moment for moment in moments if moment.time >= time - DELAY]
        if all(moment.trusted for moment in near):
            moments = near  # what is older bridges nothing, and has no weight
        times = np.array([moment.time for moment in moments])
        row = int(np.searchsorted(times, time))
        trusted = np.array([moment.trusted for moment in moments])
        rotations = smooth_rotations(np.stack([m.rotations for m in moments]), times, trusted, rows=[row])
        translation = smooth_translations(np.stack([m.translation for m in moments]), times, trusted, rows=[row])
        return rotations[0], moments[row].betas, translation[0]


def _steady(frame: FollowedFrame, tracks: dict[int, _Track], skin: Skin) -> FollowedFrame:
    poses = [tracks[track].pose(frame.time) for track in frame.tracks.tolist()]
    return replace(frame, meshes=_posed(frame.raw, poses, skin))


def _posed(raw: Meshes, poses: list[_Pose], skin: Skin) -> Meshes:
    """The same persons in other poses."""
    if not poses:
        return raw
    rotations, betas, translation = (np.stack(parts) for parts in zip(*poses, strict=True))
    vertices, joints = skin.pose(rotations, betas, translation)
    return replace(
        raw,
        vertices=vertices,
        joints=joints,
        rotations=rotations.astype(np.float32),
        betas=betas.astype(np.float32),
        translation=translation.astype(np.float32),
    )
