"""Scales, ticks and axes of the charts."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from pipeline.report.svg import line, text

# If the largest value divided by the smallest is above this ratio, the axis is logarithmic.
LOG_RATIO, COST_LOG_RATIO = 20.0, 4.0
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

Scale = Callable[[float], float]  # value -> pixel


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Map low..high onto start..end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Map low..high onto start..end, equal ratios to equal distances."""
    scale = linear(math.log(low), math.log(high), start, end)
    return lambda value: scale(math.log(value))


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return about `about` round values between `low` and `high`, which may be among them."""
    rough = (high - low) / about or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = next(step for step in steps if step >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return ticks of a logarithmic axis: 1, 2, 5, 10, …; powers of ten if those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [10.0**power * factor for power in powers for factor in (1, 2, 5)]
    inside = [value for value in values if low * 0.999 <= value <= high * 1.001]
    tens = [value for value in inside if abs(math.log10(value) - round(math.log10(value))) < 1e-9]
    return tens if len(inside) > 7 and len(tens) > 1 else inside


def short(value: float) -> str:
    """Format an axis label: 0.0005, 0.25, 1,200."""
    if value and abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def percent(value: float) -> str:
    """Format a share as an axis label."""
    return f"{value:.0%}"


def signed(value: float) -> str:
    """Format a difference as an axis label."""
    return f"{value:+.4g}" if abs(value) > 1e-9 else short(value)


def cost_scale(costs: Sequence[float], start: float, end: float) -> tuple[Scale, list[float]]:
    """Return (scale, ticks) of an axis that begins at 0, or is logarithmic for unlike costs."""
    if max(costs) / min(costs) > COST_LOG_RATIO:
        low, high = min(costs) / 1.25, max(costs) * 1.25
        return logarithmic(low, high, start, end), decades(low, high)
    high = max(costs) * 1.08
    return linear(0, high, start, end), ticks(0, high)


def value_scale(values: Sequence[float], bottom: float, top: float) -> tuple[Scale, list[float]]:
    """Return (scale, ticks) of a vertical axis; it is logarithmic if the values differ much."""
    if min(values) > 0 and max(values) / min(values) > LOG_RATIO:
        low, high = min(values) / 1.1, max(values) * 1.1
        return logarithmic(low, high, bottom, top), decades(low, high)
    low, high = padded_range(values)
    return linear(low, high, bottom, top), ticks(low, high)


def padded_range(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values with a margin; it begins below 0 only if a value does."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or 0.05
    return (low - margin if low < 0 else max(0.0, low - margin)), high + margin


def y_axis(
    y: Scale,
    values: Sequence[float],
    left: float,
    right: float,
    label: Callable[[float], str] = short,
) -> list[Markup]:
    """Draw horizontal grid lines from `left` to `right`, with labels at their left."""
    lines = [line(left, y(value), right, y(value), "grid") for value in values]
    return lines + [text(left - 7, y(value) + 4, label(value), "soft", "end") for value in values]


def x_axis(
    x: Scale,
    values: Sequence[float],
    top: float,
    bottom: float,
    label: Callable[[float], str] = short,
) -> list[Markup]:
    """Draw vertical grid lines from `top` to `bottom`, with labels below."""
    lines = [line(x(value), top, x(value), bottom, "grid") for value in values]
    return lines + [text(x(value), bottom + 16, label(value), "soft", "middle") for value in values]
