"""Intervals for few examples, or for values that hardly differ.

A bootstrap draws only from the observed values. If all values are equal, its interval has no width;
if there are few values, its interval is too narrow. The rules here allow for values that were
possible but not observed.

Dimension names: I items (held-out examples), R repeats of a model.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

MANY = 30  # with at least this many items, whose values differ, the bootstrap is used
# An exact two-sided test needs at least six items that differ to reach p < 0.05: with five, the
# smallest possible p is 2 / 2**5 = 0.0625. With fewer than six, no claim is made.
FLOOR = 6
LEVEL = 0.05  # every interval has confidence 1 - LEVEL; p is significant if it is below LEVEL
ONE_VALUE = 9.68  # half the width of an interval from one value, in units of the value
TOO_FEW = f"too few held-out examples for any claim (at least {FLOOR})"
UNIT = (0.0, 1.0)  # scale of a score
POSITIVE = (0.0, math.inf)  # scale of a divergence

Scale = tuple[float, float]  # lowest and highest possible value
Ends = tuple[float, float]  # low and high end of an interval


def scale_of(values: NDArray[np.float64]) -> Scale:
    """Guess the scale from the values: that of a score, of a difference, or unbounded."""
    low, high = (values.min(), values.max()) if values.size else UNIT
    for scale in (UNIT, (-1.0, 1.0)):
        if scale[0] <= low and high <= scale[1]:
            return scale
    return -math.inf, math.inf


def needed(values: NDArray[np.float64], scale: Scale) -> bool:
    """Return True if (I,) values are too few for a bootstrap, or hardly differ on a bounded scale.

    On an unbounded scale there is no lowest or highest value to add, so there the bootstrap is used
    for many items even if they hardly differ.
    """
    return len(values) < MANY or (_is_bounded(scale) and not _has_spread(values))


def wilson(right: int, count: int) -> Ends:
    """Return the score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22)."""
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    share, scaled = right / count, z * z / count
    middle = share + scaled / 2
    half = z * math.sqrt(share * (1 - share) / count + scaled / (4 * count))
    return (middle - half) / (1 + scaled), (middle + half) / (1 + scaled)


def interval(
    values: NDArray[np.float64], scale: Scale, repeats: Sequence[NDArray[np.float64]] = ()
) -> Ends:
    """Return the interval of the mean of (I,) values on a scale.

    `repeats` has one array (R,) for each side that has several repeats: the weighted mean of each
    repeat. The rules, in this order:

    - answers right or wrong, of one training run: Wilson's interval;
    - fewer than FLOOR items: the whole scale, because p of so few is never below 0.05;
    - fewer than FLOOR values that differ: Student's t with I - 1 degrees of freedom, after adding
      one value at each end of the scale, as Bonett & Price (2012, J. Educ. Behav. Stat. 37) do for
      paired proportions;
    - else Student's t.

    On an unbounded scale nothing is added. There, the interval of a single value is that of Wall,
    Boen & Tweedie (2001, Am. Stat. 55).
    """
    if scale == UNIT and not repeats and np.isin(values, UNIT).all():
        return wilson(int(values.sum()), len(values))
    if len(values) < FLOOR and _is_bounded(scale):
        return scale
    if len(values) == 1:
        half = ONE_VALUE * abs(float(values[0]))
        return max(scale[0], float(values[0]) - half), float(values[0]) + half
    padded = values
    if _is_bounded(scale) and not _has_spread(values):
        padded = np.append(values, scale)
    # each source of variance: the variance of its mean, and its degrees of freedom
    sources = [(float(padded.var(ddof=1)) / len(padded), len(values) - 1)]
    sources += [(float(means.var(ddof=1)) / len(means), len(means) - 1) for means in repeats]
    half = t_quantile(_freedom(sources)) * math.sqrt(sum(variance for variance, _ in sources))
    mean = float(padded.mean())
    return max(scale[0], mean - half), min(scale[1], mean + half)


def t_quantile(freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t.

    For one and two degrees of freedom it is exact. From three on it is the Cornish-Fisher series
    (Abramowitz & Stegun 26.7.5), with an error below 0.3 %. A fraction below three is rounded down.
    """
    if freedom < 2:
        return math.tan(math.pi * (1 - LEVEL) / 2)
    if freedom < 3:
        return (1 - LEVEL) * math.sqrt(2 / (1 - (1 - LEVEL) ** 2))
    z = NormalDist().inv_cdf(1 - LEVEL / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )


def _is_bounded(scale: Scale) -> bool:
    return all(map(math.isfinite, scale))


def _has_spread(values: NDArray[np.float64]) -> bool:
    """Return True if at least FLOOR of (I,) values differ from the most common one."""
    counts = np.unique(values.round(9), return_counts=True)[1]
    return bool(len(values) - counts.max() >= FLOOR)


def _freedom(sources: Sequence[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch 1947; Satterthwaite 1946)."""
    total = sum(variance for variance, _ in sources)
    if not total:
        return sources[0][1]
    return total**2 / sum(variance**2 / freedom for variance, freedom in sources)
