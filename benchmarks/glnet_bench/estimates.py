"""Summaries of latency samples, and how sure a ratio of two medians is. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Turns = Sequence[Sequence[float]]
"""Samples in milliseconds, grouped by turn: calls that were timed in a row before another backend had its turn."""

Timed = dict[str, float]
"""Milliseconds of one call, by the name of what they were spent on."""

FEWEST_TURNS = 5
"""Turns below which an interval is not worth a verdict: those of 95 % call equal rows different in 34 of 100 comparisons
where they are drawn from 2 turns a side, in up to 19 from 3, up to 14 from 4, up to 11 from 5, up to 6 from 10 (3,000
simulated each, normal, with a spread between turns of a third and of three times that within)."""

_DRAWN_AT_ONCE = 1 << 22
"""Samples that are drawn in one piece: 32 MiB, however many there are in all."""


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
    def of(cls, turns: Turns) -> Summary:
        """Summarise all samples of all turns.

        Raises:
            ValueError: There are none.
        """
        values = pooled(turns)
        if not values.size:
            raise ValueError("there are no samples")
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(values.size, float(values.min()), p50, p90, p99, float(values.max()), float(values.mean()))


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float

    def __truediv__(self, divisor: float) -> Interval:
        """The estimate of a part of it."""
        return Interval(self.value / divisor, self.low / divisor, self.high / divisor)


def count_turns(turns: Turns) -> int:
    """Number of turns that have samples."""
    return sum(len(turn) > 0 for turn in turns)


def pooled(turns: Turns) -> NDArray[np.float64]:
    """All samples in one array."""
    return np.concatenate([np.asarray(turn, dtype=np.float64) for turn in turns]) if turns else np.empty(0)


def ratio_of_medians(
    first: Turns,
    second: Turns,
    *,
    confidence: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
    paired: bool = False,
) -> Interval:
    """How many times the first median the second is, with a percentile bootstrap interval.

    Whole turns are drawn with replacement, not single calls: the calls of a turn share the machine's state of that
    moment, and drawing them one by one would promise more than they know. A row of a single turn is drawn call by call.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, sections 8.6 (blocks) and 13.3 (percentile interval).

    Args:
        first: What is compared with.
        second: What is compared.
        confidence: Share of intervals that hold the true ratio.
        resamples: How often medians are drawn anew.
        seed: Seed of the draws.
        paired: Whether both sides are stages of the same calls: then the same turns are drawn of both, and a state of the
            machine that slows both does not widen the interval.

    Raises:
        ValueError: A side has no samples, paired sides have not the same turns, or the first median may be zero.
    """
    medians = [float(np.median(pooled(side))) for side in (first, second) if pooled(side).size]
    if len(medians) < 2:
        raise ValueError("there are no samples")
    if paired and [len(turn) for turn in first] != [len(turn) for turn in second]:
        raise ValueError("paired sides have the same turns")
    generator = np.random.default_rng(seed)
    sides = [_groups(side) for side in (first, second)]
    draws = [generator.integers(len(groups), size=(resamples, len(groups))) for groups in sides]
    if paired:
        draws[1] = draws[0]
    before, after = (_drawn_medians(groups, drawn) for groups, drawn in zip(sides, draws, strict=True))
    if not before.all():
        raise ValueError("nothing is a multiple of no time")
    tail = 50 * (1 - confidence)
    low, high = np.percentile(after / before, [tail, 100 - tail]).tolist()
    return Interval(medians[1] / medians[0], low, high)


def ratio(first: Turns, second: Turns, *, confidence: float = 0.95, paired: bool = False) -> Interval | None:
    """What :func:`ratio_of_medians` says; None where it can say nothing."""
    try:
        return ratio_of_medians(first, second, confidence=confidence, paired=paired)
    except ValueError:
        return None


def _groups(turns: Turns) -> list[NDArray[np.float64]]:
    """What is drawn as a whole."""
    groups = [np.asarray(turn, dtype=np.float64) for turn in turns if len(turn)]
    return [value[None] for value in groups[0]] if len(groups) == 1 else groups


def _drawn_medians(groups: list[NDArray[np.float64]], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Medians of the samples of each draw of groups."""
    if len({group.size for group in groups}) > 1:
        return np.array([np.median(np.concatenate([groups[index] for index in draw])) for draw in draws])
    stacked = np.stack(groups)
    rows = max(1, _DRAWN_AT_ONCE // stacked.size)
    pieces = (draws[start : start + rows] for start in range(0, len(draws), rows))
    return np.concatenate([np.median(stacked[piece].reshape(len(piece), -1), axis=1) for piece in pieces])
