"""Bootstrap intervals of means, differences and ratios.

Dimension names: I items (held-out examples), R repeats of a model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

RESAMPLES = 10_000
BLOCK = 1 << 20  # random item numbers held in memory at once
TAILS = (0.025, 0.975)


class Interval(BaseModel, frozen=True):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is on that side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean over items with its percentile interval (Efron & Tibshirani 1993, ch. 13).

    For a paired difference, pass the differences item by item.
    """
    data = np.asarray(values, np.float64)
    means = [data[items].mean(axis=1) for items in _resamples(len(data), seed)]
    return _interval(data.mean(), np.concatenate(means))


def bootstrap_ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Interval:
    """Return the ratio of two sums over items with its interval; a ratio to 0 counts as 0."""
    above, below = np.asarray(over, np.float64), np.asarray(under, np.float64)
    ratios = [
        _ratio(above[items].sum(axis=1), below[items].sum(axis=1))
        for items in _resamples(len(above), seed)
    ]
    return _interval(_ratio(above.sum(), below.sum()), np.concatenate(ratios))


def bootstrap_repeats(
    runs: NDArray[np.float64], against: NDArray[np.float64] | None = None, seed: int = 0
) -> Interval:
    """Return the mean over repeats and items, (R, I), or its difference to `against`, (R', I).

    Each resample draws items, the same for both sides, and for each side repeats, with replacement
    (the pigeonhole bootstrap, Owen 2007, Ann. Appl. Stat. 1(2)). So the interval covers both other
    held-out examples and other training seeds. With one repeat it equals `bootstrap`'s. With few
    repeats their spread is underestimated: with three, their share of the variance is a third too
    small.
    """
    if against is None:
        return bootstrap_sum([runs], [1.0], seed)
    return bootstrap_sum([runs, against], [1.0, -1.0], seed)


def bootstrap_sum(
    sides: Sequence[NDArray[np.float64]], weights: Sequence[float], seed: int = 0
) -> Interval:
    """Return the weighted sum of the means of `sides`, with its interval as above.

    Each side is (R, I): the same items, and its own number of repeats.
    """
    if all(len(side) == 1 for side in sides):
        return bootstrap(_sum([side[0] for side in sides], weights).tolist(), seed)
    random = np.random.default_rng(seed)
    count = sides[0].shape[1]

    def resampled() -> float:
        items = random.integers(count, size=count)
        means = []
        for side in sides:
            repeats = random.integers(len(side), size=len(side))
            means.append(side[repeats][:, items].mean())
        return float(_sum(means, weights))

    sums = np.array([resampled() for _ in range(RESAMPLES)])
    return _interval(_sum([side.mean() for side in sides], weights), sums)


def _interval(mean: Any, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, TAILS)
    return Interval(mean=float(mean), low=float(low), high=float(high))


def _resamples(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield RESAMPLES rows of `count` item numbers, in blocks."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(count, 1))
    for first in range(0, RESAMPLES, rows):
        yield random.integers(count, size=(min(rows, RESAMPLES - first), count))


def _ratio(over: Any, under: Any) -> Any:
    return np.divide(over, under, out=np.zeros_like(over), where=np.asarray(under) > 0)


def _sum(values: Sequence[Any], weights: Sequence[float]) -> Any:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
