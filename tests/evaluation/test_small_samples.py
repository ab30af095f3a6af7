"""Few held-out examples, or equal values, must not look like a certainty."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import small_samples
from pipeline.evaluation.bootstrap import bootstrap, bootstrap_ratio, bootstrap_repeats
from pipeline.evaluation.results_model import Difference
from pipeline.evaluation.significance import mcnemar, p_value, sign_flip

DIFFERENCE = (-1.0, 1.0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 3.5, 7, 29, 299])
def test_t_quantile_is_scipys(freedom: float) -> None:
    """A wrong quantile makes every interval of a small sample too narrow."""
    theirs = stats.t.ppf(0.975, freedom)
    assert small_samples.t_quantile(freedom) == pytest.approx(theirs, rel=3e-3)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (5, 5), (27, 29), (298, 300)])
def test_few_right_or_wrong_answers_have_wilsons_interval(right: int, count: int) -> None:
    """One right answer of one had the interval [1, 1]."""
    score = bootstrap([1.0] * right + [0.0] * (count - right), scale=small_samples.UNIT)
    theirs = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("value", [-1.0, 0.25, 1.0])
def test_nothing_is_claimed_of_five_examples(count: int, value: float) -> None:
    """A bootstrap over equal differences is a point, so one example was significant."""
    difference = bootstrap([value] * count, scale=DIFFERENCE)
    assert (difference.sign, difference.low, difference.high) == (0, -1.0, 1.0)


@pytest.mark.parametrize("count", [6, 29, 30, 300])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_equal_values_are_no_point(count: int, value: float) -> None:
    """What was never seen may still happen: the interval must have a width, less for more."""
    for interval in (
        bootstrap([value] * count, scale=small_samples.UNIT),
        bootstrap([value] * count, scale=DIFFERENCE),
        bootstrap_ratio([value] * count, [1.0] * count),
        bootstrap_repeats(np.full((3, count), value), scale=small_samples.UNIT),
    ):
        assert interval.low <= value <= interval.high
        assert 0.5 / count < interval.high - interval.low < 5 / math.sqrt(count)


@pytest.mark.parametrize("same", [0, 1, 24, 25, 294])
def test_no_claim_from_fewer_pairs_than_a_test_needs(same: int) -> None:
    """Five pairs that differ, of however many, were significant at p = 0.0625."""
    five = bootstrap([1.0] * 5 + [0.0] * same, scale=DIFFERENCE)
    six = bootstrap([1.0] * 6 + [0.0] * same, scale=DIFFERENCE)
    assert (five.sign, six.sign) == (0, 1)


def test_a_difference_needs_both_the_interval_and_p() -> None:
    """A difference with p = 0.07 was called significant, because the interval alone decided."""
    assert Difference(mean=0.2, low=0.02, high=0.4, p=mcnemar(7, 1)).sign == 0
    assert Difference(mean=0.2, low=0.02, high=0.4, p=mcnemar(9, 1)).sign == 1
    assert Difference(mean=-0.2, low=-0.4, high=-0.02, p=0.01).sign == -1
    assert Difference(mean=0.2, low=0.02, high=0.4).sign == 1, "older files have no p"


def test_small_samples_with_spread_have_students_t() -> None:
    """A percentile interval of a dozen values is some 10 % too narrow."""
    values = np.random.default_rng(6).normal(0.1, 0.2, 12)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    ours = bootstrap(values.tolist(), scale=DIFFERENCE)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-4)


def test_few_items_with_repeats_cover_both_sources() -> None:
    """Two training seeds have one degree of freedom, so their spread must widen the interval."""
    items = np.random.default_rng(7).normal(0.5, 0.1, 12)
    alike = bootstrap_repeats(np.stack([items, items]), scale=small_samples.UNIT)
    apart = bootstrap_repeats(np.stack([items - 0.1, items + 0.1]), scale=small_samples.UNIT)
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 4 * (alike.high - alike.low)


def test_unbounded_values_have_finite_intervals() -> None:
    """A KL of one example had the interval [kl, kl]; infinity cannot be written as JSON."""
    one = bootstrap([0.5], scale=small_samples.POSITIVE)
    assert one.low == 0.0
    assert 5.0 < one.high < math.inf
    few = bootstrap([0.3, 0.4, 0.35], scale=small_samples.POSITIVE)
    assert 0.0 < few.low < 0.3 < 0.4 < few.high < math.inf


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("count", [6, 15, 29])
def test_intervals_cover_what_they_promise(share: float, count: int) -> None:
    """Of 95 % intervals, far more than a twentieth missed the true share."""
    rights = range(count + 1)
    weights = stats.binom.pmf(rights, count, share)
    covers = []
    for right in rights:
        score = bootstrap([1.0] * right + [0.0] * (count - right), scale=small_samples.UNIT)
        covers.append(score.low <= share <= score.high)
    assert np.dot(weights, covers) > 0.87  # Wilson is 0.95 on average over shares


def test_large_samples_keep_their_bootstrap() -> None:
    """Figures of runs with enough examples must not move."""
    values = np.random.default_rng(8).binomial(1, 0.8, 300).astype(float)
    random = np.random.default_rng(0)
    means = values[random.integers(300, size=(10_000, 300))].mean(axis=1)
    interval = bootstrap(values.tolist(), scale=small_samples.UNIT)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(means, (0.025, 0.975)))


def test_sign_flip_of_few_differences_is_exact() -> None:
    """Random flips gave 0.0609 where every pattern gives 2/32."""
    assert sign_flip(np.ones(5)) == 2 / 32
    values = np.array([0.3, -0.1, 0.2, 0.5, 0.05, -0.02])
    patterns = itertools.product((-1, 1), repeat=6)
    sums = np.array([np.dot(signs, values) for signs in patterns])
    assert sign_flip(values) == np.mean(np.abs(sums) >= abs(values.sum()) - 1e-12)
    assert p_value(np.zeros((1, 1)), np.ones((1, 1))) == 1.0
