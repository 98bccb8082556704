"""Smoothing of one person's track: offline with a Gaussian, live with a One-Euro filter, both on the group of rotations.

Rotations are averaged along geodesics, never entry by entry. Translations are smoothed as the image position and the
logarithm of the distance: what the network is sure of, and what it guesses, do not mix. Shape is one for a whole track.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glnet_infer.rotations import between, exponential, logarithm

SIGMA = 0.06
"""Seconds. In a simulation (24 joints that swing at 1 Hz, 4 degrees of noise, 30 frames a second) this width had the least
error, and the jitter of the truth itself."""

REACH = 3.0
"""Standard deviations beyond which a frame's weight is nothing (1 %)."""

_ROUNDS = 2
"""Steps towards the mean in the tangent space. The second moves it by less than a thousandth of the first."""


def bridge(
    times: NDArray[Any], trusted: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The trusted frames between which each frame lies: one before, one after, and the share of the way, T each.

    A trusted frame lies at itself. Before the first and after the last one, frames stand still; so they do without any.
    """
    index = np.arange(len(times))
    known = np.flatnonzero(trusted) if trusted.any() else index
    place = np.searchsorted(known, index)
    after = known[np.minimum(place, len(known) - 1)]
    before = np.where(after == index, index, known[np.maximum(place - 1, 0)])
    after = np.maximum(after, before)
    way = times[after] - times[before]
    share = np.clip((times - times[before]) / np.where(way > 0, way, 1), 0, 1)
    return before, after, np.where(way > 0, share, 0.0)


def smooth_rotations(
    rotations: NDArray[Any],
    times: NDArray[Any],
    trusted: NDArray[np.bool_],
    sigma: float = SIGMA,
    rows: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Means of neighbours on the group of rotations, without delay.

    Args:
        rotations: T x J x 3 x 3.
        times: T growing times, seconds; any spacing.
        trusted: T; the others are bridged along geodesics before anything is averaged.
        sigma: Width of the Gaussian, seconds.
        rows: The frames whose means are wanted; None: all.
    """
    given = np.array(rotations, np.float64)
    before, after, share = bridge(times, trusted)
    away = np.flatnonzero(before != np.arange(len(times)))  # the others stay as they are
    given[away] = between(given[before[away]], given[after[away]], share[away, None])
    means = []
    for row, near, shares in _neighbours(times, sigma, rows):
        mean = given[row]
        for _ in range(_ROUNDS):
            steps = logarithm(np.swapaxes(mean, -1, -2)[None] @ given[near])
            mean = mean @ exponential(np.einsum("t,tjc->jc", shares, steps))
        means.append(mean)
    return np.stack(means)


def smooth_translations(
    translations: NDArray[Any],
    times: NDArray[Any],
    trusted: NDArray[np.bool_],
    sigma: float = SIGMA,
    rows: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Means of neighbours, of the position in the image and the logarithm of the distance.

    Args:
        translations: T x 3, metres, camera coordinates, z > 0.
        times: T growing times, seconds.
        trusted: T; the others are bridged before anything is averaged.
        sigma: Width of the Gaussian, seconds.
        rows: The frames whose means are wanted; None: all.
    """
    seen = _as_seen(translations)
    before, after, share = bridge(times, trusted)
    seen = seen[before] + share[:, None] * (seen[after] - seen[before])
    return _in_space(np.stack([shares @ seen[near] for _, near, shares in _neighbours(times, sigma, rows)]))


def _neighbours(
    times: NDArray[Any], sigma: float, rows: Sequence[int] | None
) -> Iterator[tuple[int, slice, NDArray[np.float64]]]:
    """Each frame, those near it, and their weights, which sum to one."""
    for row in range(len(times)) if rows is None else rows:
        low = int(np.searchsorted(times, times[row] - REACH * sigma, side="left"))
        high = int(np.searchsorted(times, times[row] + REACH * sigma, side="right"))
        weights = np.exp(-0.5 * ((times[low:high] - times[row]) / sigma) ** 2)
        yield row, slice(low, high), weights / weights.sum()


def steady_shape(betas: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """One shape for a whole track: the weighted median of each coefficient, which single bad frames do not move.

    Args:
        betas: T x B.
        weights: T trusts.
    """
    betas = np.asarray(betas, np.float64)
    trust = np.asarray(weights, np.float64)
    if not trust.any():
        trust = np.ones(len(betas))
    order = np.argsort(betas, axis=0, kind="stable")
    running = np.cumsum(trust[order], axis=0)
    middle = (running >= running[-1] / 2).argmax(axis=0)
    return np.asarray(np.take_along_axis(np.take_along_axis(betas, order, axis=0), middle[None], axis=0)[0])


class OneEuro:
    """The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) on vectors: slow when still, quick when moving.

    Args:
        cutoff: Frequency below which a signal at rest passes, Hz.
        speed: How much the cutoff grows with the speed of the signal, Hz for a unit per second.
        speed_cutoff: Cutoff of the speed itself, Hz.
    """

    def __init__(self, cutoff: float = 2.0, speed: float = 0.7, speed_cutoff: float = 1.0) -> None:
        self.cutoff, self.speed, self.speed_cutoff = cutoff, speed, speed_cutoff
        self._time = 0.0
        self._given: NDArray[np.float64] | None = None
        self._value: NDArray[np.float64] | None = None
        self._rate: NDArray[np.float64] | None = None

    def __call__(self, value: NDArray[Any], time: float) -> NDArray[np.float64]:
        """The filtered value.

        Args:
            value: ... x C: the speed is the length of the last axis.
            time: Seconds, growing.
        """
        given = np.asarray(value, np.float64)
        if self._value is None or self._given is None or self._rate is None:
            self._value, self._rate = given, np.zeros(self._difference(given, given).shape)
        else:
            elapsed = max(time - self._time, 1e-6)
            rate = self._difference(self._given, given) / elapsed
            self._rate = self._rate + _share(self.speed_cutoff, elapsed) * (rate - self._rate)
            cutoff = self.cutoff + self.speed * np.linalg.norm(self._rate, axis=-1, keepdims=True)
            self._value = self._moved(self._value, _share(cutoff, elapsed) * self._difference(self._value, given))
        self._given, self._time = given, time
        return self._value

    def _difference(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        return second - first

    def _moved(self, value: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
        return value + step


class OneEuroRotations(OneEuro):
    """The same on rotations, ... x 3 x 3: steps go along geodesics, speeds are radians per second."""

    def _difference(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        return logarithm(np.swapaxes(first, -1, -2) @ second)

    def _moved(self, value: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(value @ exponential(step))


class RunningMean:
    """The weighted mean of all vectors so far."""

    def __init__(self) -> None:
        self._mean: NDArray[np.float64] | float = 0.0
        self._weight = 0.0

    def __call__(self, value: NDArray[Any], weight: float) -> NDArray[np.float64]:
        """The mean with one more vector; a weight that is positive, and as small as you like."""
        self._weight += weight
        mean = np.asarray(self._mean + weight / self._weight * (value - self._mean))
        self._mean = mean
        return mean


class LiveFilter:
    """One person's pose, frame by frame, without looking ahead."""

    def __init__(self) -> None:
        self._rotations = OneEuroRotations()
        self._place = OneEuro()
        self._betas = RunningMean()

    def __call__(
        self, rotations: NDArray[Any], betas: NDArray[Any], translation: NDArray[Any], time: float, confidence: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The filtered pose.

        Args:
            rotations: J x 3 x 3.
            betas: B; the result is the mean of all so far, weighted by confidence.
            translation: 3, metres, z > 0.
            time: Seconds, growing.
            confidence: 0 to 1.
        """
        shape = self._betas(np.asarray(betas, np.float64), max(confidence, 1e-6))
        place = self._place(_as_seen(np.asarray(translation)[None]), time)
        return self._rotations(rotations, time), shape, _in_space(place)[0]


def _share(cutoff: Any, elapsed: float) -> Any:
    """The share of the new value, of an exponential filter with a cutoff in Hz."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * elapsed))


def _as_seen(translations: NDArray[Any]) -> NDArray[np.float64]:
    """T x 3: x / z, y / z and the logarithm of z."""
    x, y, z = np.asarray(translations, np.float64).T
    distance = np.maximum(z, 1e-3)
    return np.stack([x / distance, y / distance, np.log(distance)], axis=1)


def _in_space(seen: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = np.exp(seen[:, 2])
    return np.stack([seen[:, 0] * distance, seen[:, 1] * distance, distance], axis=1)
