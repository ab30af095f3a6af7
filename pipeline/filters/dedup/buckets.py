"""Candidate pairs of similar rows: two rows are compared only if they share a bucket.

Rows are numbered by rank: 0 is the best row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Ragged

Rows = NDArray[np.int64]


def gather(sets: Ragged, rows: Rows) -> Ragged:
    """Return the sets of `rows`, in that order."""
    if len(rows) and (np.diff(rows) == 1).all():
        start = sets.ends[rows[0] - 1] if rows[0] else 0
        return Ragged(sets.values[start : sets.ends[rows[-1]]], sets.ends[rows] - start)
    sizes = set_sizes(sets, rows)
    ends = np.cumsum(sizes)
    positions = np.repeat(sets.ends[rows] - ends, sizes) + np.arange(sizes.sum())
    return Ragged(sets.values[positions], ends)


def set_sizes(sets: Ragged, rows: Rows) -> Rows:
    """Return the number of elements in each set of `rows`."""
    sizes: Rows = sets.ends[rows] - np.where(rows > 0, sets.ends[rows - 1], 0)
    return sizes


def split_by_weight(rows: Rows, weights: Rows, limit: int) -> Iterator[Rows]:
    """Yield consecutive pieces of `rows`, each of about `limit` weight."""
    if len(rows):
        yield from np.split(rows, np.flatnonzero(np.diff(np.cumsum(weights) // limit)) + 1)


@dataclass(frozen=True)
class Buckets:
    """Buckets of rows, stored one after the other as a list of entries.

    Entry n is the row `rows[n]`, in a bucket that ends before entry `ends[n]`. Within a bucket the
    rows are in rising order. `of_row` lists the entries of each row.
    """

    rows: NDArray[np.int32]
    ends: Rows
    of_row: Ragged

    @classmethod
    def merge(cls, groups: Sequence[tuple[NDArray[np.int32], Rows]], row_count: int) -> Self:
        """Combine several results of `group_equal_keys` over the same `row_count` rows."""
        entry_rows = [np.zeros(0, np.int32)]
        ends = [np.zeros(0, np.int64)]
        entries_before = 0
        for rows, group_ends in groups:
            entry_rows.append(rows)
            ends.append(group_ends + entries_before)
            entries_before += len(rows)
        rows = np.concatenate(entry_rows)
        row_ends = np.cumsum(np.bincount(rows, minlength=row_count))
        return cls(rows, np.concatenate(ends), Ragged(np.argsort(rows, kind="stable"), row_ends))

    @property
    def later(self) -> Rows:
        """Return how many rows follow each entry in its bucket."""
        return self.ends - np.arange(len(self.ends)) - 1

    def pairs(self, entries: Rows) -> tuple[Rows, Rows]:
        """Pair each entry's row with every later row of its bucket; pairs may repeat."""
        counts = self.ends[entries] - entries - 1
        ends = np.cumsum(counts)
        partners = np.repeat(entries + 1 - ends + counts, counts) + np.arange(counts.sum())
        return np.repeat(self.rows[entries], counts), self.rows[partners]


def group_equal_keys(keys: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[np.int32], Rows]:
    """Return the rows whose key another row has too, and the end of each row's group.

    Both arguments must be sorted by key.
    """
    if not len(keys):
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    same = np.concatenate(([False], keys[1:] == keys[:-1], [False]))
    shared = same[1:] | same[:-1]
    ends = np.cumsum(shared)[shared & ~same[1:]]
    return rows[shared].astype(np.int32), np.repeat(ends, np.diff(ends, prepend=0))
