"""Means over crops and their intervals, by the bootstrap (Efron, "Bootstrap methods", Annals of Statistics, 1979).

All rows are scored on the same crops, so one set of resamples serves all, and differences are of pairs. What the intervals
hold is the chance of which crops were drawn. The chance of a training shows between its seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from glnet_train.scores.metrics import mean_precisions

RESAMPLES = 1000
PART = 128
"""Resamples at a time."""

SEED = 0
COVERAGE = 0.95

Scored = dict[str, NDArray[np.float64]]
"""Scores of every crop by name; NaN where a crop has nothing to be measured by."""


@dataclass(frozen=True)
class Interval:
    """A score and its interval of :data:`COVERAGE`.

    Attributes:
        value: The score.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def over_crops(scored: Sequence[Scored], metric: str, others: Sequence[Scored] = ()) -> Interval:
    """The mean of a score over several seeds, or its mean difference from others of the same seeds.

    Args:
        scored: Scores of the same crops, one entry a seed.
        metric: Name of the score; ``coco_ap`` is COCO's precision in percent.
        others: Scores to subtract, of the same crops and seeds.
    """
    crops = len(next(iter(scored[0].values())))
    drawn = np.random.default_rng(SEED).integers(0, crops, (RESAMPLES, crops))
    index = np.concatenate([np.arange(crops)[None], drawn])
    values = np.mean([_statistic(each, metric, index) for each in scored], axis=0)
    if others:
        values = values - np.mean([_statistic(each, metric, index) for each in others], axis=0)
    resampled = values[1:][np.isfinite(values[1:])]
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail)) if len(resampled) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _statistic(scored: Scored, metric: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """A score of every resample; NaN where none of its crops has one."""
    if metric == "coco_ap":
        similarities, confidences = torch.from_numpy(scored["oks"]), torch.from_numpy(scored["confidence"])
        rows = torch.from_numpy(index)
        # In parts: each resample needs ten curves.
        parts = [mean_precisions(similarities[part], confidences[part]) for part in rows.split(PART)]
        return np.asarray(100 * torch.cat(parts).numpy(), dtype=np.float64)
    values = scored[metric]
    known = np.isfinite(values)
    counts, sums = known[index].sum(1), np.where(known, values, 0)[index].sum(1)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(index), np.nan), where=counts > 0)
    return means
