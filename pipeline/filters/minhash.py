"""Which sets are likely to be alike: MinHash signatures, and rows whose signatures agree in a band (Broder 1997; Indyk & Motwani 1998).

A signature has one minimum for each of K equal parts of the hash range (one permutation hashing, Li, Owen & Zhang 2012, NIPS 25), which a
sorted set gives without any further hashing. A part with no element takes the minimum of the whole set under a hash of its own, so two
sets of Jaccard index J agree in each part with probability J, short ones too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.columns import Ragged

PARTS = 64
RECALL = 0.985  # of pairs just at the threshold, to be found by the bands
DOUBT = 4  # standard deviations by which the share of parts that agree may fall short of the threshold
ELEMENTS = 1 << 17  # of sets, at a time
MIX, SHIFT = np.uint32(0x9E3779B1), np.uint32(15)
BAND = np.uint64(0xD6E8FEB86659FD93)

Rows = NDArray[np.int64]
Signatures = NDArray[np.uint16]  # (N, PARTS)


def gathered(sets: Ragged, rows: Rows) -> Ragged:
    """The sets of `rows`, in that order."""
    if len(rows) and (np.diff(rows) == 1).all():
        start = sets.ends[rows[0] - 1] if rows[0] else 0
        return Ragged(sets.values[start : sets.ends[rows[-1]]], sets.ends[rows] - start)
    counts = sizes(sets, rows)
    ends = np.cumsum(counts)
    return Ragged(sets.values[np.repeat(sets.ends[rows] - ends, counts) + np.arange(counts.sum())], ends)


def sizes(sets: Ragged, rows: Rows) -> Rows:
    """How many elements the sets of `rows` have."""
    found: Rows = sets.ends[rows] - np.where(rows > 0, sets.ends[rows - 1], 0)
    return found


def signatures(sets: Ragged, rows: Rows) -> Signatures:
    """The last 16 bits of each part's minimum, for sets that rise. Those of an empty set say nothing."""
    found = np.zeros((len(rows), PARTS), np.uint16)
    for some in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(np.cumsum(sizes(sets, rows)) // ELEMENTS)) + 1):
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
    values: NDArray[Any] = whole.values ^ np.repeat((parts % PARTS + 1).astype(np.uint32) * MIX, counts)
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


@dataclass(frozen=True)
class Buckets:
    """Rows that agree in a whole band, two or more in a bucket, rising. Entry n is a row, and `ends[n]` where its bucket ends."""

    rows: NDArray[np.int32]
    ends: Rows
    of_row: Ragged  # the entries of each row

    def later(self, rows: Rows) -> tuple[Rows, Rows]:
        """Every entry of `rows`, and how many rows come after it in its bucket."""
        entries = gathered(self.of_row, rows).values
        return entries, self.ends[entries] - entries - 1

    def pairs(self, entries: Rows) -> tuple[Rows, Rows]:
        """Each entry's row with each later row of its bucket; a pair may come from several bands."""
        counts = self.ends[entries] - entries - 1
        ends = np.cumsum(counts)
        others = np.repeat(entries + 1 - ends + counts, counts) + np.arange(counts.sum())
        return np.repeat(self.rows[entries], counts), self.rows[others]


def bucketed(signed: Signatures, threshold: float, there: NDArray[np.bool_]) -> Buckets:
    """`there`: rows that may be alike to others at all."""
    rows, ends, entries = [], [], 0
    for keys in _keys(signed, threshold):
        order = np.flatnonzero(there)
        order = order[np.argsort(keys[order], kind="stable")]
        same = np.concatenate(([False], keys[order[1:]] == keys[order[:-1]], [False]))
        several = same[1:] | same[:-1]
        lasts = np.flatnonzero(several & ~same[1:])
        place = np.cumsum(several)
        rows.append(order[several].astype(np.int32))
        ends.append(np.repeat(place[lasts] + entries, np.diff(place[lasts], prepend=0)))
        entries += len(rows[-1])
    every = np.concatenate(rows)
    counts = np.bincount(every, minlength=len(signed))
    return Buckets(every, np.concatenate(ends), Ragged(np.argsort(every, kind="stable"), np.cumsum(counts)))


def _keys(signed: Signatures, threshold: float) -> Iterator[NDArray[np.uint64]]:
    count, length = bands(threshold)
    for band in range(count):
        keys = np.zeros(len(signed), np.uint64)
        for part in range(band * length, (band + 1) * length):
            keys = (keys + signed[:, part] + np.uint64(1)) * BAND
            keys ^= keys >> np.uint64(32)
        yield keys


def agreeing(signed: Signatures, left: Rows, right: Rows, threshold: float) -> NDArray[np.bool_]:
    """Whether so many parts of two rows agree that their Jaccard index may be at the threshold (false for one pair in 30,000 that is)."""
    least = threshold - DOUBT * np.sqrt(threshold * (1 - threshold) / PARTS)
    shares: NDArray[np.bool_] = (signed[left] == signed[right]).mean(1, dtype=np.float32) >= least
    return shares
