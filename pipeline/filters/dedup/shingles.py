"""Texts as sets of word shingles: every run of n words (Broder 1997, On the resemblance and containment of documents), as 32-bit hashes.

A whole batch is hashed in a few passes of numpy. A word's hash is a difference of two sums of a running polynomial (Karp & Rabin 1987) over
code points, modulo 2**32; a shingle's is a polynomial over its words' hashes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import folding
from pipeline.filters.dedup.buckets import pieces
from pipeline.filters.measures import Ragged

Hashes = NDArray[np.uint32]

CHARACTERS = 1 << 17  # hashed at a time, for the most part in a core's own cache
LETTER, WORD, MIX = 0x9E3779B1, np.uint64(0xD6E8FEB86659FD93), np.uint64(0xFF51AFD7ED558CCD)  # odd
HIGH = np.uint64(32)
NOTHING = np.uint32(0xFFFFFFFF)


def shingled(texts: Sequence[str], size: int) -> Ragged:
    """Of each text its shingles of `size` words as a set of uint32, rising. A text of fewer words is one shingle; of none, the empty set.

    Case, punctuation and spacing do not count; symbols (+, <, €, emoji) are words. Two different shingles have one hash in 4e9 cases.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    wide = np.array([not text.isascii() for text in texts], bool)
    order = np.lexsort((lengths, wide))  # texts of like lengths make a matrix with little padding
    rows: list[Hashes] = [np.zeros(0, np.uint32)] * len(texts)
    tables = _Tables(2 * CHARACTERS)
    for some in pieces(order, lengths[order], CHARACTERS):
        codes, alone, ends = folding.words([texts[row] for row in some])
        tables = tables if len(codes) <= tables.room else _Tables(len(codes))
        starts, hashes = _words(codes, alone, tables)
        for row, found in zip(
            some, _sets(hashes, np.searchsorted(starts, ends), size), strict=True
        ):
            rows[row] = found
    return Ragged(
        np.concatenate([np.zeros(0, np.uint32), *rows]),
        np.cumsum([len(row) for row in rows], dtype=np.int64),
    )


class _Tables:
    """For `room` characters the powers of LETTER modulo 2 ** 32, their inverses, and a place for sums.

    Memory that is new for each piece costs more than the sums do.
    """

    def __init__(self, room: int):
        self.room = room
        self.powers, self.inverse = _powers(LETTER, room), _powers(pow(LETTER, -1, 1 << 32), room)
        self.sums = np.zeros(room + 1, np.uint32)


@lru_cache(4)
def _powers(base: int, length: int) -> Hashes:
    table = np.full(length, base, np.uint32)
    table[0] = 1
    return np.cumprod(table, dtype=np.uint32)


def _words(
    codes: NDArray[Any], alone: NDArray[np.bool_], tables: _Tables
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Where each word starts, and its hash."""
    inside = codes != folding.SEPARATOR
    edge = np.ones(len(codes) + 1, bool)  # edge[i]: no word goes on from i - 1 to i
    edge[1:-1] = ~(inside[1:] & inside[:-1]) | alone[1:] | alone[:-1]
    starts, ends = np.flatnonzero(inside & edge[:-1]), np.flatnonzero(inside & edge[1:]) + 1
    sums = tables.sums[1 : len(codes) + 1]
    np.multiply(codes, tables.powers[: len(codes)], out=sums)
    np.cumsum(sums, out=sums)
    return starts, _mixed(
        ((tables.sums[ends] - tables.sums[starts]) * tables.inverse[starts]).astype(np.uint64)
    )


def _sets(words: NDArray[np.uint64], ends: NDArray[np.intp], size: int) -> list[Hashes]:
    """The set of each text, whose words end before `ends`."""
    counts = np.diff(ends, prepend=0)
    begins = np.ones(len(words), bool)  # at this word a shingle begins
    runs, shorter = words, []
    for length in range(1, size):
        short = (ends - counts)[counts == length]
        shorter.append((short, runs[short]))
        begins[ends[counts >= length] - length] = False
        runs = runs[:-1] * WORD + words[length:]
    found = np.zeros(len(words), np.uint64)
    found[: len(runs)] = runs
    for short, hashes in shorter:
        found[short], begins[short] = hashes, True
    hashed = (_mixed(found[begins]) >> HIGH).astype(np.uint32)
    return _unique(hashed, np.where(counts < size, np.minimum(counts, 1), counts - size + 1))


def _unique(values: Hashes, counts: NDArray[np.intp]) -> list[Hashes]:
    """The next `counts[n]` values, rising and each once."""
    there = np.arange(counts.max(initial=1)) < counts[:, None]
    table = np.full(there.shape, NOTHING)
    table[there] = values
    table.sort(axis=1)
    there[:, 1:] &= table[:, 1:] != table[:, :-1]
    return np.split(table[there], np.cumsum(there.sum(1))[:-1])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit decides about the high ones (the finaliser's step of MurmurHash3)."""
    values ^= values >> np.uint64(33)
    values *= MIX
    return values
