"""MinHash: find candidate pairs as rows whose signatures agree in a band (Broder 1997; Indyk &
Motwani 1998).

A signature holds one minimum for each of K equal parts of the hash range (one permutation hashing,
Li, Owen & Zhang 2012, NIPS 25). The elements of a set are 32-bit hashes in rising order, so the
minimum of each part can be read off. A part without elements takes the minimum of the whole set
under a hash of its own. So two sets of Jaccard index J agree in each part with probability J, even
short ones.
"""

from collections.abc import Iterator
from typing import Any

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

PARTS = 64
RECALL = 0.985  # share of the pairs just at the threshold that the bands must find
# A pair is dropped if its share of agreeing parts is more standard deviations below the threshold.
DEVIATIONS = 3
ELEMENTS = 1 << 17  # elements of sets handled at a time
PAIRS = 1 << 13  # pairs handled at a time
MIX = np.uint32(0x9E3779B1)
SHIFT = np.uint32(15)
BAND = np.uint64(0xD6E8FEB86659FD93)

Signatures = NDArray[np.uint16]  # (N, PARTS)


def signatures(sets: Ragged, rows: Rows) -> Signatures:
    """Return the last 16 bits of each part's minimum, for sets in ascending order.

    The signature of an empty set means nothing.
    """
    result = np.zeros((len(rows), PARTS), np.uint16)
    for piece in split_by_weight(np.arange(len(rows)), set_sizes(sets, rows), ELEMENTS):
        result[piece] = _sign(gather(sets, rows[piece]))
    return result


def _sign(sets: Ragged) -> Signatures:
    sizes = np.diff(sets.ends, prepend=0)
    part = np.repeat(np.arange(len(sets), dtype=np.uint32) * np.uint32(PARTS), sizes)
    part += sets.values >> np.uint32(32 - PARTS.bit_length() + 1)
    first = np.concatenate(([0], np.flatnonzero(part[1:] != part[:-1]) + 1))[: len(part)]
    minima = np.zeros(len(sets) * PARTS, np.uint16)
    minima[part[first]] = sets.values[first]
    empty = np.repeat(sizes > 0, PARTS)
    empty[part[first]] = False
    empty_parts = np.flatnonzero(empty)
    minima[empty_parts] = _fallback(sets, empty_parts)
    return minima.reshape(len(sets), PARTS)


def _fallback(sets: Ragged, parts: Rows) -> NDArray[np.uint32]:
    """Return for each empty part, given as row * PARTS + number, a minimum of its row's whole set.

    The hash under which it is the minimum is chosen by the number.
    """
    whole = gather(sets, parts // PARTS)
    if not len(whole):
        return whole.values
    sizes = np.diff(whole.ends, prepend=0)
    salts = (parts % PARTS + 1).astype(np.uint32) * MIX
    hashes: NDArray[Any] = whole.values ^ np.repeat(salts, sizes)
    hashes *= MIX
    hashes ^= hashes >> SHIFT
    hashes *= MIX
    minima: NDArray[np.uint32] = np.minimum.reduceat(hashes, whole.ends - sizes)
    return minima


def bands(threshold: float) -> tuple[int, int]:
    """Return the number of bands and the parts in each.

    Bands are as long as possible while 1 - (1 - t ** r) ** b, the share of the pairs at the
    threshold that they find, is at least RECALL.
    """
    fitting = [r for r in range(1, PARTS + 1) if 1 - (1 - threshold**r) ** (PARTS // r) >= RECALL]
    length = max(fitting, default=1)
    return PARTS // length, length


def bucket(signed: Signatures, threshold: float, comparable: NDArray[np.bool_]) -> Buckets:
    """Group the `comparable` rows whose signatures agree in a whole band."""
    rows = np.flatnonzero(comparable)
    groups = []
    for keys in _band_keys(signed[rows], threshold):
        order = np.argsort(keys, kind="stable")
        groups.append(group_equal_keys(keys[order], rows[order]))
    return Buckets.merge(groups, len(signed))


def _band_keys(signed: Signatures, threshold: float) -> Iterator[NDArray[np.uint64]]:
    count, length = bands(threshold)
    for band in range(count):
        keys = np.zeros(len(signed), np.uint64)
        for part in range(band * length, (band + 1) * length):
            keys = (keys + signed[:, part] + np.uint64(1)) * BAND
            keys ^= keys >> np.uint64(32)
        yield keys


def may_be_similar(
    signed: Signatures, left: Rows, right: Rows, threshold: float
) -> NDArray[np.bool_]:
    """Return for each pair whether its Jaccard index may reach the threshold, by the signatures.

    It is False for one in 700 of the pairs that are at the threshold.
    """
    deviation = np.sqrt(threshold * (1 - threshold) / PARTS)
    least = PARTS * (threshold - DEVIATIONS * deviation)
    possible = np.zeros(len(left), bool)
    for start in range(0, len(left), PAIRS):
        pairs = slice(start, start + PAIRS)
        equal = signed[left[pairs]] == signed[right[pairs]]
        one_bit_a_part = np.packbits(equal).view(np.uint64)
        possible[pairs] = np.bitwise_count(one_bit_a_part) >= least
    return possible
