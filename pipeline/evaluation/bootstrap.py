"""Bootstrap intervals of means, differences and ratios."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
BLOCK = 1 << 20  # draws that are held at once


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean and 95 % percentile bootstrap interval over items (Efron & Tibshirani 1993, ch. 13). For a paired difference, pass the
    differences item by item."""
    data: NDArray[np.float64] = np.asarray(values, np.float64)
    low, high = np.quantile(
        np.concatenate([data[drawn].mean(axis=1) for drawn in _drawn(len(data), seed)]),
        (0.025, 0.975),
    )
    return Interval(float(data.mean()), float(low), float(high))


def bootstrap_ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Interval:
    """The ratio of two sums over items, 0 where there is nothing to divide by, with its 95 % percentile bootstrap interval."""
    above, below = np.asarray(over, np.float64), np.asarray(under, np.float64)
    sums = [
        (above[drawn].sum(axis=1), below[drawn].sum(axis=1)) for drawn in _drawn(len(above), seed)
    ]
    low, high = np.quantile(np.concatenate([_ratio(*pair) for pair in sums]), (0.025, 0.975))
    return Interval(float(_ratio(above.sum(), below.sum())), float(low), float(high))


def bootstrap_repeats(
    runs: NDArray[np.float64], against: NDArray[np.float64] | None = None, seed: int = 0
) -> Interval:
    """Mean over repeats and items, (R, I), with its interval; with `against`, (R', I) on the same items, that of the difference.

    Each resample draws items, the same for both sides, and for each side repeats, with replacement (the pigeonhole bootstrap, Owen 2007,
    Ann. Appl. Stat. 1(2)); so the interval holds what another held-out set and other training seeds would change. With one repeat it is
    `bootstrap`'s. Few repeats say little about their own spread: three make its part of the variance a third too small.
    """
    return (
        bootstrap_sum([runs], [1.0], seed)
        if against is None
        else bootstrap_sum([runs, against], [1.0, -1.0], seed)
    )


def bootstrap_sum(
    sides: Sequence[NDArray[np.float64]], weights: Sequence[float], seed: int = 0
) -> Interval:
    """The weighted sum of the means of `sides`, each (R, I) with an R of its own, on the same items, with its interval as above."""
    if all(len(side) == 1 for side in sides):
        return bootstrap(_sum([side[0] for side in sides], weights).tolist(), seed)
    random = np.random.default_rng(seed)
    items = sides[0].shape[1]

    def drawn() -> float:
        taken = random.integers(items, size=items)
        return float(
            _sum(
                [
                    side[random.integers(len(side), size=len(side))][:, taken].mean()
                    for side in sides
                ],
                weights,
            )
        )

    low, high = np.quantile([drawn() for _ in range(RESAMPLES)], (0.025, 0.975))
    return Interval(float(_sum([side.mean() for side in sides], weights)), float(low), float(high))


def _drawn(items: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """RESAMPLES rows of `items` numbers below `items`, some rows at a time."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(items, 1))
    for first in range(0, RESAMPLES, rows):
        yield random.integers(items, size=(min(rows, RESAMPLES - first), items))


def _ratio(over: Any, under: Any) -> Any:
    return np.divide(over, under, out=np.zeros_like(over), where=np.asarray(under) > 0)


def _sum(values: Sequence[Any], weights: Sequence[float]) -> Any:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
