"""Choose which of similar rows to keep: go from best to worst, drop what resembles a kept row.

A dropped row therefore always has a kept row that can be read in its place. In a chain a-b-c whose
ends a and c differ, both ends are kept. Rows are numbered by rank: 0 is the best row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Buckets, Rows, gather, split_by_weight

MIN_BLOCK = 256  # rows decided together, at least
MAX_PAIRS = 1 << 21  # pairs in memory


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of similar rows, each once, sorted by the left row and then by the right."""

    left: Rows
    right: Rows
    similarity: NDArray[np.float64]


FindSimilar = Callable[[Rows, Rows], SimilarPairs]  # from candidate pairs, which may repeat


class Decisions:
    """What was decided so far: `keeper[row]`, or -1 for a kept row, and their similarity."""

    def __init__(self, row_count: int):
        self.keeper = np.full(row_count, -1, np.int64)
        self.similarity = np.zeros(row_count)

    def drop(self, pairs: SimilarPairs) -> None:
        """Drop the right rows, each for its first left row. None may be dropped already."""
        right, first = np.unique(pairs.right, return_index=True)
        self.keeper[right] = pairs.left[first]
        self.similarity[right] = pairs.similarity[first]

    def since(self, start: int) -> "Decisions":
        """Return the decisions on the rows from `start` on."""
        decisions = Decisions(0)
        decisions.keeper = self.keeper[start:]
        decisions.similarity = self.similarity[start:]
        return decisions

    def settle(self, pairs: SimilarPairs) -> None:
        """Decide on rows whose better neighbours are all in `pairs` or dropped."""
        columns = pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist()
        for left, right, similarity in zip(*columns, strict=True):
            if self.keeper[left] < 0 and self.keeper[right] < 0:
                self.keeper[right] = left
                self.similarity[right] = similarity


def keep_best(buckets: Buckets, find_similar: FindSimilar, row_count: int) -> Decisions:
    """Decide on all rows, without comparing pairs that hold a dropped row."""
    decisions = Decisions(row_count)
    undecided = np.diff(buckets.of_row.ends, prepend=0) > 0
    weights = np.bincount(buckets.rows, buckets.later, minlength=row_count)
    while len(rows := np.flatnonzero(undecided)):
        fitting = int(np.searchsorted(np.cumsum(weights[rows]), MAX_PAIRS))
        block = rows[: max(MIN_BLOCK, fitting)]
        decisions.settle(find_similar(*_pairs_within(buckets, block)))
        undecided[block] = False
        kept = block[decisions.keeper[block] < 0]
        drop_similar(buckets, kept, find_similar, decisions, undecided)
    return decisions


def drop_similar(
    buckets: Buckets,
    kept: Rows,
    find_similar: FindSimilar,
    decisions: Decisions,
    undecided: NDArray[np.bool_],
) -> None:
    """Drop the undecided rows that are similar to a row of `kept`."""
    entries = gather(buckets.of_row, kept).values
    for piece in split_by_weight(entries, buckets.later[entries], MAX_PAIRS):
        left, right = buckets.pairs(piece)
        open_pairs = undecided[right]
        pairs = find_similar(left[open_pairs], right[open_pairs])
        decisions.drop(pairs)
        undecided[pairs.right] = False


def _pairs_within(buckets: Buckets, block: Rows) -> tuple[Rows, Rows]:
    """Return the candidate pairs of which both rows are in the block."""
    entries = np.sort(gather(buckets.of_row, block).values)
    last = np.flatnonzero(np.diff(buckets.ends[entries], append=-1))
    ends = np.repeat(last + 1, np.diff(last, prepend=-1))
    return Buckets(buckets.rows[entries], ends, buckets.of_row).pairs(np.arange(len(entries)))
