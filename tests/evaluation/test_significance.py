"""Intervals and paired tests, compared with scipy and with figures worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.bootstrap import RESAMPLES, bootstrap, bootstrap_ratio
from pipeline.evaluation.significance import mcnemar, p_value, sign_flip


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (9, 1, 22 / 1024),
        (1, 9, 22 / 1024),
        (0, 6, 2 / 64),
        (10, 3, 2 * 378 / 8192),
    ],
)
def test_mcnemar_by_hand(better: int, worse: int, p: float) -> None:
    """p is twice the smaller tail of the binomial, and never more than 1."""
    assert mcnemar(better, worse) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("better", "worse"), [(3, 12), (40, 41), (700, 560), (0, 2000)])
def test_mcnemar_is_scipys_binomial_test(better: int, worse: int) -> None:
    """Large counts must not overflow or round to 0."""
    assert mcnemar(better, worse) == pytest.approx(
        stats.binomtest(better, better + worse).pvalue, rel=1e-9
    )


@pytest.mark.parametrize("items", [6, 11, 60])
def test_sign_flip_is_scipys_paired_permutation_test(items: int) -> None:
    """A wrong null distribution; for many items both sides are estimates of 10,000 draws."""
    values = np.random.default_rng(items).normal(0.25, 1.0, items)
    theirs = stats.permutation_test(
        (values, np.zeros(items)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=0,
    )
    assert sign_flip(values) == pytest.approx(theirs.pvalue, abs=0.02)


def test_sign_flip_by_hand() -> None:
    """Of the eight sign patterns of 1, 2 and 3 only two are as far from 0; zeros do not count."""
    assert sign_flip(np.array([1.0, 0.0, 2.0, 3.0, 0.0])) == pytest.approx(2 / 8, abs=0.015)
    assert sign_flip(np.zeros(9)) == 1.0
    assert sign_flip(np.ones(60)) == 1 / 10_001, (
        "the observed pattern is one of them, so p is never 0"
    )


def test_runs_of_right_and_wrong_are_tested_exactly_and_repeats_are_averaged() -> None:
    """If repeats counted as examples, p would shrink with every training seed."""
    better = np.array([[1.0, 1, 1, 1, 1, 1, 0]])
    worse = np.zeros((1, 7))
    assert p_value(better, worse) == 2 / 64
    assert p_value(np.repeat(better, 50, axis=0), worse) == pytest.approx(2 / 64, abs=0.006)
    assert p_value(better / 2, worse) == pytest.approx(2 / 64, abs=0.006), "not binary: sign flip"
    assert p_value(better, worse) == p_value(worse, better)


def test_p_is_even_where_nothing_differs() -> None:
    """Without a difference, p must be below 0.1 in a tenth of the cases."""
    random = np.random.default_rng(3)
    values = np.array([p_value(*random.normal(0, 1, (2, 1, 40))) for _ in range(200)])
    assert 0.05 < np.mean(values < 0.1) < 0.16


def test_bootstrap_is_scipys() -> None:
    """A wrong percentile or resampling; the two use different random numbers."""
    values = np.random.default_rng(4).exponential(1.0, 80)
    ours = bootstrap(values.tolist())
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bootstrap_of_a_ratio_is_scipys() -> None:
    """Both sums must come from the same resample, or the ratio has another spread."""
    random = np.random.default_rng(5)
    under = random.integers(1, 9, 120).astype(float)
    over = np.minimum(under, random.integers(0, 9, 120))
    ours = bootstrap_ratio(over.tolist(), under.tolist())
    theirs = stats.bootstrap(
        (over, under),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        n_resamples=RESAMPLES,
        method="percentile",
        paired=True,
        rng=0,
    ).confidence_interval
    assert ours.mean == pytest.approx(over.sum() / under.sum())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert bootstrap_ratio([0.0, 0.0], [0.0, 0.0]).mean == 0.0
