"""Semantic duplicates: the cosines of all pairs of unit vectors, one block at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Rows
from pipeline.filters.dedup.keep_best import Decisions, SimilarPairs

BLOCK = 1024  # rows decided together
KEPT_BLOCK = 8192  # kept rows compared with a block at a time


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of rows sorted by rank, best first.

    With several columns a row has one vector in each, and the least cosine counts.
    """

    columns: Sequence[NDArray[np.float16]]
    rows: Rows

    def deduplicate(self, threshold: float) -> Decisions:
        """Decide which rows to keep. The keepers are ranks."""
        decisions = Decisions(len(self.rows))
        kept = np.zeros(0, np.int64)
        for block in self._blocks():
            self._drop_similar(self, kept, block, threshold, decisions)
            block = block[decisions.keeper[block] < 0]
            cosines = np.triu(_cosines(self, block, self, block), 1)
            decisions.settle(_similar_pairs(cosines, block, block, threshold))
            kept = np.concatenate((kept, block[decisions.keeper[block] < 0]))
        return decisions

    def deduplicate_against(self, kept: "Vectors", threshold: float) -> Decisions:
        """Drop the rows that are similar to a row of `kept`. The keepers are ranks in `kept`."""
        decisions = Decisions(len(self.rows))
        for block in self._blocks():
            self._drop_similar(kept, np.arange(len(kept.rows)), block, threshold, decisions)
        return decisions

    def _blocks(self) -> list[Rows]:
        return np.split(np.arange(len(self.rows)), range(BLOCK, len(self.rows), BLOCK))

    def _drop_similar(
        self, other: "Vectors", kept: Rows, block: Rows, threshold: float, decisions: Decisions
    ) -> None:
        for start in range(0, len(kept), KEPT_BLOCK):
            keepers = kept[start : start + KEPT_BLOCK]
            block = block[decisions.keeper[block] < 0]
            cosines = _cosines(other, keepers, self, block)
            decisions.drop(_similar_pairs(cosines, keepers, block, threshold))


def _cosines(first: Vectors, left: Rows, second: Vectors, right: Rows) -> NDArray[np.float32]:
    """Return the least cosine of each pair, (left, right)."""
    least = np.ones((len(left), len(right)), np.float32)
    for ours, theirs in zip(first.columns, second.columns, strict=True):
        left_vectors = ours[first.rows[left]].astype(np.float32)
        right_vectors = theirs[second.rows[right]].astype(np.float32)
        np.minimum(least, left_vectors @ right_vectors.T, out=least)
    return least


def _similar_pairs(
    cosines: NDArray[np.float32], left: Rows, right: Rows, threshold: float
) -> SimilarPairs:
    rows, columns = np.nonzero(cosines >= threshold)
    return SimilarPairs(left[rows], right[columns], cosines[rows, columns].astype(np.float64))
