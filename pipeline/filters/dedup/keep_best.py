"""Of rows that are alike, which stay: each row, best first, unless it is like one that stays already.

So a row goes only for the sake of one that is there to be read in its place, and a chain a-b-c of which a and c differ keeps both ends.
Rows are counted by rank here: 0 is the best.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Buckets, Rows, gathered, pieces

LEAST, MOST = 256, 1 << 21  # rows that are settled together; pairs in memory


@dataclass(frozen=True)
class Edges:
    """Pairs that are alike, sorted by the left row and then by the right, each once."""

    left: Rows
    right: Rows
    likeness: NDArray[np.float64]


Alike = Callable[[Rows, Rows], Edges]  # given candidates, some of them twice


class Kept:
    """What is known so far: `keeper[row]`, or -1 for one that stays, and their likeness."""

    def __init__(self, rows: int):
        self.keeper = np.full(rows, -1, np.int64)
        self.likeness = np.zeros(rows)

    def drop(self, edges: Edges) -> None:
        """The right rows go, each for its first left one; they must not have gone before."""
        right, first = np.unique(edges.right, return_index=True)
        self.keeper[right], self.likeness[right] = edges.left[first], edges.likeness[first]

    def after(self, before: int) -> "Kept":
        """The rows from `before` on."""
        found = Kept(0)
        found.keeper, found.likeness = self.keeper[before:], self.likeness[before:]
        return found

    def settle(self, edges: Edges) -> None:
        """Decide on rows all of whose better neighbours are in `edges` or gone."""
        for left, right, likeness in zip(
            edges.left.tolist(), edges.right.tolist(), edges.likeness.tolist(), strict=True
        ):
            if self.keeper[left] < 0 and self.keeper[right] < 0:
                self.keeper[right], self.likeness[right] = left, likeness


def best(buckets: Buckets, alike: Alike, rows: int) -> Kept:
    """Decide on all rows, asking for no pair of which one has gone."""
    kept = Kept(rows)
    open_ = np.diff(buckets.of_row.ends, prepend=0) > 0
    weights = np.bincount(buckets.rows, buckets.later, minlength=rows)
    while len(left := np.flatnonzero(open_)):
        block = left[: max(LEAST, int(np.searchsorted(np.cumsum(weights[left]), MOST)))]
        kept.settle(alike(*_within(buckets, block)))
        open_[block] = False
        reach(buckets, block[kept.keeper[block] < 0], alike, kept, open_)
    return kept


def reach(
    buckets: Buckets, staying: Rows, alike: Alike, kept: Kept, open_: NDArray[np.bool_]
) -> None:
    """Drop the open rows that are like one of `staying`."""
    entries = gathered(buckets.of_row, staying).values
    for some in pieces(entries, buckets.later[entries], MOST):
        left, right = buckets.pairs(some)
        still = open_[right]
        edges = alike(left[still], right[still])
        kept.drop(edges)
        open_[edges.right] = False


def _within(buckets: Buckets, block: Rows) -> tuple[Rows, Rows]:
    """The pairs inside a block."""
    entries = np.sort(gathered(buckets.of_row, block).values)
    last = np.flatnonzero(np.diff(buckets.ends[entries], append=-1))
    ends = np.repeat(last + 1, np.diff(last, prepend=-1))
    return Buckets(buckets.rows[entries], ends, buckets.of_row).pairs(np.arange(len(entries)))
