"""The charts, drawn as SVG when the report is written: facts and a width in, markup out.

Letters are 12 px at every width; a chart is drawn once for wide and once for narrow screens, and the style sheet shows the one that fits.
Colour is never alone: models have marks and names, lines have dashes and names, bars have figures.
"""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from pipeline.report import svg
from pipeline.report.facts import Cost, Curve, Estimate, Group, Panel, Point, Reliability, Waterfall
from pipeline.report.svg import (
    BOLD,
    Box,
    apart,
    bar,
    drawing,
    fit,
    line,
    linear,
    logarithmic,
    mark,
    path,
    short,
    text,
    ticks,
    width_of,
)

WIDE, NARROW, PANEL = 1040.0, 326.0, 326.0
ROW = 30.0
DASHES = ("none", "7 4", "2 4", "9 3 2 3", "1 3")
LOG_FROM, COST_LOG_FROM = 20.0, 4.0  # times the smallest value: from here on a logarithmic axis


def both(draw: Callable[[float, str], Markup]) -> Markup:
    """A chart for wide screens and the same for narrow ones."""
    return draw(WIDE, "wide") + draw(NARROW, "narrow")


def colour(name: str, arms: Sequence[str]) -> str:
    """Of a model: teacher and base have their own, arms one each in order."""
    students = [arm for arm in arms if arm not in ("teacher", "base")]
    return (
        f"var(--{name})"
        if name in ("teacher", "base") or name not in students
        else f"var(--series-{students.index(name) % 5 + 1})"
    )


def shape(name: str, arms: Sequence[str]) -> int:
    return (
        sorted(arms, key=lambda arm: (arm != "teacher", arm != "base")).index(name)
        if name in arms
        else 0
    )


def waterfall(found: Waterfall, width: float, kind: str) -> Markup:
    """What each filter took off the samples, from all of them down to those kept."""
    rows = [("written by the teacher", found.given, 0, "whole")]
    left = found.given
    for reason, number in found.drops:
        left -= number
        rows.append((reason, number, left, "drop"))
    rows.append(("kept", found.kept, 0, "kept"))
    names = min(max(width_of(row[0]) for row in rows) + 12, width * 0.45) if kind == "wide" else 0.0
    pitch, lift = (ROW, 0.0) if names else (ROW + 14, 15.0)
    x = linear(0, found.given, names, width - 70)
    parts = []
    for number, (name, count, start, look) in enumerate(rows):
        top = number * pitch + lift + 4
        end = x(start + count)
        parts.append(
            text(0, top - 5, fit(name, width))
            if not names
            else text(names - 12, top + 14, fit(name, names - 12), anchor="end")
        )
        parts.append(bar(x(start), top, max(end - x(start), 2.0), 19, f"bar-fill {look}"))
        parts.append(text(end + 8, top + 14, f"{'-' if look == 'drop' else ''}{count:,}", "strong"))
        if number + 1 < len(rows):
            edge = end if look == "whole" else x(start)
            parts.append(line(edge, top + 19, edge, top + pitch, "grid"))
    title = f"Of {found.given:,} samples {found.kept:,} are kept; " + "; ".join(
        f"{reason} took {number:,}" for reason, number in found.drops
    )
    return drawing(width, len(rows) * pitch + 4, title, kind, *parts)


def estimates(found: Sequence[Estimate], width: float, kind: str, what: str, zero: bool) -> Markup:
    """Means with their intervals, one a row; with `zero` a line that an interval has to keep clear of."""
    low, high = _span(
        [one.interval.low for one in found] + [0.0] * zero,
        [one.interval.high for one in found] + [0.0] * zero,
    )
    names = (
        min(max(width_of(one.name, BOLD) for one in found) + 16, width * 0.3)
        if kind == "wide"
        else 0.0
    )
    after = 370.0 if kind == "wide" else 0.0
    pitch = ROW if names else ROW + 32
    x = linear(low, high, names + 8, width - after - 14)
    bottom = len(found) * pitch + 4
    parts = [*_x_axis(x, ticks(low, high), 0, bottom, signed=zero)]
    parts += [line(x(0), 0, x(0), bottom, "zero")] if zero else []
    for number, one in enumerate(found):
        y = number * pitch + (17 if names else 30)
        style = "stroke: var(--accent); stroke-width: 2"
        interval = one.interval
        parts.append(line(x(interval.low), y, x(interval.high), y, style=style))
        parts += [
            line(x(end), y - 5, x(end), y + 5, style=style) for end in (interval.low, interval.high)
        ]
        parts.append(mark(1 if zero else 0, x(interval.mean), y, "fill: var(--accent)"))
        parts.append(
            text(0, y + 4, fit(one.name, names - 8, BOLD), "strong")
            if names
            else text(0, y - 12, fit(one.name, width, BOLD), "strong halo")
        )
        parts.append(
            text(width - after, y + 4, fit(one.says, after))
            if names
            else text(0, y + 21, fit(one.says, width, 6.3), "soft halo")
        )
    return drawing(
        width,
        bottom + 22,
        f"{what}: " + "; ".join(f"{one.name} {one.says}" for one in found),
        kind,
        *parts,
    )


def groups(found: Sequence[Group], arms: Sequence[str], width: float, kind: str) -> Markup:
    """Each slice's score by model, as bars with intervals."""
    names = min(
        max(width_of(one.name) for group in found for one in group.scores) + 30, width * 0.3
    )
    after = 140.0
    x = linear(
        0,
        max(1.0, *(one.interval.high for group in found for one in group.scores)),
        names,
        width - after - 8,
    )
    parts, top = [], 0.0
    for group in found:
        parts.append(
            text(0, top + 16, fit(f"{group.name}, {group.held_out:,} seeds", width, BOLD), "strong")
        )
        top += 24
        for one in group.scores:
            style = f"fill: {colour(one.name, arms)}"
            interval = one.interval
            parts.append(mark(shape(one.name, arms), 6, top + 9, style))
            parts.append(text(18, top + 13, fit(one.name, names - 24)))
            parts.append(
                bar(names, top + 3, x(interval.mean) - names, 12, style=f"{style}; opacity: 0.55")
            )
            parts.append(line(x(interval.low), top + 9, x(interval.high), top + 9, "zero"))
            parts += [
                line(x(end), top + 5, x(end), top + 13, "zero")
                for end in (interval.low, interval.high)
            ]
            parts.append(text(width, top + 13, one.says, anchor="end"))
            top += 20
        top += 14
    title = "Score by group: " + "; ".join(
        f"{group.name}: {', '.join(f'{one.name} {one.says}' for one in group.scores)}"
        for group in found
    )
    return drawing(width, top, title, kind, *parts)


def curves(panel: Panel, arms: Sequence[str]) -> Markup:
    """Lines over steps, each named at its end."""
    width, height, left, bottom, top = PANEL, 220.0, 44.0, 182.0, 10.0
    values = [value for one in panel.curves for _, value in one.points]
    steps = [step for one in panel.curves for step, _ in one.points]
    named = [one for one in panel.curves if not one.points_only] or list(panel.curves)
    labels = [_named(one, named) for one in named]
    right = width - max(width_of(name, BOLD) for name in labels) - 12
    x = linear(min(steps), max(steps), left + 4, right)
    y, marks = _y_scale(values, panel.unit, bottom, top)
    percent = panel.unit == "%"
    parts = [
        *_y_axis(y, marks, left, right + 4, percent),
        *_x_axis(x, ticks(min(steps), max(steps)) or [min(steps)], bottom, bottom),
    ]
    parts.append(line(left, bottom, right + 4, bottom, "axis"))
    ends = apart([y(one.points[-1][1]) + 4 for one in named], 14.0, top + 4, bottom + 4)
    parts += [mark for one in panel.curves for mark in _curve(one, panel, arms, x, y)]
    for one, name, place in zip(named, labels, ends, strict=True):
        parts.append(
            text(right + 10, place, name, "strong halo", style=f"fill: {colour(one.arm, arms)}")
        )
    parts.append(text(right + 4, height - 4, "step", "soft", "end"))
    said = "; ".join(
        f"{one.arm}, {one.name}: from {one.points[0][1]:.3g} to {one.points[-1][1]:.3g}"
        for one in panel.curves
    )
    return drawing(width, height, f"{panel.title} by training step: {said}", "", *parts)


def _named(one: Curve, among: Sequence[Curve]) -> str:
    if len({other.name for other in among}) == 1:
        return one.arm
    return one.name if len({other.arm for other in among}) == 1 else f"{one.arm}, {one.name}"


def _curve(
    one: Curve, panel: Panel, arms: Sequence[str], x: svg.Scale, y: svg.Scale
) -> list[Markup]:
    style = colour(one.arm, arms)
    points = [(x(step), y(value)) for step, value in one.points]
    if one.points_only or len(points) == 1:
        return [mark(shape(one.arm, arms), *point, f"fill: {style}", 3.5) for point in points]
    names = list(dict.fromkeys(other.name for other in panel.curves))
    order = (
        names.index(one.name)
        if len(names) > 1 and not any(other.points_only for other in panel.curves)
        else list(arms).index(one.arm)
    )
    return [path(points, f"stroke: {style}; stroke-dasharray: {DASHES[order % len(DASHES)]}")]


def scatter(found: Cost, arms: Sequence[str], metric: str) -> Markup:
    """Score with its interval over what it costs. The untouched student may lie far below the others; then it stands on the lower edge."""
    width, height, left, bottom, top = PANEL, 250.0, 44.0, 206.0, 12.0
    x, costs = _cost_scale([one.cost for one in found.points], left + 6, width - 12)
    judged = [one for one in found.points if one.model != "base"] or found.points
    y, marks = _y_scale(
        [one.score.low for one in judged] + [one.score.high for one in judged], "", bottom, top
    )
    parts = [
        *_y_axis(y, marks, left, width - 4),
        *_x_axis(x, costs, top, bottom),
        line(left, bottom, width - 4, bottom, "axis"),
    ]
    spots = [_spot(one, arms, x, y, bottom) for one in found.points]
    taken = [Box(spot.left, spot.top - 2, spot.right, spot.bottom + 2) for spot, _, _ in spots]
    for (spot, name, drawn), one in zip(spots, found.points, strict=True):
        box = _room(
            spot,
            min(y(one.score.mean), bottom - 7),
            width_of(name, BOLD),
            taken,
            Box(left, 0, width, bottom),
        )
        taken.append(box)
        parts += [drawn, text(box.left, box.bottom - 3, name, "strong halo")]
    parts.append(text(width, height - 8, found.unit, "soft", "end"))
    said = "; ".join(
        f"{one.model} {one.score.mean:.3f} at {short(one.cost)}" for one in found.points
    )
    return drawing(width, height, f"{metric} score over {found.unit}: {said}", "", *parts)


def _spot(
    one: Point, arms: Sequence[str], x: svg.Scale, y: svg.Scale, bottom: float
) -> tuple[Box, str, Markup]:
    """(what it covers, its label, its drawing)."""
    place, style = x(one.cost), colour(one.model, arms)
    if y(one.score.mean) > bottom:
        return (
            Box(place - 7, bottom - 14, place + 7, bottom),
            f"{one.model} {one.score.mean:.3f}",
            mark(4, place, bottom - 6, f"fill: {style}", 5.5),
        )
    high, low = y(one.score.high), min(y(one.score.low), bottom)
    whisker = line(place, high, place, low, style=f"stroke: {style}; stroke-width: 2")
    return (
        Box(place - 7, high, place + 7, low),
        one.model,
        whisker + mark(shape(one.model, arms), place, y(one.score.mean), f"fill: {style}", 5.5),
    )


def _cost_scale(costs: Sequence[float], start: float, end: float) -> tuple[svg.Scale, list[float]]:
    """(scale, ticks): from 0, or logarithmic where costs are of several magnitudes."""
    if max(costs) / min(costs) > COST_LOG_FROM:
        low, high = min(costs) / 1.25, max(costs) * 1.25
        return logarithmic(low, high, start, end), svg.decades(low, high)
    return linear(0, max(costs) * 1.08, start, end), ticks(0, max(costs) * 1.08)


def _room(spot: Box, y: float, width: float, taken: Sequence[Box], frame: Box) -> Box:
    """Where a label of this width fits: beside its point at height `y`, over or under it, then farther up and down."""
    middle = (spot.left + spot.right - width) / 2
    right, left = spot.right + 3, spot.left - 3 - width
    near = [
        (right, y),
        (right, y + 13),
        (right, y - 13),
        (middle, spot.top - 9),
        (middle, spot.bottom + 10),
        (left, y),
        (left, y + 13),
        (left, y - 13),
    ]
    far = [
        (side, y + sign * 10.0 * number)
        for number in range(2, 20)
        for sign in (-1, 1)
        for side in (right, left, middle)
    ]
    boxes = [Box(side, height - 7, side + width, height + 7) for side, height in near + far]
    free = [
        box for box in boxes if frame.holds(box) and not any(box.meets(other) for other in taken)
    ]
    return (free or boxes)[0]


def reliability(found: Reliability, arms: Sequence[str]) -> Markup:
    """How often answers were right, over how sure the model was; on the diagonal confidence can be believed."""
    width, height, left, bottom, top, right = PANEL, 262.0, 44.0, 220.0, 8.0, 260.0
    x, y = linear(0, 1, left, right), linear(0, 1, bottom, top)
    parts = [
        *_y_axis(y, [0, 0.25, 0.5, 0.75, 1], left, right, True),
        *_x_axis(x, [0, 0.25, 0.5, 0.75, 1], top, bottom, percent=True),
    ]
    parts.append(line(x(0), y(0), x(1), y(1), "guide"))
    style = colour(found.model, arms)
    points = [(x(one.confidence), y(one.accuracy)) for one in found.bins]
    parts += [path(points, f"stroke: {style}")] if len(points) > 1 else []
    most = max(one.count for one in found.bins)
    parts += [
        mark(shape(found.model, arms), *point, f"fill: {style}", 3 + 4 * (one.count / most) ** 0.5)
        for point, one in zip(points, found.bins, strict=True)
    ]
    parts.append(text(right, height - 6, "confidence", "soft", "end"))
    said = "; ".join(
        f"{one.confidence:.0%} sure, {one.accuracy:.0%} right, {one.count:,} answers"
        for one in found.bins
    )
    return drawing(width, height, f"Reliability of {found.model}: {said}", "", *parts)


def _y_scale(
    values: Sequence[float], unit: str, bottom: float, top: float
) -> tuple[svg.Scale, list[float]]:
    """(scale, ticks): 0 to 1 for shares, logarithmic where values are of several magnitudes."""
    if unit == "%":
        return linear(0, 1, bottom, top), [0, 0.25, 0.5, 0.75, 1]
    if min(values) > 0 and max(values) / min(values) > LOG_FROM:
        low, high = min(values) / 1.1, max(values) * 1.1
        return logarithmic(low, high, bottom, top), svg.decades(low, high)
    low, high = _span(values, values)
    return linear(low, high, bottom, top), ticks(low, high)


def _span(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest, with a margin; not below 0 if nothing is."""
    low, high = min(lows), max(highs)
    margin = (high - low) * 0.06 or 0.05
    return (low - margin if low < 0 else max(0.0, low - margin)), high + margin


def _y_axis(
    y: svg.Scale, marks: Sequence[float], left: float, right: float, percent: bool = False
) -> list[Markup]:
    lines = [line(left, y(value), right, y(value), "grid") for value in marks]
    return lines + [
        text(left - 7, y(value) + 4, f"{value:.0%}" if percent else short(value), "soft", "end")
        for value in marks
    ]


def _x_axis(
    x: svg.Scale,
    marks: Sequence[float],
    top: float,
    bottom: float,
    signed: bool = False,
    percent: bool = False,
) -> list[Markup]:
    lines = [line(x(value), top, x(value), bottom, "grid") for value in marks]
    names = [
        f"{value:.0%}"
        if percent
        else f"{value:+.4g}"
        if signed and abs(value) > 1e-9
        else short(value)
        for value in marks
    ]
    return lines + [
        text(x(value), bottom + 16, name, "soft", "middle")
        for value, name in zip(marks, names, strict=True)
    ]
