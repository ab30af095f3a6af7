"""Filters that choose among good rows: balance over classes, difficulty, budget, and diversity.

Chance enters only through a random seed and the sample's id. The same rows are therefore chosen
every time, whatever their order.
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

MAX_FLOAT32_BYTES = 1 << 29
BLOCK = 1 << 16  # rows

Rows = NDArray[np.int64]
Keys = NDArray[np.uint64]


def draw_keys(batch: Batch) -> Keys:
    """Return the key of each sample's id, (N,), from which random draws are made."""
    return np.array([text_key(sample.id) for sample in batch.samples], np.uint64)


def class_keys(batch: Batch, by: Literal["group", "target"]) -> Keys:
    """Return the key of each example's group or ground truth, (N,); NOTHING where it has none."""
    return np.array([text_key(getattr(sample.seed, by)) for sample in batch.samples], np.uint64)


def balance(
    rows: Rows,
    classes: Keys,
    draws: Keys,
    scores: NDArray | None = None,
    *,
    factor: float | None = None,
    number: int | None = None,
    seed: int = 0,
) -> dict[int, Verdict]:
    """Reject the rows of a class above a cap as over_balance; the value is the cap.

    The cap is `number` rows, or `factor` times the rows of the smallest class. The rows with the
    best `scores` (N,) are kept, or without scores a draw by `seed`. Rows without a class pass.
    """
    rows = rows[classes[rows] != NOTHING]
    if not len(rows):
        return {}
    caps = []
    if number is not None:
        caps.append(number)
    if factor is not None:
        smallest = int(np.unique(classes[rows], return_counts=True)[1].min())
        caps.append(max(math.floor(smallest * factor), 1))
    if not caps:
        raise PipelineError("filter.balance: has neither factor nor number; set one of them")
    over = rank_within_groups(classes[rows], _order(rows, draws, scores, seed)) >= min(caps)
    return reject("over_balance", rows[over], min(caps))


def bound_vote_difficulty(
    rows: Rows, seeds: Keys, answers: Keys, *, lowest: float = 0.0, highest: float = 1.0
) -> dict[int, Verdict]:
    """Reject examples by the vote share of their most frequent answer as too_easy or too_hard.

    See `agreement.vote_shares`. Examples without a readable answer pass.
    """
    shares = majority_shares(seeds, vote_shares(seeds, answers))
    return bound_difficulty(rows, shares, lowest=lowest, highest=highest, easy="high")


def bound_difficulty(
    rows: Rows,
    values: NDArray,
    *,
    lowest: float = -math.inf,
    highest: float = math.inf,
    easy: Literal["high", "low"],
) -> dict[int, Verdict]:
    """Reject values outside the bounds as too_easy or too_hard. The bounds and nan pass.

    `easy` tells which values easy rows have: a share of votes is high, a student's loss is low.
    """
    below, above = ("too_hard", "too_easy") if easy == "high" else ("too_easy", "too_hard")
    low = rows[values[rows] < lowest]
    high = rows[values[rows] > highest]
    return reject(below, low, values[low]) | reject(above, high, values[high])


def cap_rows(
    rows: Rows, draws: Keys, scores: NDArray | None = None, *, number: int, seed: int = 0
) -> dict[int, Verdict]:
    """Reject all but the best `number` rows as over_budget; the value is the score or `number`.

    The best have the highest `scores` (N,); without scores they are drawn.
    """
    one_group = np.zeros(len(rows), np.uint8)
    return _cap("over_budget", one_group, rows, draws, scores, number, seed)


def cap_rows_per_seed(
    rows: Rows,
    seeds: Keys,
    draws: Keys,
    scores: NDArray | None = None,
    *,
    number: int,
    seed: int = 0,
) -> dict[int, Verdict]:
    """Reject as `cap_rows` does, for each example by itself, as over_seed_budget."""
    return _cap("over_seed_budget", seeds[rows], rows, draws, scores, number, seed)


def diversify(
    rows: Rows,
    embeddings: NDArray[np.float16],
    draws: Keys,
    *,
    number: int | None = None,
    min_distance: float = 0.0,
    seed: int = 0,
) -> dict[int, Verdict]:
    """Reject the rows that `k_centers` does not choose from embeddings (N, D) as too_alike.

    The value is the distance to the nearest chosen row. The time grows with rows times chosen rows
    times D: a million rows of D = 256 take two seconds of one core for each chosen row.
    """
    if not len(rows):
        return {}
    first = int(shuffle(draws[rows], seed).argmin())
    limit = len(rows) if number is None else number
    centers, distances = k_centers(embeddings[rows], first, limit, min_distance)
    rejected = np.ones(len(rows), bool)
    rejected[centers] = False
    return reject("too_alike", rows[rejected], distances[rejected])


def k_centers(
    embeddings: NDArray[np.float16],
    first: int,
    number: int,
    min_distance: float = 0.0,
    *,
    block: int = BLOCK,
    max_float32_bytes: int = MAX_FLOAT32_BYTES,
) -> tuple[Rows, NDArray[np.float32]]:
    """Choose rows far from each other: greedy k-center (Gonzalez 1985; Sener & Savarese 2018).

    Begin with row `first`, then take the row farthest from all chosen ones, until there are
    `number` or all others are nearer than `min_distance`. Embeddings beyond `max_float32_bytes`
    stay float16 and are widened `block` rows at a time.

    Returns the rows in the order of their choice, and (N,) the Euclidean distance of every row to
    the nearest chosen one.
    """
    dtype = np.float32 if embeddings.size * 4 <= max_float32_bytes else np.float16
    starts = range(0, len(embeddings), block)
    blocks = [embeddings[start : start + block].astype(dtype, copy=False) for start in starts]
    squares = np.concatenate([np.square(part, dtype=np.float32).sum(axis=1) for part in blocks])
    nearest = np.full(len(embeddings), np.inf, np.float32)  # squared distances (N,)
    chosen: list[int] = []
    while len(chosen) < min(number, len(embeddings)):
        row = int(nearest.argmax()) if chosen else first
        if chosen and (nearest[row] == 0 or nearest[row] < min_distance**2):
            break
        chosen.append(row)
        center = embeddings[row].astype(np.float32)
        products = np.concatenate([part.astype(np.float32, copy=False) @ center for part in blocks])
        distances = np.maximum(squares + squares[row] - 2 * products, 0.0)
        np.minimum(nearest, distances, out=nearest)
        nearest[row] = 0.0
    return np.array(chosen, np.int64), np.sqrt(nearest)


def _order(rows: Rows, draws: Keys, scores: NDArray | None, seed: int) -> Rows:
    """Return the place of each row, (R,): best score first, nan last, draws between equals."""
    drawn = shuffle(draws[rows], seed)
    sort_keys = (drawn,) if scores is None else (drawn, -scores[rows])
    place = np.empty(len(rows), np.int64)
    place[np.lexsort(sort_keys)] = np.arange(len(rows))
    return place


def _cap(
    reason: str,
    groups: NDArray,
    rows: Rows,
    draws: Keys,
    scores: NDArray | None,
    number: int,
    seed: int,
) -> dict[int, Verdict]:
    """Reject what is not among the best `number` rows of its group."""
    over = rows[rank_within_groups(groups, _order(rows, draws, scores, seed)) >= number]
    return reject(reason, over, number if scores is None else scores[over])


DRAWS = Measure(draw_keys)
