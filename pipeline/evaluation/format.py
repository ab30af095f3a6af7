"""Format figures for the terminal and the report."""

from collections.abc import Sequence
from typing import Literal

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.results_model import Difference
from pipeline.execution.paths import BASE


def label(name: str) -> str:
    """Return a model's name for tables and sentences."""
    return "base student" if name == BASE else name


def shown(interval: Interval) -> str:
    """Return "0.920 [0.890, 0.950]"."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def signed(interval: Interval) -> str:
    """Return "-0.017 [-0.043, +0.007]"."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def tested(difference: Difference) -> str:
    """Return "-0.017 [-0.043, +0.007], p = 0.231", or without p if an older file has none."""
    if difference.p is None:
        return signed(difference)
    p = f"p = {difference.p:.3f}" if difference.p >= 0.001 else "p < 0.001"
    return f"{signed(difference)}, {p}"


def lay_out(rows: Sequence[Sequence[str]], align: Literal["left", "right"]) -> list[str]:
    """Return the lines of a table: a head, a ruler and the other rows.

    `align` applies to every column except the first, which is aligned left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1])]
        for cell, width in others:
            cells.append(cell.rjust(width) if align == "right" else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return lines
