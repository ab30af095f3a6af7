"""The few shapes that the charts are made of. Text is escaped; colours are the custom properties of style.css."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

LETTER, BOLD = 6.9, 7.8  # pixels that a letter of 12 px takes, on average

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


def tag(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """An element. Names of attributes: class_ is class, stroke_width is stroke-width."""
    given = [
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), f"{value:.6g}" if isinstance(value, float) else value
        )
        for key, value in attributes.items()
        if value is not None
    ]
    return Markup("<{0}{1}>{2}</{0}>").format(
        Markup(name), Markup("").join(given), Markup("").join(content)
    )


def drawing(width: float, height: float, title: str, kind: str, *content: str) -> Markup:
    """A whole picture; `title` is what it says to those who do not see it."""
    return tag(
        "svg",
        tag("title", title),
        *content,
        class_=f"chart {kind}".strip(),
        role="img",
        aria_label=title,
        width=f"{width:g}",
        height=f"{height:g}",
        viewBox=f"0 0 {width:g} {height:g}",
    )


def text(
    x: float,
    y: float,
    words: str,
    kind: str = "",
    anchor: str | None = None,
    style: str | None = None,
) -> Markup:
    return tag(
        "text", words, x=float(x), y=float(y), class_=kind or None, text_anchor=anchor, style=style
    )


def line(
    x1: float, y1: float, x2: float, y2: float, kind: str | None = None, style: str | None = None
) -> Markup:
    return tag(
        "line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind, style=style
    )


def bar(
    x: float,
    y: float,
    width: float,
    height: float,
    kind: str | None = None,
    style: str | None = None,
) -> Markup:
    return tag(
        "rect",
        x=float(x),
        y=float(y),
        width=float(max(width, 0.0)),
        height=float(height),
        rx=2.0,
        class_=kind,
        style=style,
    )


def path(points: Sequence[tuple[float, float]], style: str) -> Markup:
    return tag(
        "path", d="M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points), class_="line", style=style
    )


def mark(shape: int, x: float, y: float, style: str, size: float = 4.5) -> Markup:
    """Circle, square, diamond, triangle or cross: what tells series apart where colours do not."""
    s = size
    outlines = (
        "",
        f"M{x - s * 0.9:.1f},{y - s * 0.9:.1f}h{s * 1.8:.1f}v{s * 1.8:.1f}h{-s * 1.8:.1f}z",
        f"M{x:.1f},{y - s * 1.25:.1f}l{s * 1.25:.1f},{s * 1.25:.1f}l{-s * 1.25:.1f},{s * 1.25:.1f}l{-s * 1.25:.1f},{-s * 1.25:.1f}z",
        f"M{x:.1f},{y - s * 1.15:.1f}l{s * 1.15:.1f},{s * 2:.1f}h{-s * 2.3:.1f}z",
        f"M{x:.1f},{y + s * 1.15:.1f}l{s * 1.15:.1f},{-s * 2:.1f}h{-s * 2.3:.1f}z",
    )
    if not outlines[shape % 5]:
        return tag("circle", cx=float(x), cy=float(y), r=s, style=style)
    return tag("path", d=outlines[shape % 5], style=style)


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """low..high onto start..end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    onto = linear(math.log(low), math.log(high), start, end)
    return lambda value: onto(math.log(value))


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values from `low` to `high`, inclusive where they are round themselves."""
    rough = (high - low) / about or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Values for a logarithmic axis: 1, 2, 5, 10, ... and only powers of ten where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [10.0**power * factor for power in powers for factor in (1, 2, 5)]
    inside = [value for value in every if low * 0.999 <= value <= high * 1.001]
    tens = [value for value in inside if abs(math.log10(value) - round(math.log10(value))) < 1e-9]
    return tens if len(inside) > 7 and len(tens) > 1 else inside


def short(value: float) -> str:
    """An axis label: 0.0005, 0.25, 1,200."""
    if value and abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def width_of(words: str, letter: float = LETTER) -> float:
    return len(words) * letter


def fit(words: str, width: float, letter: float = LETTER) -> str:
    """`words`, cut to `width` pixels with an ellipsis."""
    letters = max(int(width / letter + 0.01), 2)
    return words if len(words) <= letters else words[: letters - 1] + "…"


def apart(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, at least `distance` from one another, within low..high as far as there is room."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    found = list(wanted)
    floor = low
    for number in order:
        found[number] = floor = max(found[number], floor)
        floor += distance
    ceiling = high
    for number in reversed(order):
        found[number] = ceiling = min(found[number], ceiling)
        ceiling -= distance
    return found
