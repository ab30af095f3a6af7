"""Intervals of means, differences and ratios.

Many items with spread get a percentile bootstrap, others a rule of
`pipeline.evaluation.small_samples`.

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
BLOCK = 1 << 20  # random item numbers held in memory at once
TAILS = (0.025, 0.975)


class Interval(BaseModel, frozen=True):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is on that side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def bootstrap(values: Sequence[float], seed: int = 0, scale: Scale | None = None) -> Interval:
    """Return the mean over items with its interval; None means the narrowest usual scale.

    The interval is a percentile one (Efron & Tibshirani 1993, ch. 13), or one for small samples.
    For a paired difference, pass the differences item by item and the scale (-1, 1).
    """
    data = np.asarray(values, np.float64)
    scale = scale or small_samples.scale_of(data)
    if small_samples.needed(data, scale):
        return _around(data.mean(), small_samples.interval(data, scale))
    means = [data[items].mean(axis=1) for items in _resamples(len(data), seed)]
    return _interval(data.mean(), np.concatenate(means))


def bootstrap_ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Interval:
    """Return the ratio of two sums over items with its interval; a ratio to 0 counts as 0.

    Each item's `over` is between 0 and its `under`.
    """
    above, below = np.asarray(over, np.float64), np.asarray(under, np.float64)
    ratio = _ratio(above.sum(), below.sum())
    size = below.mean() or 1.0
    # Each item's share in the ratio, so that their mean is the ratio (linearised).
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
    """Return the mean over repeats and items, (R, I), or its difference to `against`, (R', I).

    Each resample draws items, the same for both sides, and for each side repeats, with replacement
    (the pigeonhole bootstrap, Owen 2007, Ann. Appl. Stat. 1(2)). So the interval covers both other
    held-out examples and other training seeds. With one repeat it equals `bootstrap`'s. With few
    repeats their spread is underestimated: with three, their share of the variance is a third too
    small. `scale` is that of one side's values.
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
    """Return the weighted sum of the means of `sides`, with its interval as above.

    Each side is (R, I): the same items, and its own number of repeats.
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
    """Return an interval that holds its mean, whatever rounding does to its ends."""
    mean = float(mean)
    return Interval(mean=mean, low=min(mean, ends[0]), high=max(mean, ends[1]))


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
