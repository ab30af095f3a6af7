"""How long and how fast to train where the config does not say: a rule from rows and model.

The constants were chosen on two tasks of this repository with a 135M student
(docs/log.md, "which KD, and how many steps"). The learning rate of wider models follows from theirs
by a rule of others, which was not tested here.
"""

import math
from dataclasses import dataclass
from typing import Any

from pipeline.config import Arm, Train

BATCH, SMALL_BATCH = 16, 8  # rows per step; the small batch is for few rows
MANY_ROWS = 1000  # from here on, the larger batch
STEPS = 100  # optimiser steps that an arm has at least, unless it would need more than EPOCHS
EPOCHS = 4.0  # passes at most
# Peak learning rate at WIDTH hidden units. It falls as 1 / width: Yang et al. 2022, Tensor
# Programs V (muP). Adapters take ten times as much: Schulman et al. 2025, LoRA Without Regret.
LEARNING_RATE, WIDTH = 1e-4, 576
ADAPTERS = 10.0


@dataclass(frozen=True)
class Schedule:
    """Rows per device and step, passes over the rows, and peak learning rate."""

    batch_size: int
    epochs: float
    learning_rate: float


def schedule(train: Train, arm: Arm, rows: int, width: int, adapters: bool) -> Schedule:
    """Return the schedule of an arm; what the config says comes first.

    Args:
        rows: training rows, after packing.
        width: hidden units of the student.
        adapters: only LoRA adapters are trained.
    """
    batch = train.batch_size or (BATCH if rows >= MANY_ROWS else SMALL_BATCH)
    epochs = arm.epochs or train.epochs or _epochs(rows, batch * train.accumulate)
    rate = arm.learning_rate or train.learning_rate or _learning_rate(width, adapters)
    return Schedule(batch, epochs, rate)


def filled(train: Train, arm: Arm, rows: int, width: int, adapters: bool) -> Train:
    """Return the settings with the schedule of an arm in place of what was left open."""
    chosen: dict[str, Any] = vars(schedule(train, arm, rows, width, adapters))
    return train.model_copy(update=chosen)


def by_width(rate: float, width: int) -> float:
    """Return a learning rate, given at WIDTH hidden units or fewer, for a model of this width."""
    return rate * min(1.0, WIDTH / width)


def _epochs(rows: int, rows_per_step: int) -> float:
    """Return one pass, or as many as STEPS need, up to EPOCHS."""
    needed = STEPS / math.ceil(max(rows, 1) / rows_per_step)
    return round(min(max(needed, 1.0), EPOCHS), 2)


def _learning_rate(width: int, adapters: bool) -> float:
    """Return the peak learning rate, with two significant digits."""
    rate = by_width(LEARNING_RATE, width) * (ADAPTERS if adapters else 1.0)
    return float(f"{rate:.2g}")
