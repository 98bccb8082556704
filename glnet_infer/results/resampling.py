"""One person's track at a constant rate, for files whose frames have no times of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError
from glnet_infer.results.motion_data import MotionData
from glnet_infer.rotations import between

_LONGEST = 10_000_000
"""Frames: four days at 30 a second. A file of motion never holds more; times of strangers may say so."""


@dataclass(frozen=True, eq=False)
class SteadyTrack:
    """A person at a constant rate, with one shape.

    Attributes:
        rate: Frames per second.
        times: T, seconds of the recording.
        rotations: T x 24 x 3 x 3, relative to the parent, the root's to the camera.
        roots: T x 3, metres, joint 0 in the camera's frame.
        rest: 29 x 3, metres, joints of the rest pose.
        betas: 10.
    """

    rate: float
    times: NDArray[np.float64]
    rotations: NDArray[np.float64]
    roots: NDArray[np.float64]
    rest: NDArray[np.float64]
    betas: NDArray[np.float64]


def steady(person: MotionData, rate: float | None = None) -> SteadyTrack:
    """A track at a constant rate from its first to its last frame.

    Rotations in between lie on geodesics, positions on straight lines. Shape and bones are the median over the track.

    Args:
        person: The rows of one track, at least one.
        rate: Frames per second; the recording's own where None.

    Raises:
        InputError: The rate is no rate, or the track takes days.
    """
    rate = person.frame_rate if rate is None else rate
    span = float(person.time[-1] - person.time[0])
    if not 0 < rate < 1e6 or span * rate > _LONGEST:
        raise InputError(
            f"The motion cannot be written with {rate:g} frames per second.",
            why=f"the track takes {span:.6g} seconds",
            fix="give a rate such as 30",
        )
    # A hundredth of a frame: decimal times of the last frame must not lose it.
    times = person.time[0] + np.arange(int(span * rate + 0.01) + 1) / rate
    after = np.clip(np.searchsorted(person.time, times), 1, max(len(person) - 1, 1))
    before, after = after - 1, np.minimum(after, len(person) - 1)
    way = person.time[after] - person.time[before]
    share = np.clip((times - person.time[before]) / np.where(way > 0, way, 1), 0, 1)
    roots = person.joints[:, 0].astype(np.float64)
    return SteadyTrack(
        rate,
        times,
        between(person.rotations[before].astype(np.float64), person.rotations[after], share[:, None]),
        roots[before] + share[:, None] * (roots[after] - roots[before]),
        np.median(person.rest_joints(), axis=0),
        np.median(person.betas.astype(np.float64), axis=0),
    )
