"""Candidates where bands give too many: texts from one mould agree in half of their shingles, but in the frequent ones.

Two sets with a Jaccard index of at least t share one of the first n - ceil(t n) + 1 elements of either, in any order of all elements
(prefix filtering: Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007). Rare elements come first here, so a mould's own make no
candidates, and no pair is missed.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Buckets, Rows, gathered, pieces, several, sizes
from pipeline.filters.measures import Ragged

CROWDED = 100  # candidates a row from which on this is the shorter way
ELEMENTS = 1 << 18  # of sets, at a time
COUNTERS = (
    24  # bits of a hash that choose its counter: elements that share one only come in another order
)
LAST = np.uint64(0xFFFFFFFFFFFFFFFF)


def bucketed(sets: Ragged, rows: Rows, chosen: Rows, threshold: float) -> Buckets:
    """Of the ranks `chosen`, those that share an element of their prefixes. `rows`: where the set of each rank is."""
    counts = sizes(sets, rows[chosen])
    order = np.argsort(counts, kind="stable")
    parts = [chosen[some] for some in pieces(order, counts[order], ELEMENTS)]
    frequency = np.zeros(1 << COUNTERS, np.uint32)
    for part in parts:
        np.add.at(
            frequency, gathered(sets, rows[part]).values >> np.uint32(32 - COUNTERS), np.uint32(1)
        )
    keys = np.sort(
        np.concatenate(
            [
                np.zeros(0, np.uint64),
                *(
                    _prefixes(gathered(sets, rows[part]), part, frequency, threshold)
                    for part in parts
                ),
            ]
        )
    )
    return Buckets.of(
        [several(keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF))] if len(keys) else [],
        len(rows),
    )


def _prefixes(
    sets: Ragged, ranks: Rows, frequency: NDArray[np.uint32], threshold: float
) -> NDArray[np.uint64]:
    """The elements of each set's prefix, in the high 32 bits, and its rank."""
    counts = np.diff(sets.ends, prepend=0)[:, None]
    column = np.arange(counts.max(initial=0))
    table = np.full((len(ranks), len(column)), LAST)
    table[column < counts] = (
        frequency[sets.values >> np.uint32(32 - COUNTERS)].astype(np.uint64) << np.uint64(32)
        | sets.values
    )
    table.sort(axis=1)
    length = counts - np.ceil(threshold * counts - 1e-9).astype(np.int64) + 1
    inside = column < np.minimum(length, counts)
    found: NDArray[np.uint64] = table[inside] << np.uint64(32) | np.repeat(
        ranks, inside.sum(1)
    ).astype(np.uint64)
    return found
