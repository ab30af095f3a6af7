"""Verdicts: why a filter rejects a sample."""

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
    """Why a sample is rejected: a snake_case reason, and the value that decided."""

    reason: str
    value: Value


def reject_as_measured(
    rows: NDArray[np.int64], column: Sequence[Sequence[Value] | None]
) -> dict[int, Verdict]:
    """Return verdicts from a column of (reason, value), or None for a sample to keep."""
    verdicts: dict[int, Verdict] = {}
    for row in rows.tolist():
        rejection = column[row]
        if rejection is not None:
            verdicts[row] = Verdict(str(rejection[0]), rejection[1])
    return verdicts


def reject(
    reason: str, rows: NDArray[np.int64], values: NDArray[Any] | Value
) -> dict[int, Verdict]:
    """Return one verdict for each of `rows` (R,).

    `values` are (R,), or one value for all rows. Floats are rounded to four significant digits; nan
    and infinity become "none".
    """
    if not isinstance(values, np.ndarray):
        return dict.fromkeys(rows.tolist(), Verdict(reason, values))
    verdicts = [Verdict(reason, _rounded(value)) for value in values.tolist()]
    return dict(zip(rows.tolist(), verdicts, strict=True))


def _rounded(value: Value) -> Value:
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else "none"
