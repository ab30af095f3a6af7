"""Charts with two axes: learning curves, score against cost, and reliability.

Each chart is drawn once, as wide as a phone. Besides colour, lines have different dashes and names,
and points have different marks.
"""

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.report.axes import (
    SHARES,
    Scale,
    cost_scale,
    linear,
    percent,
    short,
    ticks,
    value_scale,
    x_axis,
    y_axis,
)
from pipeline.report.charts import colour, shape
from pipeline.report.facts import Cost, Curve, Panel, Point, Reliability
from pipeline.report.svg import BOLD, Box, apart, drawing, line, mark, path, text, width_of

WIDTH, LEFT = 326.0, 44.0
DASHES = ("none", "7 4", "2 4", "9 3 2 3", "1 3")


def curves(panel: Panel, arms: Sequence[str]) -> Markup:
    """Draw curves over training steps; the name of a curve stands at its end."""
    height, bottom, top = 220.0, 182.0, 10.0
    points = [point for curve in panel.curves for point in curve.points]
    steps, values = [step for step, _ in points], [value for _, value in points]
    named = [curve for curve in panel.curves if not curve.points_only] or list(panel.curves)
    labels = [_label(curve, named) for curve in named]
    right = WIDTH - max(width_of(label, BOLD) for label in labels) - 12
    x = linear(min(steps), max(steps), LEFT + 4, right)
    if panel.unit == "%":
        y, y_values, y_label = linear(0, 1, bottom, top), list(SHARES), percent
    else:
        (y, y_values), y_label = value_scale(values, bottom, top), short
    parts = y_axis(y, y_values, LEFT, right + 4, y_label)
    parts += x_axis(x, ticks(min(steps), max(steps)) or [min(steps)], bottom, bottom)
    parts.append(line(LEFT, bottom, right + 4, bottom, "axis"))
    for curve in panel.curves:
        parts += _curve(curve, panel, arms, x, y)
    ends = apart([y(curve.points[-1][1]) + 4 for curve in named], 14.0, top + 4, bottom + 4)
    for curve, label, place in zip(named, labels, ends, strict=True):
        style = f"fill: {colour(curve.arm, arms)}"
        parts.append(text(right + 10, place, label, "strong halo", style=style))
    parts.append(text(right + 4, height - 4, "step", "soft", "end"))
    ranges = [
        f"{curve.arm}, {curve.name}: from {curve.points[0][1]:.3g} to {curve.points[-1][1]:.3g}"
        for curve in panel.curves
    ]
    title = f"{panel.title} by training step: {'; '.join(ranges)}"
    return drawing(WIDTH, height, title, "", *parts)


def _label(curve: Curve, curves: Sequence[Curve]) -> str:
    """Return the shortest name that differs from those of the other curves."""
    if len({other.name for other in curves}) == 1:
        return curve.arm
    same_arm = len({other.arm for other in curves}) == 1
    return curve.name if same_arm else f"{curve.arm}, {curve.name}"


def _curve(curve: Curve, panel: Panel, arms: Sequence[str], x: Scale, y: Scale) -> list[Markup]:
    style = colour(curve.arm, arms)
    points = [(x(step), y(value)) for step, value in curve.points]
    if curve.points_only or len(points) == 1:
        return [mark(shape(curve.arm, arms), *point, f"fill: {style}", 3.5) for point in points]
    names = list(dict.fromkeys(other.name for other in panel.curves))
    if len(names) > 1 and not any(other.points_only for other in panel.curves):
        dash = names.index(curve.name)
    else:
        dash = list(arms).index(curve.arm)
    dashes = DASHES[dash % len(DASHES)]
    return [path(points, f"stroke: {style}; stroke-dasharray: {dashes}")]


def scatter(cost: Cost, arms: Sequence[str], metric: str) -> Markup:
    """Draw each model's score and interval against its cost.

    If the base student is far below the others, it is drawn on the lower edge.
    """
    height, bottom, top = 250.0, 206.0, 12.0
    x, costs = cost_scale([point.cost for point in cost.points], LEFT + 6, WIDTH - 12)
    scaled = [point for point in cost.points if point.model != "base"] or cost.points
    ends = [end for point in scaled for end in (point.score.low, point.score.high)]
    y, values = value_scale(ends, bottom, top)
    parts = y_axis(y, values, LEFT, WIDTH - 4)
    parts += x_axis(x, costs, top, bottom)
    parts.append(line(LEFT, bottom, WIDTH - 4, bottom, "axis"))
    points = [_point(point, arms, x, y, bottom) for point in cost.points]
    taken = [Box(box.left, box.top - 2, box.right, box.bottom + 2) for box, _, _ in points]
    frame = Box(LEFT, 0, WIDTH, bottom)
    for (box, label, drawn), point in zip(points, cost.points, strict=True):
        centre = min(y(point.score.mean), bottom - 7)
        place = _place_label(box, centre, width_of(label, BOLD), taken, frame)
        taken.append(place)
        parts += [drawn, text(place.left, place.bottom - 3, label, "strong halo")]
    parts.append(text(WIDTH, height - 8, cost.unit, "soft", "end"))
    figures = [
        f"{point.model} {point.score.mean:.3f} at {short(point.cost)}" for point in cost.points
    ]
    title = f"{metric} score over {cost.unit}: {'; '.join(figures)}"
    return drawing(WIDTH, height, title, "", *parts)


def _point(
    point: Point, arms: Sequence[str], x: Scale, y: Scale, bottom: float
) -> tuple[Box, str, Markup]:
    """Return (the box that a point covers, its label, its drawing)."""
    place, style = x(point.cost), colour(point.model, arms)
    centre = y(point.score.mean)
    if centre > bottom:
        return (
            Box(place - 7, bottom - 14, place + 7, bottom),
            f"{point.model} {point.score.mean:.3f}",
            mark(4, place, bottom - 6, f"fill: {style}", 5.5),
        )
    high, low = y(point.score.high), min(y(point.score.low), bottom)
    whisker = line(place, high, place, low, style=f"stroke: {style}; stroke-width: 2")
    drawn = whisker + mark(shape(point.model, arms), place, centre, f"fill: {style}", 5.5)
    return Box(place - 7, high, place + 7, low), point.model, drawn


def _place_label(point: Box, y: float, width: float, taken: Sequence[Box], frame: Box) -> Box:
    """Return a free place for a label: beside its point, above or below it, then farther away."""
    middle = (point.left + point.right - width) / 2
    right, left = point.right + 3, point.left - 3 - width
    near = [(right, y), (right, y + 13), (right, y - 13)]
    near += [(middle, point.top - 9), (middle, point.bottom + 10)]
    near += [(left, y), (left, y + 13), (left, y - 13)]
    far = [
        (side, y + sign * 10.0 * number)
        for number in range(2, 20)
        for sign in (-1, 1)
        for side in (right, left, middle)
    ]
    boxes = [Box(side, height - 7, side + width, height + 7) for side, height in near + far]
    for box in boxes:
        if frame.contains(box) and not any(box.overlaps(other) for other in taken):
            return box
    return boxes[0]


def reliability(model: Reliability, arms: Sequence[str]) -> Markup:
    """Draw the share of right answers against the model's confidence.

    On the diagonal, the confidence equals the share of right answers.
    """
    height, bottom, top, right = 262.0, 220.0, 8.0, 260.0
    x, y = linear(0, 1, LEFT, right), linear(0, 1, bottom, top)
    parts = y_axis(y, SHARES, LEFT, right, percent)
    parts += x_axis(x, SHARES, top, bottom, percent)
    parts.append(line(x(0), y(0), x(1), y(1), "guide"))
    style = colour(model.model, arms)
    points = [(x(group.confidence), y(group.accuracy)) for group in model.bins]
    if len(points) > 1:
        parts.append(path(points, f"stroke: {style}"))
    largest = max(group.count for group in model.bins)
    for point, group in zip(points, model.bins, strict=True):
        size = 3 + 4 * (group.count / largest) ** 0.5
        parts.append(mark(shape(model.model, arms), *point, f"fill: {style}", size))
    parts.append(text(right, height - 6, "confidence", "soft", "end"))
    figures = [
        f"{group.confidence:.0%} confident, {group.accuracy:.0%} right, {group.count:,} answers"
        for group in model.bins
    ]
    title = f"Reliability of {model.model}: {'; '.join(figures)}"
    return drawing(WIDTH, height, title, "", *parts)
