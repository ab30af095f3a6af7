"""Sets of shingles held against one another: candidates from MinHash bands, each checked by its Jaccard index."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import keep_best, minhash, prefix_filter
from pipeline.filters.dedup.buckets import Buckets, Rows, gathered, pieces, sizes
from pipeline.filters.dedup.keep_best import Edges, Kept
from pipeline.filters.measures import Ragged

ELEMENTS = 1 << 18  # of pairs of sets, at a time
NOTHING = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Sets:
    """Rows by rank, best first; of each one set or more, and of several the least index counts."""

    columns: Sequence[Ragged]
    rows: Rows

    @cached_property
    def signed(self) -> minhash.Signatures:
        """Of several sets each has its share of the parts, in turns: a band then asks for all of them to be alike."""
        found = [minhash.signatures(column, self.rows) for column in self.columns]
        for number, other in enumerate(found[1:], start=1):
            found[0][:, number :: len(found)] = other[:, number :: len(found)]
        return found[0]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Rows of which no set is empty: what has no words is like nothing."""
        return np.all([sizes(column, self.rows) > 0 for column in self.columns], axis=0)

    def among(self, threshold: float) -> Kept:
        """Decide on all rows. The keepers are ranks."""
        buckets = self.buckets(threshold)
        return keep_best.best(
            buckets, partial(_alike, self, self, self.signed, threshold, 0), len(self.rows)
        )

    def buckets(self, threshold: float) -> Buckets:
        """The candidates: by bands, or where these give too many by prefixes."""
        found = minhash.bucketed(self.signed, threshold, self.there)
        if found.later.sum() <= prefix_filter.CROWDED * len(self.rows):
            return found
        chosen = np.unique(found.rows).astype(np.int64)
        others = [
            prefix_filter.bucketed(column, self.rows, chosen, threshold) for column in self.columns
        ]
        return min(found, *others, key=lambda buckets: buckets.later.sum())

    def beside(self, staying: "Sets", threshold: float) -> Kept:
        """Drop the rows that are like one of `staying`, whose ranks the keepers are."""
        before = len(staying.rows)
        signed = np.concatenate((staying.signed, self.signed))
        buckets = minhash.bucketed(signed, threshold, np.concatenate((staying.there, self.there)))
        kept, alike = Kept(len(signed)), partial(_alike, staying, self, signed, threshold, before)
        keep_best.reach(buckets, np.arange(before), alike, kept, np.arange(len(signed)) >= before)
        return kept.after(before)


def _alike(
    one: Sets,
    two: Sets,
    signed: minhash.Signatures,
    threshold: float,
    before: int,
    left: Rows,
    right: Rows,
) -> Edges:
    """The pairs whose index is at least `threshold`; signatures and sizes are looked at first. `right` counts `before` rows more."""
    likely = minhash.agreeing(signed, left, right, threshold)
    left, right = _once(left[likely], right[likely] - before)
    pairs = list(zip(one.columns, two.columns, strict=True))
    for mine, other in pairs:
        few, many = np.sort([sizes(mine, one.rows[left]), sizes(other, two.rows[right])], axis=0)
        fitting = few >= threshold * many - 1e-9
        left, right = left[fitting], right[fitting]
    index = np.min(
        [jaccard(mine, one.rows[left], other, two.rows[right]) for mine, other in pairs], axis=0
    )
    near = index >= threshold
    return Edges(left[near], right[near] + before, index[near])


def _once(left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Each pair once, sorted."""
    if not len(left):
        return left, right
    width = int(right.max()) + 1
    return np.divmod(np.unique(left.astype(np.int64) * width + right), width)


def jaccard(sets: Ragged, left: Rows, others: Ragged, right: Rows) -> NDArray[np.float64]:
    """Elements that set `left[n]` of `sets` and set `right[n]` of `others` share, over those that either has (Jaccard 1912)."""
    total = sizes(sets, left) + sizes(others, right)
    order = np.argsort(total)
    found = np.zeros(len(left))
    for some in pieces(order, total[order], ELEMENTS):
        shared = _shared(gathered(sets, left[some]), gathered(others, right[some]))
        found[some] = shared / np.maximum(1, total[some] - shared)
    return found


def _shared(one: Ragged, two: Ragged) -> NDArray[np.int64]:
    """How many elements row n of both has: sorted together, they stand side by side."""
    first = np.diff(one.ends, prepend=0)[:, None]
    total = np.diff(one.ends + two.ends, prepend=0)[:, None]
    column = np.arange(total.max(initial=1))
    table = np.full((len(one), len(column)), NOTHING)
    table[column < first] = one.values
    table[(column >= first) & (column < total)] = two.values
    table.sort(axis=1)
    return np.count_nonzero((table[:, 1:] == table[:, :-1]) & (column[1:] < total), axis=1)
