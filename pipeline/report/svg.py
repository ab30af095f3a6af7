"""The shapes that the charts consist of. Text is escaped; colours are properties of style.css."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

# average width in pixels of a letter of 12 px, in names, in bold names, and in text with figures
LETTER, BOLD, FIGURES = 6.9, 7.8, 6.3


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        """Return True if the boxes have an area in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def contains(self, other: "Box") -> bool:
        """Return True if the other box is inside this one."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


def tag(name: str, *content: str, **attributes: str | float | None) -> Markup:
    """Return an element. `class_` stands for class, `stroke_width` for stroke-width."""
    markup = Markup("")
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            markup += Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), shown)
    inner = Markup("").join(content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), markup, inner)


def drawing(width: float, height: float, title: str, kind: str, *content: str) -> Markup:
    """Return a whole picture; `title` is its description for screen readers."""
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
    """Return a line of text; `anchor` is start (the default), middle or end."""
    attributes = {"class_": kind or None, "text_anchor": anchor, "style": style}
    return tag("text", words, x=float(x), y=float(y), **attributes)


def line(
    x1: float, y1: float, x2: float, y2: float, kind: str | None = None, style: str | None = None
) -> Markup:
    """Return a straight line."""
    ends = {"x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2)}
    return tag("line", **ends, class_=kind, style=style)


def bar(
    x: float,
    y: float,
    width: float,
    height: float,
    kind: str | None = None,
    style: str | None = None,
) -> Markup:
    """Return a rectangle with rounded corners; a negative width is 0."""
    size = {"width": float(max(width, 0.0)), "height": float(height)}
    return tag("rect", x=float(x), y=float(y), **size, rx=2.0, class_=kind, style=style)


def path(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """Return a line through the points."""
    outline = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("path", d=outline, class_="line", style=style)


def mark(shape: int, x: float, y: float, style: str, size: float = 4.5) -> Markup:
    """Return a mark: circle, square, diamond, or a triangle that points up or down.

    The shape tells series apart where colours do not.
    """
    s = size
    if shape % 5 == 0:
        return tag("circle", cx=float(x), cy=float(y), r=s, style=style)
    outlines = (
        "",
        f"M{x - s * 0.9:.1f},{y - s * 0.9:.1f}h{s * 1.8:.1f}v{s * 1.8:.1f}h{-s * 1.8:.1f}z",
        f"M{x:.1f},{y - s * 1.25:.1f}l{s * 1.25:.1f},{s * 1.25:.1f}"
        f"l{-s * 1.25:.1f},{s * 1.25:.1f}l{-s * 1.25:.1f},{-s * 1.25:.1f}z",
        f"M{x:.1f},{y - s * 1.15:.1f}l{s * 1.15:.1f},{s * 2:.1f}h{-s * 2.3:.1f}z",
        f"M{x:.1f},{y + s * 1.15:.1f}l{s * 1.15:.1f},{-s * 2:.1f}h{-s * 2.3:.1f}z",
    )
    return tag("path", d=outlines[shape % 5], style=style)


def width_of(words: str, letter: float = LETTER) -> float:
    """Return the width of a text in pixels, about."""
    return len(words) * letter


def fit(words: str, width: float, letter: float = LETTER) -> str:
    """Cut a text to `width` pixels with an ellipsis."""
    letters = max(int(width / letter + 0.01), 2)
    return words if len(words) <= letters else words[: letters - 1] + "…"


def apart(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Move positions at least `distance` apart, within low..high as far as there is room."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    places = list(wanted)
    lowest = low
    for number in order:
        places[number] = max(places[number], lowest)
        lowest = places[number] + distance
    highest = high
    for number in reversed(order):
        places[number] = min(places[number], highest)
        highest = places[number] - distance
    return places
