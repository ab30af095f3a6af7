"""Choose which of similar rows to keep: go from best to worst, drop each that resembles a kept row.

So every dropped row resembles a row that is kept. If a resembles b and b resembles c, but a does
not resemble c, then a and c are kept. Rows are numbered by rank: 0 is the best row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Buckets, Rows, gather, split_by_weight

MIN_BLOCK = 256  # smallest number of rows that are decided together
MAX_PAIRS = 1 << 21  # about how many pairs are in memory at once


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of similar rows, each pair once, sorted by the left row and then by the right."""

    left: Rows
    right: Rows
    similarity: NDArray[np.float64]


# takes candidate pairs, which may repeat, and returns those that are similar
FindSimilar = Callable[[Rows, Rows], SimilarPairs]


class Decisions:
    """For each row, whether it was dropped so far, and for which row.

    `keeper[row]` is the kept row that a dropped row resembles, and `similarity[row]` is their
    similarity. `keeper[row]` is -1 for a row that is kept.
    """

    def __init__(self, row_count: int):
        self.keeper = np.full(row_count, -1, np.int64)
        self.similarity = np.zeros(row_count)

    def is_kept(self, rows: Rows) -> NDArray[np.bool_]:
        """Return for each of `rows` whether it is not dropped."""
        return self.keeper[rows] < 0

    def drop(self, pairs: SimilarPairs) -> None:
        """Drop the right row of each pair for its first left row. None may be dropped already."""
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
        """Drop the right row of each pair whose rows are both still kept.

        For the rows to decide, `pairs` must hold every similar row of a better rank that is kept.
        """
        columns = pairs.left.tolist(), pairs.right.tolist(), pairs.similarity.tolist()
        for left, right, similarity in zip(*columns, strict=True):
            if self.keeper[left] < 0 and self.keeper[right] < 0:
                self.keeper[right] = left
                self.similarity[right] = similarity


def keep_best(buckets: Buckets, find_similar: FindSimilar, row_count: int) -> Decisions:
    """Decide on all rows. Pairs that hold a dropped row are not compared."""
    decisions = Decisions(row_count)
    undecided = np.diff(buckets.of_row.ends, prepend=0) > 0
    weights = np.bincount(buckets.rows, buckets.later, minlength=row_count)
    while len(rows := np.flatnonzero(undecided)):
        fitting = int(np.searchsorted(np.cumsum(weights[rows]), MAX_PAIRS))
        block = rows[: max(MIN_BLOCK, fitting)]
        decisions.settle(find_similar(*_pairs_within(buckets, block)))
        undecided[block] = False
        kept = block[decisions.is_kept(block)]
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
    """Return the candidate pairs whose rows are both in the block."""
    entries = np.sort(gather(buckets.of_row, block).values)
    last = np.flatnonzero(np.diff(buckets.ends[entries], append=-1))
    ends = np.repeat(last + 1, np.diff(last, prepend=-1))
    return Buckets(buckets.rows[entries], ends, buckets.of_row).pairs(np.arange(len(entries)))
