"""Near duplicates: candidates from MinHash bands, each checked by its exact Jaccard index."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import minhash, prefix_filter
from pipeline.filters.dedup.buckets import Buckets, Rows, gather, set_sizes, split_by_weight
from pipeline.filters.dedup.keep_best import Decisions, SimilarPairs, drop_similar, keep_best
from pipeline.filters.measures import Ragged

ELEMENTS = 1 << 18  # elements of set pairs handled at a time
PADDING = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class Sets:
    """Shingle sets of rows sorted by rank, best first.

    A row may have several sets (`columns`). Two rows are as similar as their least similar pair of
    sets.
    """

    columns: Sequence[Ragged]
    rows: Rows

    @cached_property
    def signatures(self) -> minhash.Signatures:
        """Return one MinHash signature for each row.

        With several columns, the parts of a signature come from each column in turn. So a band of
        parts agrees only if all columns do.
        """
        of_columns = [minhash.signatures(column, self.rows) for column in self.columns]
        mixed = of_columns[0]
        for number, signatures in enumerate(of_columns[1:], start=1):
            mixed[:, number :: len(of_columns)] = signatures[:, number :: len(of_columns)]
        return mixed

    @property
    def comparable(self) -> NDArray[np.bool_]:
        """Return for each row whether all its sets have elements. Empty sets are never similar."""
        return np.all([set_sizes(column, self.rows) > 0 for column in self.columns], axis=0)

    def deduplicate(self, threshold: float) -> Decisions:
        """Decide which rows to keep. `Decisions.keeper` holds ranks of these rows."""
        find_similar = partial(_find_similar, self, self, self.signatures, threshold, 0)
        return keep_best(self.buckets(threshold), find_similar, len(self.rows))

    def buckets(self, threshold: float) -> Buckets:
        """Return the candidate pairs from bands, or from prefixes if bands give too many."""
        by_bands = minhash.bucket(self.signatures, threshold, self.comparable)
        if by_bands.later.sum() <= prefix_filter.CROWDED * len(self.rows):
            return by_bands
        chosen = np.unique(by_bands.rows).astype(np.int64)
        by_prefixes = [
            prefix_filter.bucket(column, self.rows, chosen, threshold) for column in self.columns
        ]
        return min(by_bands, *by_prefixes, key=lambda buckets: buckets.later.sum())

    def deduplicate_against(self, kept: "Sets", threshold: float) -> Decisions:
        """Drop the rows that are similar to a row of `kept`.

        For each dropped row, `Decisions.keeper` is the rank in `kept` of the row that it resembles.
        """
        kept_count = len(kept.rows)
        signatures = np.concatenate((kept.signatures, self.signatures))
        comparable = np.concatenate((kept.comparable, self.comparable))
        buckets = minhash.bucket(signatures, threshold, comparable)
        decisions = Decisions(len(signatures))
        find_similar = partial(_find_similar, kept, self, signatures, threshold, kept_count)
        undecided = np.arange(len(signatures)) >= kept_count
        drop_similar(buckets, np.arange(kept_count), find_similar, decisions, undecided)
        return decisions.since(kept_count)


def _find_similar(
    first: Sets,
    second: Sets,
    signatures: minhash.Signatures,
    threshold: float,
    offset: int,
    left: Rows,
    right: Rows,
) -> SimilarPairs:
    """Return the pairs whose Jaccard index is at least `threshold`.

    A comparison of signatures and set sizes first excludes most candidates. Row 0 of `second` has
    the number `offset` in `right`.
    """
    likely = minhash.may_be_similar(signatures, left, right, threshold)
    left, right = _unique_pairs(left[likely], right[likely] - offset)
    columns = list(zip(first.columns, second.columns, strict=True))
    for ours, theirs in columns:
        sizes = [set_sizes(ours, first.rows[left]), set_sizes(theirs, second.rows[right])]
        smaller, larger = np.sort(sizes, axis=0)
        possible = smaller >= threshold * larger - 1e-9
        left = left[possible]
        right = right[possible]
    indices = [
        jaccard(ours, first.rows[left], theirs, second.rows[right]) for ours, theirs in columns
    ]
    least = np.min(indices, axis=0)
    similar = least >= threshold
    return SimilarPairs(left[similar], right[similar] + offset, least[similar])


def _unique_pairs(left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Return each pair once, sorted."""
    if not len(left):
        return left, right
    width = int(right.max()) + 1
    return np.divmod(np.unique(left.astype(np.int64) * width + right), width)


def jaccard(sets: Ragged, left: Rows, others: Ragged, right: Rows) -> NDArray[np.float64]:
    """Return for each n the Jaccard index of set `left[n]` of `sets` and `right[n]` of `others`.

    The index is the number of shared elements divided by the number of elements in either set.
    """
    total = set_sizes(sets, left) + set_sizes(others, right)
    order = np.argsort(total)
    indices = np.zeros(len(left))
    for pairs in split_by_weight(order, total[order], ELEMENTS):
        shared = _count_shared(gather(sets, left[pairs]), gather(others, right[pairs]))
        indices[pairs] = shared / np.maximum(1, total[pairs] - shared)
    return indices


def _count_shared(first: Ragged, second: Ragged) -> NDArray[np.int64]:
    """Count the elements that row n of both share.

    The elements of both sets are sorted together, so shared ones are neighbours.
    """
    first_sizes = np.diff(first.ends, prepend=0)[:, None]
    total = np.diff(first.ends + second.ends, prepend=0)[:, None]
    column = np.arange(total.max(initial=1))
    table = np.full((len(first), len(column)), PADDING)
    table[column < first_sizes] = first.values
    table[(column >= first_sizes) & (column < total)] = second.values
    table.sort(axis=1)
    return np.count_nonzero((table[:, 1:] == table[:, :-1]) & (column[1:] < total), axis=1)
