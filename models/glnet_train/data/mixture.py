"""Drawing from several datasets in given proportions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glnet_infer.errors import InputError
from glnet_train.data.dataset import AnnotatedImages
from glnet_train.data.samples import Sample

HYBRIK_RATIOS: dict[str, float] = {"h36m": 0.3, "coco": 0.4, "3dhp": 0.1, "3dpw": 0.2}
"""Shares of the sets in HybrIK's training (its dataset ``mix2_smpl_cam``)."""


class Mixture:
    """An endless, reproducible series of draws from several datasets.

    In every epoch each dataset gets its exact share of the draws, in shuffled order. A dataset's own persons are taken in
    shuffled rounds that go on across epochs: everybody is drawn once before anybody is drawn twice. Which person a draw
    gives depends on seed and number alone, never on earlier draws. So runs can be resumed, and split among processes.

    Args:
        datasets: The datasets, or a mapping from their names.
        ratios: Share of each dataset, in the same order or under the same names; they need not sum to 1.
        seed: Seed of the order.
        length: Draws per epoch; by default twice the largest dataset, as in HybrIK.

    Raises:
        InputError: The ratios do not fit the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[AnnotatedImages] | Mapping[str, AnnotatedImages],
        ratios: Sequence[float] | Mapping[str, float],
        seed: int = 0,
        length: int | None = None,
    ) -> None:
        if isinstance(datasets, Mapping) and isinstance(ratios, Mapping):
            missing = sorted(set(datasets) - set(ratios))
            if missing:
                raise InputError(
                    f"There is no mixing ratio for {', '.join(missing)}.", fix=f"ratios are given for {', '.join(ratios)}"
                )
            ratios = [ratios[name] for name in datasets]
        self.datasets = list(datasets.values() if isinstance(datasets, Mapping) else datasets)
        shares = np.array(list(ratios.values() if isinstance(ratios, Mapping) else ratios), dtype=np.float64)
        if len(shares) != len(self.datasets) or not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
            raise InputError(
                f"Mixing ratios {shares.tolist()} do not fit {len(self.datasets)} datasets.",
                why="one ratio each is needed, none negative, not all zero",
            )
        self.ratios = shares / shares.sum()
        self.seed = seed
        self._length = length or 2 * max(map(len, self.datasets))
        self._counts = self._exact_counts()
        self._plan: tuple[int, NDArray[np.int64]] = (-1, np.zeros((0, 2), dtype=np.int64))

    def _exact_counts(self) -> NDArray[np.int64]:
        """Whole numbers of draws that sum to the length: largest remainders."""
        exact = self.ratios * self._length
        counts: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
        order = np.argsort(counts - exact, kind="stable")
        counts[order[: self._length - counts.sum()]] += 1
        return counts

    def __len__(self) -> int:
        """Draws per epoch."""
        return self._length

    def _round(self, dataset: int, number: int) -> NDArray[np.int64]:
        """The order in which a dataset's persons come in its n-th round."""
        return np.random.default_rng([self.seed, 1, dataset, number]).permutation(len(self.datasets[dataset]))

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Dataset and person of every draw of an epoch, length x 2."""
        if self._plan[0] != epoch:
            parts = []
            for dataset, count in enumerate(self._counts):
                size, start = len(self.datasets[dataset]), epoch * count
                rounds = range(start // size, -(-(start + count) // size))
                order = np.concatenate([self._round(dataset, number) for number in rounds] or [np.zeros(0, dtype=np.int64)])
                offset = start - start // size * size
                persons = order[offset : offset + count]
                parts.append(np.stack([np.full(count, dataset), persons], axis=1))
            plan = np.concatenate(parts)
            np.random.default_rng([self.seed, 0, epoch]).shuffle(plan)
            self._plan = (epoch, plan)
        return self._plan[1]

    def pick(self, number: int) -> tuple[int, int]:
        """Numbers of the dataset and of its person that a draw gives.

        Args:
            number: Number of the draw, from 0 without end; its epoch is ``number // len(self)``.
        """
        if number < 0:
            raise IndexError("draws are numbered from 0")
        dataset, person = self._epoch(number // self._length)[number % self._length]
        return int(dataset), int(person)

    def load(self, number: int) -> Sample:
        """The crop and labels of a draw."""
        dataset, person = self.pick(number)
        return self.datasets[dataset].load(person)

    def __iter__(self) -> Iterator[Sample]:
        """One epoch, the first."""
        return (self.load(number) for number in range(self._length))
