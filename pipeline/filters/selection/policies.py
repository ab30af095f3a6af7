"""Filters that choose among good rows: an even spread over classes, a range of difficulty, a budget, and unlike ones.

None of them depends on chance beyond a seed: the same rows are chosen wherever and however often they are.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.correctness.agreement import majority_shares, vote_shares
from pipeline.filters.hashing import NOTHING, rank_within_groups, shuffle, text_key
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Verdict, reject

IN_FLOAT32 = 1 << 29  # bytes
BLOCK = 1 << 16  # rows


def lots(batch: Batch) -> NDArray[np.uint64]:
    """(N,): the key of each sample's id, by which lots are drawn."""
    return np.array([text_key(sample.id) for sample in batch.samples], np.uint64)


def groups(batch: Batch, by: Literal["group", "target"]) -> NDArray[np.uint64]:
    """(N,): the key of the seed's group or ground truth, NOTHING where it has none. (Answers: `agreement.answers`.)"""
    return np.array([text_key(getattr(sample.seed, by)) for sample in batch.samples], np.uint64)


def balanced(
    left: NDArray[np.int64],
    classes: NDArray[np.uint64],
    lots: NDArray[np.uint64],
    scores: NDArray | None = None,
    *,
    factor: float | None = None,
    number: int | None = None,
    seed: int = 0,
) -> dict[int, Verdict]:
    """over_balance: its class has more than `number` rows, or than `factor` times the rows of the smallest class that is left. The value is
    that cap. Kept are the best by `scores` (N,), or without them those that `seed` draws. Rows without a class pass."""
    rows = left[classes[left] != NOTHING]
    if not len(rows):
        return {}
    smallest = int(np.unique(classes[rows], return_counts=True)[1].min())
    cap = min(
        math.inf if number is None else number,
        math.inf if factor is None else max(math.floor(smallest * factor), 1),
    )
    if math.isinf(cap):
        raise PipelineError("filter.balance: has neither factor nor number; set one of them")
    over = rank_within_groups(classes[rows], _order(rows, lots, scores, seed)) >= cap
    return reject("over_balance", rows[over], int(cap))


def contested(
    left: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    answers: NDArray[np.uint64],
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
) -> dict[int, Verdict]:
    """too_easy, too_hard: the seed's most frequent answer has more or less than this share of its votes (see `agreement.vote_shares`).
    Seeds without a readable answer pass."""
    return of_difficulty(
        left,
        majority_shares(seeds, vote_shares(seeds, answers)),
        lowest=lowest,
        highest=highest,
        easy="high",
    )


def of_difficulty(
    left: NDArray[np.int64],
    values: NDArray,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    easy: Literal["high", "low"],
) -> dict[int, Verdict]:
    """too_easy, too_hard: the value is not within the bounds, both included. `easy` says which values easy rows have: a share of votes or
    of right answers is high, a student's loss is low. nan passes."""
    below, above = ("too_hard", "too_easy") if easy == "high" else ("too_easy", "too_hard")
    found = values[left]
    low, high = left[found < lowest], left[found > highest]
    return reject(below, low, values[low]) | reject(above, high, values[high])


def within_budget(
    left: NDArray[np.int64],
    lots: NDArray[np.uint64],
    scores: NDArray | None = None,
    *,
    number: int,
    seed: int = 0,
) -> dict[int, Verdict]:
    """over_budget: not among the best `number` by `scores` (N,), or, without them, not drawn. The value is the score, or the budget."""
    return _over(
        "over_budget",
        left,
        rank_within_groups(np.zeros(len(left), np.uint8), _order(left, lots, scores, seed)),
        scores,
        number,
    )


def within_seed_budget(
    left: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    lots: NDArray[np.uint64],
    scores: NDArray | None = None,
    *,
    number: int,
    seed: int = 0,
) -> dict[int, Verdict]:
    """over_seed_budget: not among the best `number` of its seed, as in `within_budget`."""
    return _over(
        "over_seed_budget",
        left,
        rank_within_groups(seeds[left], _order(left, lots, scores, seed)),
        scores,
        number,
    )


def diverse(
    left: NDArray[np.int64],
    embeddings: NDArray[np.float16],
    lots: NDArray[np.uint64],
    *,
    number: int | None = None,
    min_distance: float = 0.0,
    seed: int = 0,
) -> dict[int, Verdict]:
    """too_alike: not chosen by `k_centers` from embeddings (N, D), because others were that lie near it. The value is the distance to the
    nearest of those. Costs rows times chosen rows times D: a million rows of 256 take two seconds of one core for each that is chosen."""
    if not len(left):
        return {}
    first = int(shuffle(lots[left], seed).argmin())
    centers, distances = k_centers(
        embeddings[left], first, len(left) if number is None else number, min_distance
    )
    out = np.ones(len(left), bool)
    out[centers] = False
    return reject("too_alike", left[out], distances[out])


def k_centers(
    embeddings: NDArray[np.float16],
    first: int,
    number: int,
    min_distance: float = 0.0,
    *,
    block: int = BLOCK,
    in_float32: int = IN_FLOAT32,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Greedy k-center (Gonzalez 1985; as a choice of data Sener & Savarese, ICLR 2018): begin with row `first`, then always take the row
    that is farthest from all taken, until there are `number`, or all others are nearer than `min_distance`.

    Embeddings of more than `in_float32` bytes stay float16 and are widened `block` rows at a time.

    Returns the rows in the order in which they were taken, and (N,) the Euclidean distance of every row to the nearest of them.
    """
    wide = np.float32 if embeddings.size * 4 <= in_float32 else np.float16
    blocks = [
        embeddings[begin : begin + block].astype(wide, copy=False)
        for begin in range(0, len(embeddings), block)
    ]
    squares = np.concatenate(
        [np.square(rows, dtype=np.float32).sum(axis=1) for rows in blocks]
    )  # (N,)
    nearest = np.full(len(embeddings), np.inf, np.float32)  # squared
    taken: list[int] = []
    while len(taken) < min(number, len(embeddings)):
        at = int(nearest.argmax()) if taken else first
        if taken and (nearest[at] == 0 or nearest[at] < min_distance**2):
            break
        taken.append(at)
        center = embeddings[at].astype(np.float32)
        products = np.concatenate([rows.astype(np.float32, copy=False) @ center for rows in blocks])
        np.minimum(nearest, np.maximum(squares + squares[at] - 2 * products, 0.0), out=nearest)
        nearest[at] = 0.0
    return np.array(taken, np.int64), np.sqrt(nearest)


def _order(
    rows: NDArray[np.int64], lots: NDArray[np.uint64], scores: NDArray | None, seed: int
) -> NDArray[np.int64]:
    """(R,): the place of each of the rows, best score first, nan last, lots between equals."""
    drawn = shuffle(lots[rows], seed)
    by = (drawn,) if scores is None else (drawn, -scores[rows])
    place = np.empty(len(rows), np.int64)
    place[np.lexsort(by)] = np.arange(len(rows))
    return place


def _over(
    reason: str,
    left: NDArray[np.int64],
    ranks: NDArray[np.int64],
    scores: NDArray | None,
    number: int,
) -> dict[int, Verdict]:
    out = left[ranks >= number]
    return reject(reason, out, number if scores is None else scores[out])


LOTS = Measure(lots)
