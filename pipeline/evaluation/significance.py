"""Paired, two-sided tests: do two models differ on the same held-out examples?

Dimension names: I held-out examples, R repeats of a model (training seeds).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FLIPS = 10_000
BLOCK = 1 << 22  # random signs held in memory at once
ROUNDING = 1e-9  # sums of the same numbers in another order may differ by this share


def p_value(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return how likely a mean difference this large is if both models are equally good.

    `first` is (R, I), `second` (R', I). If each side is one run with values 0 and 1, this is the
    exact McNemar test. If not, it averages each example over its repeats, and tests the differences
    with a sign-flip permutation test. So p includes the variation from the held-out examples, but
    not from the training seeds. The interval includes both (`bootstrap.bootstrap_repeats`).
    """
    is_binary = np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all()
    if len(first) == len(second) == 1 and is_binary:
        return mcnemar(int((first > second).sum()), int((first < second).sum()))
    return sign_flip(first.mean(axis=0) - second.mean(axis=0))


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p of McNemar (1947).

    Under the null hypothesis, each of the `better + worse` examples on which two models differ is
    as likely to favour either model.
    """
    discordant = better + worse
    term, total = 1, 0
    for k in range(min(better, worse) + 1):
        total += term
        term = term * (discordant - k) // (k + 1)
    return min(1.0, 2 * total / 2**discordant)


def sign_flip(differences: NDArray[np.float64], seed: int = 0) -> float:
    """Return the two-sided p of a paired permutation test of the mean of (I,) differences.

    With at most FLIPS sign patterns, the test tries all of them and is exact (Fisher 1935, ch. 3).
    With more, it draws FLIPS random patterns. It also counts the observed pattern, so p is never 0
    (Phipson & Smyth 2010).
    """
    moving = differences[differences != 0.0]
    if not len(moving):
        return 1.0
    bar = abs(moving.sum()) - ROUNDING * np.abs(moving).sum()
    if 2 ** len(moving) <= FLIPS:
        return float((np.abs(_all_signs(len(moving)) @ moving) >= bar).mean())
    as_large = sum(
        int((np.abs(signs @ moving) >= bar).sum()) for signs in _signs(len(moving), seed)
    )
    return (1 + as_large) / (1 + FLIPS)


def _all_signs(items: int) -> NDArray[np.float64]:
    """Return every pattern of signs, (2**I, I)."""
    bits = np.arange(2**items)[:, None] >> np.arange(items) & 1
    return 2.0 * bits.astype(np.float64) - 1.0


def _signs(items: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield blocks of rows, FLIPS rows in all; each row has `items` random signs."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // items)
    for first in range(0, FLIPS, rows):
        bits = random.integers(2, size=(min(rows, FLIPS - first), items))
        yield 2.0 * bits.astype(np.float64) - 1.0
