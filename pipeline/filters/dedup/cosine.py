"""Semantic duplicates: compute the cosines of all pairs of unit vectors, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Rows
from pipeline.filters.dedup.keep_best import Decisions, SimilarPairs

BLOCK = 1024  # rows decided together
KEPT_BLOCK = 8192  # number of kept rows that are compared with one block in one step


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of rows sorted by rank, best first.

    A row may have several vectors (`columns`). Two rows are as similar as their least similar pair
    of vectors.
    """

    columns: Sequence[NDArray[np.float16]]
    rows: Rows

    def deduplicate(self, threshold: float) -> Decisions:
        """Decide which rows to keep. `Decisions.keeper` holds ranks of these rows."""
        decisions = Decisions(len(self.rows))
        kept = np.zeros(0, np.int64)
        for block in self._blocks():
            self._drop_similar(self, kept, block, threshold, decisions)
            block = block[decisions.is_kept(block)]
            cosines = np.triu(_cosines(self, block, self, block), 1)
            decisions.settle(_similar_pairs(cosines, block, block, threshold))
            kept = np.concatenate((kept, block[decisions.is_kept(block)]))
        return decisions

    def deduplicate_against(self, kept: "Vectors", threshold: float) -> Decisions:
        """Drop the rows that are similar to a row of `kept`.

        For each dropped row, `Decisions.keeper` is the rank in `kept` of the row that it resembles.
        """
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
            kept_block = kept[start : start + KEPT_BLOCK]
            block = block[decisions.is_kept(block)]
            cosines = _cosines(other, kept_block, self, block)
            decisions.drop(_similar_pairs(cosines, kept_block, block, threshold))


def _cosines(first: Vectors, left: Rows, second: Vectors, right: Rows) -> NDArray[np.float32]:
    """Return (len(left), len(right)): for each pair the smallest cosine over all columns."""
    least = np.ones((len(left), len(right)), np.float32)
    for first_column, second_column in zip(first.columns, second.columns, strict=True):
        left_vectors = first_column[first.rows[left]].astype(np.float32)
        right_vectors = second_column[second.rows[right]].astype(np.float32)
        np.minimum(least, left_vectors @ right_vectors.T, out=least)
    return least


def _similar_pairs(
    cosines: NDArray[np.float32], left: Rows, right: Rows, threshold: float
) -> SimilarPairs:
    left_places, right_places = np.nonzero(cosines >= threshold)
    similarity = cosines[left_places, right_places].astype(np.float64)
    return SimilarPairs(left[left_places], right[right_places], similarity)
