"""The steps of a healing: its rounds, their batches and learning rates."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.training.collation import ByLength

# shares: of a round's steps; of the peak learning rate, at the end of a round
WARMUP, FLOOR = 0.05, 0.1

Batch = list[int]  # numbers of rows


@dataclass(frozen=True)
class Round:
    """One round: the layers that are left of the whole model, and the batches to learn."""

    kept: list[int]
    batches: list[Batch]


def plan(
    lengths: Sequence[int], stages: Sequence[list[int]], tokens: int, rows: int, seed: int
) -> list[Round]:
    """Return the rounds. All have about the same number of tokens, `tokens` together.

    Args:
        lengths: tokens of each row.
        stages: the layers that are left in each round.
        rows: of a batch.
    """
    order = _batches(lengths, rows, seed)
    result = []
    for kept in stages:
        batches: list[Batch] = []
        left = tokens / len(stages)
        while left > 0:
            batch = next(order)
            batches.append(batch)
            left -= sum(lengths[number] for number in batch)
        result.append(Round(kept, batches))
    return result


def rate_factor(step: int, steps: int) -> float:
    """Return the learning rate of a round's step, counted from 0, as a share of its peak."""
    warmup = max(1, math.ceil(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def _batches(lengths: Sequence[int], rows: int, seed: int) -> Iterator[Batch]:
    """Yield batches of rows of about the same length, in another order in every pass."""
    sampler = ByLength(lengths, rows, seed)
    for number in itertools.count():
        sampler.set_epoch(number)
        order = list(sampler)
        for first in range(0, len(order), rows):
            yield order[first : first + rows]
