"""Charts with one row per name (waterfall, estimates, groups), and each model's colour and mark.

Each chart is drawn once for wide and once for narrow screens, so that letters are 12 px high on
both; the style sheet shows the one that fits. Nothing is told by colour alone: models also have
marks and names, and bars have figures.
"""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from pipeline.evaluation.bootstrap import Interval
from pipeline.report.axes import Scale, linear, padded_range, short, signed, ticks, x_axis
from pipeline.report.facts import Estimate, Group, Waterfall
from pipeline.report.svg import BOLD, FIGURES, LETTER, bar, drawing, fit, line, mark, text, width_of

WIDE, NARROW = 1040.0, 326.0
ROW = 30.0


def both(draw: Callable[[float, str], Markup]) -> Markup:
    """Draw a chart for wide and for narrow screens."""
    return draw(WIDE, "wide") + draw(NARROW, "narrow")


def colour(name: str, arms: Sequence[str]) -> str:
    """Return the colour of a model; arms get the colours of the series in their order."""
    students = [arm for arm in arms if arm not in ("teacher", "base")]
    if name in students:
        return f"var(--series-{students.index(name) % 5 + 1})"
    return f"var(--{name})"


def shape(name: str, arms: Sequence[str]) -> int:
    """Return the mark of a model, as a number for `svg.mark`."""
    if name not in arms:
        return 0
    return sorted(arms, key=lambda arm: (arm != "teacher", arm != "base")).index(name)


def waterfall(samples: Waterfall, width: float, kind: str) -> Markup:
    """Draw how many samples each reason rejects, from all samples down to the kept ones."""
    rows = [("written by the teacher", samples.total, 0, "whole")]
    remaining = samples.total
    for reason, number in samples.rejected:
        remaining -= number
        rows.append((reason, number, remaining, "drop"))
    rows.append(("kept", samples.kept, 0, "kept"))
    longest = _longest([row[0] for row in rows], LETTER)
    names = min(longest + 12, width * 0.45) if kind == "wide" else 0.0
    pitch, lift = (
        (ROW, 0.0) if names else (ROW + 14, 15.0)
    )  # on narrow screens the name is above its bar
    x = linear(0, samples.total, names, width - 70)
    parts = []
    for number, (name, count, start, role) in enumerate(rows):
        top, end = number * pitch + lift + 4, x(start + count)
        if names:
            parts.append(text(names - 12, top + 14, fit(name, names - 12), anchor="end"))
        else:
            parts.append(text(0, top - 5, fit(name, width)))
        sign = "-" if role == "drop" else ""
        parts.append(bar(x(start), top, max(end - x(start), 2.0), 19, f"bar-fill {role}"))
        parts.append(text(end + 8, top + 14, f"{sign}{count:,}", "strong"))
        if number + 1 < len(rows):
            edge = end if role == "whole" else x(start)
            parts.append(line(edge, top + 19, edge, top + pitch, "grid"))
    drops = [f"{reason} rejects {number:,}" for reason, number in samples.rejected]
    title = f"Of {samples.total:,} samples {samples.kept:,} are kept; " + "; ".join(drops)
    return drawing(width, len(rows) * pitch + 4, title, kind, *parts)


def estimates(rows: Sequence[Estimate], width: float, kind: str, what: str, zero: bool) -> Markup:
    """Draw means with their intervals, one a row; `zero` adds a line at 0."""
    ends = [0.0] if zero else []
    for row in rows:
        ends += [row.interval.low, row.interval.high]
    low, high = padded_range(ends)
    wide = kind == "wide"
    names = min(_longest([row.name for row in rows], BOLD) + 16, width * 0.3) if wide else 0.0
    after = min(_longest([row.text for row in rows], FIGURES), width / 2) if wide else 0.0
    pitch = ROW if wide else ROW + 46
    x = linear(low, high, names + 8, width - after - 14)
    bottom = len(rows) * pitch + 4
    parts = x_axis(x, ticks(low, high), 0, bottom, signed if zero else short)
    if zero:
        parts.append(line(x(0), 0, x(0), bottom, "zero"))
    for number, row in enumerate(rows):
        y = number * pitch + (17 if wide else 30)
        parts += _whisker(row.interval, x, y, 5, style="stroke: var(--accent); stroke-width: 2")
        parts.append(mark(1 if zero else 0, x(row.interval.mean), y, "fill: var(--accent)"))
        if wide:
            parts.append(text(0, y + 4, fit(row.name, names - 8, BOLD), "strong"))
            parts.append(text(width - after, y + 4, fit(row.text, after, FIGURES)))
        else:
            parts.append(text(0, y - 12, fit(row.name, width, BOLD), "strong halo"))
            figures, _, verdict = row.text.partition(": ")
            parts.append(text(0, y + 21, fit(figures, width, FIGURES), "soft halo"))
            if verdict:
                parts.append(text(0, y + 35, fit(verdict, width, FIGURES), "soft halo"))
    title = f"{what}: " + "; ".join(f"{row.name} {row.text}" for row in rows)
    return drawing(width, bottom + 22, title, kind, *parts)


def _longest(words: Sequence[str], letter: float) -> float:
    """Return the width of the longest text."""
    return max(width_of(word, letter) for word in words)


def groups(rows: Sequence[Group], arms: Sequence[str], width: float, kind: str) -> Markup:
    """Draw each group's score for each model, as bars with intervals."""
    scores = [score for group in rows for score in group.scores]
    names = min(_longest([score.name for score in scores], LETTER) + 30, width * 0.3)
    after = 140.0
    highest = max(1.0, *(score.interval.high for score in scores))
    x = linear(0, highest, names, width - after - 8)
    parts, top = [], 0.0
    for group in rows:
        title = fit(f"{group.name}, {group.held_out:,} seeds", width, BOLD)
        parts.append(text(0, top + 16, title, "strong"))
        top += 24
        for score in group.scores:
            style = f"fill: {colour(score.name, arms)}"
            length = x(score.interval.mean) - names
            parts.append(mark(shape(score.name, arms), 6, top + 9, style))
            parts.append(text(18, top + 13, fit(score.name, names - 24)))
            parts.append(bar(names, top + 3, length, 12, style=f"{style}; opacity: 0.55"))
            parts += _whisker(score.interval, x, top + 9, 4, "zero")
            parts.append(text(width, top + 13, score.text, anchor="end"))
            top += 20
        top += 14
    return drawing(width, top, _groups_title(rows), kind, *parts)


def _groups_title(rows: Sequence[Group]) -> str:
    titles = []
    for group in rows:
        scores = ", ".join(f"{score.name} {score.text}" for score in group.scores)
        titles.append(f"{group.name}: {scores}")
    return "Score by group: " + "; ".join(titles)


def _whisker(
    interval: Interval,
    x: Scale,
    y: float,
    half: float,
    kind: str | None = None,
    style: str | None = None,
) -> list[Markup]:
    """Draw an interval as a line whose end marks are 2 * `half` pixels long."""
    low, high = x(interval.low), x(interval.high)
    ends = [line(end, y - half, end, y + half, kind, style) for end in (low, high)]
    return [line(low, y, high, y, kind, style), *ends]
