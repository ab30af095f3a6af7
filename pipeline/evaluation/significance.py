"""Whether two models differ, by their scores on the same held-out seeds: paired, two-sided tests.

Dimension names: I held-out seeds, R repeats of a model (training seeds).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FLIPS = 10_000
BLOCK = 1 << 22  # signs that are held at once
ALIKE = 1e-9  # two sums of the same numbers in another order are no further apart, relatively


def p_value(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How likely a mean difference as large as that of `one` (R, I) and `other` (R', I), or larger, is if both models are equally good.

    Exact McNemar where each side is one run of values 0 and 1; otherwise a sign-flip permutation test of what the repeats' means differ in,
    seed by seed. So p speaks of other held-out seeds, and takes the repeats for all that there are: what other training seeds would change
    is in the interval (`scoring.bootstrap_repeats`), not in p.
    """
    if (
        len(one) == len(other) == 1
        and np.isin(one, (0.0, 1.0)).all()
        and np.isin(other, (0.0, 1.0)).all()
    ):
        return mcnemar(int((one > other).sum()), int((one < other).sum()))
    return sign_flip(one.mean(axis=0) - other.mean(axis=0))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p of McNemar (1947): of `better + worse` seeds on which two models differ, each is as likely to favour either."""
    discordant = better + worse
    term, total = 1, 0
    for k in range(min(better, worse) + 1):
        total += term
        term = term * (discordant - k) // (k + 1)
    return min(1.0, 2 * total / 2**discordant)


def sign_flip(differences: NDArray[np.float64], seed: int = 0) -> float:
    """Two-sided p of a paired permutation test of the mean of (I,) differences (Fisher 1935, ch. 3): by FLIPS random sign patterns, with
    the observed one counted among them, so never 0 (Phipson & Smyth 2010)."""
    moving = differences[differences != 0.0]
    if not len(moving):
        return 1.0
    bar = abs(moving.sum()) - ALIKE * np.abs(moving).sum()
    as_large = sum(
        int((np.abs(signs @ moving) >= bar).sum()) for signs in _signs(len(moving), seed)
    )
    return (1 + as_large) / (1 + FLIPS)


def _signs(items: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """FLIPS rows of `items` signs, some rows at a time."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // items)
    for first in range(0, FLIPS, rows):
        yield (
            2.0 * random.integers(2, size=(min(rows, FLIPS - first), items)).astype(np.float64)
            - 1.0
        )
