"""Rows in buckets: two that share none are no candidates for being alike. Rows are counted by rank, 0 is the best."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Ragged

Rows = NDArray[np.int64]


def gathered(sets: Ragged, rows: Rows) -> Ragged:
    """The sets of `rows`, in that order."""
    if len(rows) and (np.diff(rows) == 1).all():
        start = sets.ends[rows[0] - 1] if rows[0] else 0
        return Ragged(sets.values[start : sets.ends[rows[-1]]], sets.ends[rows] - start)
    counts = sizes(sets, rows)
    ends = np.cumsum(counts)
    return Ragged(
        sets.values[np.repeat(sets.ends[rows] - ends, counts) + np.arange(counts.sum())], ends
    )


def sizes(sets: Ragged, rows: Rows) -> Rows:
    """How many elements the sets of `rows` have."""
    found: Rows = sets.ends[rows] - np.where(rows > 0, sets.ends[rows - 1], 0)
    return found


def pieces(rows: Rows, weights: Rows, most: int) -> Iterator[Rows]:
    """Rows in order, of about `most` weight at a time."""
    if len(rows):
        yield from np.split(rows, np.flatnonzero(np.diff(np.cumsum(weights) // most)) + 1)


@dataclass(frozen=True)
class Buckets:
    """Entry n is a row, and `ends[n]` where its bucket ends. In a bucket rows rise."""

    rows: NDArray[np.int32]
    ends: Rows
    of_row: Ragged  # the entries of each row

    @classmethod
    def of(cls, found: Sequence[tuple[NDArray[np.int32], Rows]], rows: int) -> Self:
        """Put together what `several` found; `rows` is how many there are in all."""
        before = np.cumsum([0, *(len(part) for part, _ in found)])
        every = np.concatenate([np.zeros(0, np.int32), *(part for part, _ in found)])
        ends = np.concatenate(
            [
                np.zeros(0, np.int64),
                *(part + shift for (_, part), shift in zip(found, before, strict=False)),
            ]
        )
        entries = Ragged(
            np.argsort(every, kind="stable"), np.cumsum(np.bincount(every, minlength=rows))
        )
        return cls(every, ends, entries)

    @property
    def later(self) -> Rows:
        """How many rows come after each entry in its bucket."""
        return self.ends - np.arange(len(self.ends)) - 1

    def pairs(self, entries: Rows) -> tuple[Rows, Rows]:
        """Each entry's row with each later row of its bucket; a pair may share several buckets."""
        counts = self.ends[entries] - entries - 1
        ends = np.cumsum(counts)
        others = np.repeat(entries + 1 - ends + counts, counts) + np.arange(counts.sum())
        return np.repeat(self.rows[entries], counts), self.rows[others]


def several(keys: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[np.int32], Rows]:
    """Of rows in the order of their keys those that share one, and where each run of them ends."""
    same = np.concatenate(([False], keys[1:] == keys[:-1], [False]))
    shared = same[1:] | same[:-1]
    ends = np.cumsum(shared)[shared & ~same[1:]]
    return rows[shared].astype(np.int32), np.repeat(ends, np.diff(ends, prepend=0))
