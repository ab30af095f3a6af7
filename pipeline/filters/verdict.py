"""What a filter says of a sample that it turns down."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Value = str | float | int
Objection = tuple[str, Value]  # reason, value


@dataclass(frozen=True)
class Verdict:
    """Why a sample is turned down: a snake_case reason, and the value that decided."""

    reason: str
    value: Value


def objections(left: NDArray[np.int64], found: Sequence[Sequence[Value] | None]) -> dict[int, Verdict]:
    """The verdicts of a filter without thresholds: its measure is the reason and the value already, or None."""
    return {int(row): Verdict(str(said[0]), said[1]) for row in left if (said := found[row]) is not None}
