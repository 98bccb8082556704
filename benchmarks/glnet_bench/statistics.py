"""Summaries of latency samples, and how sure a ratio of two medians is. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Visits = Sequence[Sequence[float]]
"""Samples in milliseconds, grouped by visit: calls that were timed in a row before another backend had its turn."""


@dataclass(frozen=True)
class Summary:
    """Order statistics of samples, milliseconds; percentiles interpolate linearly between neighbours, as NumPy's do.

    With fewer than 100 samples, ``p99`` lies between the two largest: ``samples`` says how much it is worth.
    """

    samples: int
    min: float
    p50: float
    p90: float
    p99: float
    max: float
    mean: float

    @classmethod
    def of(cls, visits: Visits) -> Summary:
        """Summarise all samples of all visits.

        Raises:
            ValueError: There are none.
        """
        values = pooled(visits)
        if not values.size:
            raise ValueError("there are no samples")
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(values.size, float(values.min()), p50, p90, p99, float(values.max()), float(values.mean()))

    def to_document(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


def pooled(visits: Visits) -> NDArray[np.float64]:
    """All samples in one array."""
    return np.concatenate([np.asarray(visit, dtype=np.float64) for visit in visits]) if visits else np.empty(0)


def ratio_of_medians(
    first: Visits, second: Visits, *, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> Interval:
    """How many times the first median the second is, with a percentile bootstrap interval.

    Whole visits are drawn with replacement, not single calls: the calls of a visit share the machine's state of that
    moment, and drawing them one by one would promise more than they know. A row of a single visit is drawn call by call.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8.6 (blocks) and 13.3 (percentile interval).

    Args:
        first: What is compared with.
        second: What is compared.
        confidence: Of the interval.
        resamples: How often medians are drawn anew.
        seed: Of the draws.

    Raises:
        ValueError: A side has no samples.
    """
    medians = [float(np.median(pooled(side))) for side in (first, second) if pooled(side).size]
    if len(medians) < 2:
        raise ValueError("there are no samples")
    generator = np.random.default_rng(seed)
    ratios = _drawn_medians(second, resamples, generator) / _drawn_medians(first, resamples, generator)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(ratios, [tail, 100 - tail]).tolist()
    return Interval(medians[1] / medians[0], low, high)


def _drawn_medians(visits: Visits, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Medians of samples drawn with replacement, visit by visit."""
    groups = [np.asarray(visit, dtype=np.float64) for visit in visits if len(visit)]
    if len(groups) == 1:
        groups = [value[None] for value in groups[0]]
    draws = generator.integers(len(groups), size=(resamples, len(groups)))
    if len({group.size for group in groups}) == 1:
        return np.asarray(np.median(np.stack(groups)[draws].reshape(resamples, -1), axis=1))
    return np.array([np.median(np.concatenate([groups[index] for index in draw])) for draw in draws])
