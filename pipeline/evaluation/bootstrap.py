"""Intervals of means, differences and ratios.

If there are many items and their values differ, the interval is a percentile bootstrap. If not, it
comes from `pipeline.evaluation.small_samples`.

Dimension names: I items (held-out examples), R repeats of a model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from pipeline.evaluation import small_samples
from pipeline.evaluation.small_samples import UNIT, Scale

RESAMPLES = 10_000
BLOCK = 1 << 20  # indices drawn per block; limits memory
TAILS = (0.025, 0.975)


class Interval(BaseModel, frozen=True):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the whole interval is above 0, -1 if it is below 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def bootstrap(values: Sequence[float], seed: int = 0, scale: Scale | None = None) -> Interval:
    """Return the mean over items with its interval.

    The interval is a percentile bootstrap (Efron & Tibshirani 1993, ch. 13), or one for small
    samples. `scale` has the lowest and highest possible value; if it is None,
    `small_samples.scale_of` guesses it. For a paired difference, pass the differences item by item
    and the scale (-1, 1).
    """
    data = np.asarray(values, np.float64)
    scale = scale or small_samples.scale_of(data)
    if small_samples.needed(data, scale):
        return _around(data.mean(), small_samples.interval(data, scale))
    means = [data[items].mean(axis=1) for items in _resamples(len(data), seed)]
    return _interval(data.mean(), np.concatenate(means))


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0
) -> Interval:
    """Return sum(numerators) / sum(denominators) with its interval.

    Each item's numerator is between 0 and its denominator. If the denominator of the sum is 0, the
    ratio is 0.
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    ratio = _ratio(above.sum(), below.sum())
    size = below.mean() or 1.0
    # Values whose mean is the ratio and whose variance is about that of the ratio (linearisation),
    # so that the rules for the mean of few values apply.
    shares = ratio + (above - ratio * below) / size
    if small_samples.needed(shares, UNIT):
        return _around(ratio, small_samples.interval(shares, UNIT))
    ratios = [
        _ratio(above[items].sum(axis=1), below[items].sum(axis=1))
        for items in _resamples(len(above), seed)
    ]
    return _interval(ratio, np.concatenate(ratios))


def bootstrap_repeats(
    runs: NDArray[np.float64],
    against: NDArray[np.float64] | None = None,
    seed: int = 0,
    scale: Scale | None = None,
) -> Interval:
    """Return the mean of `runs` (R, I), or its difference to the mean of `against` (R', I).

    Each resample draws items with replacement, the same ones for both sides. It also draws repeats,
    separately for each side (the pigeonhole bootstrap, Owen 2007, Ann. Appl. Stat. 1(2)). So the
    interval includes the variation from the held-out examples and from the training seeds. With one
    repeat on each side, the interval is that of `bootstrap`. With few repeats, the variance between
    repeats is underestimated: by a third with three repeats. `scale` is the scale of the values of
    one side, not of the difference.
    """
    if against is None:
        return bootstrap_sum([runs], [1.0], seed, scale)
    return bootstrap_sum([runs, against], [1.0, -1.0], seed, scale)


def bootstrap_sum(
    sides: Sequence[NDArray[np.float64]],
    weights: Sequence[float],
    seed: int = 0,
    scale: Scale | None = None,
) -> Interval:
    """Return the weighted sum of the means of `sides`, with an interval as in `bootstrap_repeats`.

    Each side is (R, I). All sides have the same items; the number of repeats may differ.
    """
    scale = scale or small_samples.scale_of(np.concatenate([side.ravel() for side in sides]))
    scale = _scale_of_sum(scale, weights)
    values = _sum([side.mean(axis=0) for side in sides], weights)
    if all(len(side) == 1 for side in sides):
        return bootstrap(values.tolist(), seed, scale)
    mean = _sum([side.mean() for side in sides], weights)
    if small_samples.needed(values, scale):
        repeats = [
            weight * side.mean(axis=1)
            for side, weight in zip(sides, weights, strict=True)
            if len(side) > 1
        ]
        return _around(mean, small_samples.interval(values, scale, repeats))
    random = np.random.default_rng(seed)
    count = sides[0].shape[1]

    def resampled() -> float:
        items = random.integers(count, size=count)
        means = []
        for side in sides:
            repeats = random.integers(len(side), size=len(side))
            means.append(side[repeats][:, items].mean())
        return float(_sum(means, weights))

    return _interval(mean, np.array([resampled() for _ in range(RESAMPLES)]))


def _scale_of_sum(scale: Scale, weights: Sequence[float]) -> Scale:
    ends = [sorted((weight * scale[0], weight * scale[1])) for weight in weights if weight]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def _around(mean: Any, ends: tuple[float, float]) -> Interval:
    """Return the interval; widen it to contain the mean if rounding put the mean outside."""
    mean = float(mean)
    return Interval(mean=mean, low=min(mean, ends[0]), high=max(mean, ends[1]))


def _interval(mean: Any, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, TAILS)
    return Interval(mean=float(mean), low=float(low), high=float(high))


def _resamples(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield blocks of rows, RESAMPLES rows in all; each row has `count` random item numbers."""
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(count, 1))
    for first in range(0, RESAMPLES, rows):
        yield random.integers(count, size=(min(rows, RESAMPLES - first), count))


def _ratio(numerator: Any, denominator: Any) -> Any:
    is_positive = np.asarray(denominator) > 0
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=is_positive)


def _sum(values: Sequence[Any], weights: Sequence[float]) -> Any:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
