"""What a filter says of a sample that it turns down."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = str | float | int
Rejection = tuple[str, Value]  # reason, value


@dataclass(frozen=True)
class Verdict:
    """Why a sample is turned down: a snake_case reason, and the value that decided."""

    reason: str
    value: Value


def reject_as_measured(
    left: NDArray[np.int64], found: Sequence[Sequence[Value] | None]
) -> dict[int, Verdict]:
    """The verdicts of a filter without thresholds: its measure is the reason and the value already, or None."""
    return {
        int(row): Verdict(str(said[0]), said[1]) for row in left if (said := found[row]) is not None
    }


def reject(
    reason: str, rows: NDArray[np.int64], values: NDArray[Any] | Value
) -> dict[int, Verdict]:
    """One verdict for each of `rows` (R,), with a value (R,) of its own or the same for all; floats are cut to what a person reads."""
    if not isinstance(values, np.ndarray):
        return dict.fromkeys(rows.tolist(), Verdict(reason, values))
    shown = [_shown(value) if isinstance(value, float) else value for value in values.tolist()]
    return {row: Verdict(reason, value) for row, value in zip(rows.tolist(), shown, strict=True)}


def _shown(value: float) -> Value:
    return float(f"{value:.4g}") if math.isfinite(value) else "none"
