"""Which sets are likely to be alike: MinHash signatures, and rows whose signatures agree in a band (Broder 1997; Indyk & Motwani 1998).

A signature has one minimum for each of K equal parts of the hash range (one permutation hashing, Li, Owen & Zhang 2012, NIPS 25), which a
sorted set gives without any further hashing. A part with no element takes the minimum of the whole set under a hash of its own, so two
sets of Jaccard index J agree in each part with probability J, short ones too.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup.buckets import Buckets, Rows, gathered, pieces, several, sizes
from pipeline.filters.measures import Ragged

PARTS = 64
RECALL = 0.985  # of pairs just at the threshold, to be found by the bands
DOUBT = (
    3  # standard deviations by which the share of parts that agree may fall short of the threshold
)
ELEMENTS = 1 << 17  # of sets, at a time
PAIRS = 1 << 13  # at a time
MIX, SHIFT = np.uint32(0x9E3779B1), np.uint32(15)
BAND = np.uint64(0xD6E8FEB86659FD93)

Signatures = NDArray[np.uint16]  # (N, PARTS)


def signatures(sets: Ragged, rows: Rows) -> Signatures:
    """The last 16 bits of each part's minimum, for sets that rise. Those of an empty set say nothing."""
    found = np.zeros((len(rows), PARTS), np.uint16)
    for some in pieces(np.arange(len(rows)), sizes(sets, rows), ELEMENTS):
        found[some] = _signed(gathered(sets, rows[some]))
    return found


def _signed(sets: Ragged) -> Signatures:
    counts = np.diff(sets.ends, prepend=0)
    part = np.repeat(np.arange(len(sets), dtype=np.uint32) * np.uint32(PARTS), counts)
    part += sets.values >> np.uint32(32 - PARTS.bit_length() + 1)
    first = np.concatenate(([0], np.flatnonzero(part[1:] != part[:-1]) + 1))[: len(part)]
    least = np.zeros(len(sets) * PARTS, np.uint16)
    least[part[first]] = sets.values[first]
    empty = np.repeat(counts > 0, PARTS)
    empty[part[first]] = False
    lacking = np.flatnonzero(empty)
    least[lacking] = _fallback(sets, lacking)
    return least.reshape(len(sets), PARTS)


def _fallback(sets: Ragged, parts: Rows) -> NDArray[np.uint32]:
    """For each part (row * PARTS + number) the minimum of its row under the number's hash."""
    whole = gathered(sets, parts // PARTS)
    if not len(whole):
        return whole.values
    counts = np.diff(whole.ends, prepend=0)
    values: NDArray[Any] = whole.values ^ np.repeat(
        (parts % PARTS + 1).astype(np.uint32) * MIX, counts
    )
    values *= MIX
    values ^= values >> SHIFT
    values *= MIX
    least: NDArray[np.uint32] = np.minimum.reduceat(values, whole.ends - counts)
    return least


def bands(threshold: float) -> tuple[int, int]:
    """(bands, parts in each): the longest that still find RECALL of the pairs at the threshold, 1 - (1 - t ** r) ** b."""
    fitting = [r for r in range(1, PARTS + 1) if 1 - (1 - threshold**r) ** (PARTS // r) >= RECALL]
    r = max(fitting, default=1)
    return PARTS // r, r


def bucketed(signed: Signatures, threshold: float, there: NDArray[np.bool_]) -> Buckets:
    """Rows that agree in a whole band. `there`: rows that may be alike to others at all."""
    every = np.flatnonzero(there)
    found = [
        several(keys[order], every[order])
        for keys in _keys(signed[every], threshold)
        if len(order := np.argsort(keys, kind="stable"))
    ]
    return Buckets.of(found, len(signed))


def _keys(signed: Signatures, threshold: float) -> Iterator[NDArray[np.uint64]]:
    count, length = bands(threshold)
    for band in range(count):
        keys = np.zeros(len(signed), np.uint64)
        for part in range(band * length, (band + 1) * length):
            keys = (keys + signed[:, part] + np.uint64(1)) * BAND
            keys ^= keys >> np.uint64(32)
        yield keys


def agreeing(signed: Signatures, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
    """Whether so many parts of two rows agree that their Jaccard index may be at the threshold (false for one pair in 700 that is)."""
    least = PARTS * (threshold - DOUBT * np.sqrt(threshold * (1 - threshold) / PARTS))
    found = np.zeros(len(left), bool)
    for start in range(0, len(left), PAIRS):
        some = slice(start, start + PAIRS)
        agreed = np.packbits(signed[left[some]] == signed[right[some]]).view(
            np.uint64
        )  # a bit a part
        found[some] = np.bitwise_count(agreed) >= least
    return found
