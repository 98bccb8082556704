"""Summaries and bootstrap intervals against SciPy and NumPy."""

import numpy as np
import pytest
import scipy.stats

from glnet_bench.estimates import FEWEST_TURNS, Interval, Summary, count_turns, pooled, ratio, ratio_of_medians


def test_a_summary_is_what_numpy_and_scipy_say():
    samples = np.random.default_rng(0).lognormal(1, 0.4, 237)
    summary = Summary.of([samples[:100].tolist(), samples[100:].tolist()])
    assert summary.samples == 237
    assert (summary.min, summary.max) == (samples.min(), samples.max())
    assert summary.mean == pytest.approx(scipy.stats.describe(samples).mean, rel=1e-12)
    for percent, found in ((50, summary.p50), (90, summary.p90), (99, summary.p99)):
        assert found == pytest.approx(scipy.stats.scoreatpercentile(samples, percent), rel=1e-12)


def test_a_summary_of_known_samples():
    summary = Summary.of([[float(value)] for value in range(101)])
    assert (summary.p50, summary.p90, summary.p99) == (50, 90, 99)
    one = Summary.of([[7.0]])
    assert one.min == one.p50 == one.p99 == one.max == one.mean == 7


@pytest.mark.parametrize("turns", [[], [[]]])
def test_no_samples_have_no_summary(turns):
    with pytest.raises(ValueError, match="no samples"):
        Summary.of(turns)
    with pytest.raises(ValueError, match="no samples"):
        ratio_of_medians(turns, [[1.0]])


def test_turns_are_pooled():
    assert pooled([[1, 2], [3]]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_independent_calls_is_scipys(confidence):
    generator = np.random.default_rng(1)
    first, second = generator.gamma(9, 1, 80), generator.gamma(9, 1.2, 60)
    found = ratio_of_medians([first.tolist()], [second.tolist()], confidence=confidence, resamples=20000)

    def ratio(a, b, axis):
        return np.median(b, axis=axis) / np.median(a, axis=axis)

    expected = scipy.stats.bootstrap(
        (first, second),
        ratio,
        n_resamples=20000,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.value == np.median(second) / np.median(first)
    # Two bootstraps of 20,000 draws: each quantile is known to well under a hundredth.
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)


def test_turns_that_differ_widen_the_interval():
    # Ten turns of ten calls; all calls of a turn are equal, so there are ten independent values, not a hundred.
    levels = np.random.default_rng(3).normal(10, 1, 10)
    turns = [[level] * 10 for level in levels]
    steady = [[5.0] * 10] * 10
    clustered = ratio_of_medians(steady, turns)
    single = ratio_of_medians(steady, [[value for turn in turns for value in turn]])
    assert clustered.high - clustered.low > 1.5 * (single.high - single.low)


def test_turns_of_unequal_length_are_drawn_whole():
    interval = ratio_of_medians([[1.0], [1.0, 1.0]], [[2.0], [2.0, 2.0, 2.0]])
    assert (interval.value, interval.low, interval.high) == (2, 2, 2)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator, covered = np.random.default_rng(4), 0
    for seed in range(200):
        first, second = generator.normal(10, 1, (20, 5)), generator.normal(11, 1, (20, 5))
        interval = ratio_of_medians(first.tolist(), second.tolist(), resamples=300, seed=seed)
        covered += interval.low <= 1.1 <= interval.high
    # 95 % of 200 are 190, give or take 3; percentile intervals of 20 turns are a little narrow.
    assert 175 <= covered <= 199


def test_the_same_seed_gives_the_same_interval():
    first, second = [[1.0, 2.0], [3.0, 4.0]], [[2.0, 3.0], [1.0, 5.0]]
    assert ratio_of_medians(first, second, seed=5) == ratio_of_medians(first, second, seed=5)


def test_turns_are_those_with_samples():
    assert count_turns([[1.0], [], [2.0, 3.0]]) == 2
    assert count_turns([]) == 0


def test_an_interval_is_divided_whole():
    assert Interval(2, 1, 4) / 4 == Interval(0.5, 0.25, 1)


def test_no_time_has_no_multiple():
    with pytest.raises(ValueError, match="no time"):
        ratio_of_medians([[0.0], [0.0, 1.0]], [[1.0]])
    assert ratio([[0.0]], [[1.0]]) is None and ratio([], [[1.0]]) is None
    assert ratio([[1.0]], [[0.0]]) == Interval(0, 0, 0)


def test_many_samples_are_drawn_piece_by_piece(monkeypatch):
    generator = np.random.default_rng(8)
    first, second = generator.gamma(9, 1, (40, 5)).tolist(), generator.gamma(9, 1, (50, 5)).tolist()
    whole = ratio_of_medians(first, second, resamples=500)
    monkeypatch.setattr("glnet_bench.estimates._DRAWN_AT_ONCE", 1000)
    assert ratio_of_medians(first, second, resamples=500) == whole


def test_parts_of_the_same_calls_share_what_slows_both():
    """A machine that wanders by a tenth, and a part that takes half of the whole, give or take a thousandth."""
    generator = np.random.default_rng(6)
    whole = generator.normal(10, 1, (10, 1)) * np.ones((10, 5))
    part = whole * generator.normal(0.5, 0.0005, (10, 5))
    paired = ratio_of_medians(part.tolist(), whole.tolist(), paired=True)
    apart = ratio_of_medians(part.tolist(), whole.tolist())
    assert paired.value == apart.value == pytest.approx(2, rel=2e-3)
    assert paired.high - paired.low < 0.01 < apart.high - apart.low
    with pytest.raises(ValueError, match="same turns"):
        ratio_of_medians([[1.0], [2.0]], [[1.0, 2.0]], paired=True)


def false_verdicts(turns, comparisons=600):
    """Share of comparisons of two equal rows whose interval leaves out 1."""
    generator, wrong = np.random.default_rng(7), 0
    for seed in range(comparisons):
        rows = 10 * np.exp(
            0.01 * generator.standard_normal((2, turns, 1)) + 0.03 * generator.standard_normal((2, turns, 10))
        )
        interval = ratio_of_medians(rows[0].tolist(), rows[1].tolist(), resamples=300, seed=seed)
        wrong += not interval.low <= 1 <= interval.high
    return wrong / comparisons


def test_intervals_of_fewer_turns_promise_too_much():
    # 600 comparisons know a share of a tenth to 1.2 %: three of these are allowed.
    assert false_verdicts(2) > 0.28
    assert false_verdicts(3) > 0.14
    assert false_verdicts(FEWEST_TURNS) < 0.15
