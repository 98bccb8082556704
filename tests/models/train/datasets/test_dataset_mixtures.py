"""Mixtures draw from several datasets."""

import numpy as np
import pytest

from glnet_infer.errors import InputError
from glnet_train.data import HYBRIK_RATIOS, AnnotatedImages, Mixture


@pytest.fixture
def sets(tmp_path, full_annotation):
    """Four sets of 7, 50, 20 and 11 persons under HybrIK's names."""
    return {
        name: AnnotatedImages(name, [full_annotation(tmp_path / f"{name}{i}.jpg", i) for i in range(size)])
        for name, size in zip(("h36m", "coco", "3dhp", "3dpw"), (7, 50, 20, 11), strict=True)
    }


def test_mixture_draws_in_exact_proportion_each_epoch(sets):
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=1)
    assert len(mixture) == 100
    assert sum(HYBRIK_RATIOS.values()) == pytest.approx(1)
    for epoch in range(3):
        picks = [mixture.pick(epoch * 100 + i) for i in range(100)]
        assert np.bincount([dataset for dataset, _ in picks]).tolist() == [30, 40, 10, 20]
        first_half = np.bincount([dataset for dataset, _ in picks[:50]], minlength=4)
        assert (np.abs(first_half - [15, 20, 5, 10]) < 10).all()  # shuffled, not in blocks


def test_nobody_comes_twice_before_everybody_came_once(sets):
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=2)
    picks = [mixture.pick(i) for i in range(500)]
    for dataset, members in enumerate(sets.values()):
        counts = np.bincount([person for d, person in picks if d == dataset], minlength=len(members))
        assert counts.max() - counts.min() <= 1


def test_draws_depend_on_seed_and_number_alone(sets):
    forwards = [Mixture(sets, HYBRIK_RATIOS, seed=3).pick(i) for i in range(300)]
    mixture = Mixture(sets, HYBRIK_RATIOS, seed=3)
    assert [mixture.pick(i) for i in reversed(range(300))] == forwards[::-1]
    assert [Mixture(list(sets.values()), [3, 4, 1, 2], seed=3).pick(i) for i in range(50)] == forwards[:50]
    assert [Mixture(sets, HYBRIK_RATIOS, seed=4).pick(i) for i in range(300)] != forwards
    assert forwards[:100] != forwards[100:200]


def test_mixture_loads_what_it_picks(tmp_path, write_image, full_annotation):
    for name in "ab":
        write_image(tmp_path / f"{name}.jpg")
    first, second = (AnnotatedImages(n, [full_annotation(tmp_path / f"{n}.jpg", i)]) for i, n in enumerate("ab"))
    mixture = Mixture([first, second], [1, 1], length=4)
    samples = list(mixture)
    assert len(samples) == 4
    for number, sample in enumerate(samples):
        dataset, person = mixture.pick(number)
        np.testing.assert_array_equal(sample.betas, (first, second)[dataset][person].betas)
    with pytest.raises(IndexError):
        mixture.pick(-1)


def test_shares_that_do_not_divide_and_sets_left_out(sets):
    mixture = Mixture(list(sets.values()), [1, 1, 1, 0], length=10)
    picks = [mixture.pick(i) for i in range(30)]
    counts = np.bincount([dataset for dataset, _ in picks], minlength=4)
    assert counts.sum() == 30
    assert counts[3] == 0
    assert (np.abs(counts[:3] - 10) <= 3).all()


@pytest.mark.parametrize("ratios", [[1, 2], [1, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, np.nan], {"h36m": 1}])
def test_ratios_that_do_not_fit_are_refused(sets, ratios):
    with pytest.raises(InputError, match="ratio"):
        Mixture(sets, ratios)
