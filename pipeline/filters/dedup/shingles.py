"""Texts as sets of word shingles, hashed to 32 bits.

Shingles are all runs of n words (Broder 1997, On the resemblance and containment of documents).

A whole batch is hashed in a few passes of numpy. A word's hash is the difference of two sums of a
running polynomial over code points (Karp & Rabin 1987), modulo 2**32. A shingle's hash is a
polynomial over the hashes of its words.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import folding
from pipeline.filters.dedup.buckets import split_by_weight
from pipeline.filters.measures import Ragged

Hashes = NDArray[np.uint32]

CHARACTERS = 1 << 17  # characters hashed at a time: most of them fit in a core's own cache
LETTER, WORD, MIX = 0x9E3779B1, np.uint64(0xD6E8FEB86659FD93), np.uint64(0xFF51AFD7ED558CCD)  # odd
HIGH = np.uint64(32)
PADDING = np.uint32(0xFFFFFFFF)


def shingle(texts: Sequence[str], size: int) -> Ragged:
    """Return the set of shingles of `size` words of each text, as rising uint32.

    A shorter text is one shingle; a text without words is the empty set. Case, punctuation and
    spacing do not count; symbols (+, <, €, emoji) and operators (a - 1, a * 1) are words. Two
    different shingles share a hash with a probability of 1 in 4e9.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    wide = np.array([not text.isascii() for text in texts], bool)
    order = np.lexsort((lengths, wide))  # texts of similar length need little padding
    sets: list[Hashes] = [np.zeros(0, np.uint32)] * len(texts)
    tables = _Tables(2 * CHARACTERS)
    for rows in split_by_weight(order, lengths[order], CHARACTERS):
        codes, single, text_ends = folding.fold_words([texts[row] for row in rows])
        if len(codes) > tables.size:
            tables = _Tables(len(codes))
        starts, words = _hash_words(codes, single, tables)
        piece = _hash_shingles(words, np.searchsorted(starts, text_ends), size)
        for row, hashes in zip(rows, piece, strict=True):
            sets[row] = hashes
    ends = np.cumsum([len(hashes) for hashes in sets], dtype=np.int64)
    return Ragged(np.concatenate([np.zeros(0, np.uint32), *sets]), ends)


class _Tables:
    """For `size` characters: powers of LETTER modulo 2 ** 32, their inverses, room for sums.

    They are reused, because allocating memory for each piece costs more than the sums do.
    """

    def __init__(self, size: int):
        self.size = size
        self.powers = _powers(LETTER, size)
        self.inverse = _powers(pow(LETTER, -1, 1 << 32), size)
        self.sums = np.zeros(size + 1, np.uint32)


@lru_cache(4)
def _powers(base: int, length: int) -> Hashes:
    table = np.full(length, base, np.uint32)
    table[0] = 1
    return np.cumprod(table, dtype=np.uint32)


def _hash_words(
    codes: NDArray[Any], single: NDArray[np.bool_], tables: _Tables
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Return where each word starts, and its hash."""
    inside = codes != folding.SEPARATOR
    border = np.ones(len(codes) + 1, bool)  # border[i]: no word spans i - 1 and i
    border[1:-1] = ~(inside[1:] & inside[:-1]) | single[1:] | single[:-1]
    starts = np.flatnonzero(inside & border[:-1])
    ends = np.flatnonzero(inside & border[1:]) + 1
    sums = tables.sums[1 : len(codes) + 1]
    np.multiply(codes, tables.powers[: len(codes)], out=sums)
    np.cumsum(sums, out=sums)
    hashes = (tables.sums[ends] - tables.sums[starts]) * tables.inverse[starts]
    return starts, _mix(hashes.astype(np.uint64))


def _hash_shingles(words: NDArray[np.uint64], ends: NDArray[np.intp], size: int) -> list[Hashes]:
    """Return the set of each text. The words of text n end before word `ends[n]`."""
    counts = np.diff(ends, prepend=0)
    starts_here = np.ones(len(words), bool)  # whether a shingle begins at this word
    runs = words
    short_texts = []
    for length in range(1, size):
        first_words = (ends - counts)[counts == length]
        short_texts.append((first_words, runs[first_words]))
        starts_here[ends[counts >= length] - length] = False
        runs = runs[:-1] * WORD + words[length:]
    hashes = np.zeros(len(words), np.uint64)
    hashes[: len(runs)] = runs
    for first_words, short_runs in short_texts:
        hashes[first_words] = short_runs
        starts_here[first_words] = True
    shingles = (_mix(hashes[starts_here]) >> HIGH).astype(np.uint32)
    shingle_counts = np.where(counts < size, np.minimum(counts, 1), counts - size + 1)
    return _split_unique(shingles, shingle_counts)


def _split_unique(values: Hashes, counts: NDArray[np.intp]) -> list[Hashes]:
    """Split into runs of `counts[n]` values, and return each run sorted and without repeats."""
    valid = np.arange(counts.max(initial=1)) < counts[:, None]
    table = np.full(valid.shape, PADDING)
    table[valid] = values
    table.sort(axis=1)
    valid[:, 1:] &= table[:, 1:] != table[:, :-1]
    return np.split(table[valid], np.cumsum(valid.sum(1))[:-1])


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Let every bit influence the high ones, in place (a step of MurmurHash3's finaliser)."""
    values ^= values >> np.uint64(33)
    values *= MIX
    return values
