"""Unit vectors held against one another, all with all, a block of cosines at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Rows
from pipeline.filters.dedup.keep_best import Edges, Kept

BLOCK, STAYING = 1024, 8192  # rows of a block of cosines, and of those that stay


@dataclass(frozen=True)
class Vectors:
    """Rows by rank, best first; of each one unit vector or more, and of several the least cosine counts."""

    columns: Sequence[NDArray[np.float16]]
    rows: Rows

    def among(self, threshold: float) -> Kept:
        """Decide on all rows. The keepers are ranks."""
        kept = Kept(len(self.rows))
        staying = np.zeros(0, np.int64)
        for block in self._blocks():
            self._reach(self, staying, block, threshold, kept)
            block = block[kept.keeper[block] < 0]
            kept.settle(
                _edges(np.triu(_cosines(self, block, self, block), 1), block, block, threshold)
            )
            staying = np.concatenate((staying, block[kept.keeper[block] < 0]))
        return kept

    def beside(self, staying: "Vectors", threshold: float) -> Kept:
        """Drop the rows that are like one of `staying`, whose ranks the keepers are."""
        kept = Kept(len(self.rows))
        for block in self._blocks():
            self._reach(staying, np.arange(len(staying.rows)), block, threshold, kept)
        return kept

    def _blocks(self) -> list[Rows]:
        return np.split(np.arange(len(self.rows)), range(BLOCK, len(self.rows), BLOCK))

    def _reach(
        self, other: "Vectors", staying: Rows, block: Rows, threshold: float, kept: Kept
    ) -> None:
        for start in range(0, len(staying), STAYING):
            some, block = staying[start : start + STAYING], block[kept.keeper[block] < 0]
            kept.drop(_edges(_cosines(other, some, self, block), some, block, threshold))


def _cosines(one: Vectors, left: Rows, two: Vectors, right: Rows) -> NDArray[np.float32]:
    """(left, right)"""
    least = np.ones((len(left), len(right)), np.float32)
    for mine, other in zip(one.columns, two.columns, strict=True):
        np.minimum(
            least,
            mine[one.rows[left]].astype(np.float32) @ other[two.rows[right]].astype(np.float32).T,
            out=least,
        )
    return least


def _edges(cosines: NDArray[np.float32], left: Rows, right: Rows, threshold: float) -> Edges:
    rows, columns = np.nonzero(cosines >= threshold)
    return Edges(left[rows], right[columns], cosines[rows, columns].astype(np.float64))
