"""Candidate pairs where MinHash bands give too many, for instance for texts from one template.

Two sets with a Jaccard index of at least t share one of the first n - ceil(t n) + 1 elements of
either, in any fixed order of all elements (prefix filtering: Chaudhuri, Ganti & Kaushik 2006;
Bayardo, Ma & Srikant 2007). Rare elements come first here. The frequent shingles of a template then
make no candidates, and no similar pair is missed.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import (
    Buckets,
    Rows,
    gather,
    group_equal_keys,
    set_sizes,
    split_by_weight,
)
from pipeline.filters.measures import Ragged

CROWDED = 100  # candidates a row above which prefixes are faster than bands
ELEMENTS = 1 << 18  # elements of sets handled at a time
# Bits of a hash that choose its frequency counter. Elements that share a counter change their
# place in the order, nothing else.
COUNTER_BITS = 24
PADDING = np.uint64(0xFFFFFFFFFFFFFFFF)


def bucket(sets: Ragged, rows: Rows, chosen: Rows, threshold: float) -> Buckets:
    """Group the ranks `chosen` that share an element of their prefixes.

    `rows` tells which set each rank has.
    """
    sizes = set_sizes(sets, rows[chosen])
    order = np.argsort(sizes, kind="stable")
    pieces = [chosen[piece] for piece in split_by_weight(order, sizes[order], ELEMENTS)]
    if not pieces:
        return Buckets.merge([], len(rows))
    frequency = np.zeros(1 << COUNTER_BITS, np.uint32)
    for ranks in pieces:
        np.add.at(frequency, _counters(gather(sets, rows[ranks]).values), np.uint32(1))
    keys = np.concatenate(
        [_prefixes(gather(sets, rows[ranks]), ranks, frequency, threshold) for ranks in pieces]
    )
    keys.sort()
    groups = group_equal_keys(keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF))
    return Buckets.merge([groups], len(rows))


def _counters(elements: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return elements >> np.uint32(32 - COUNTER_BITS)


def _prefixes(
    sets: Ragged, ranks: Rows, frequency: NDArray[np.uint32], threshold: float
) -> NDArray[np.uint64]:
    """Return the elements of all prefixes: element in the high 32 bits, rank in the low ones."""
    sizes = np.diff(sets.ends, prepend=0)[:, None]
    column = np.arange(sizes.max(initial=0))
    table = np.full((len(ranks), len(column)), PADDING)
    rarity = frequency[_counters(sets.values)].astype(np.uint64) << np.uint64(32)
    table[column < sizes] = rarity | sets.values
    table.sort(axis=1)
    prefix_sizes = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    inside = column < np.minimum(prefix_sizes, sizes)
    rank_of_element = np.repeat(ranks, inside.sum(1)).astype(np.uint64)
    prefixes: NDArray[np.uint64] = table[inside] << np.uint64(32) | rank_of_element
    return prefixes
