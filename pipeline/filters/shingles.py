"""Texts as sets of word shingles: every run of n words (Broder 1997, On the resemblance and containment of documents), as 32-bit hashes.

A whole batch is hashed in a few passes of numpy. A word's hash is a difference of two sums of a running polynomial (Karp & Rabin 1987) over
code points, modulo 2**64; a shingle's is a polynomial over its words' hashes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters import folding
from pipeline.filters.columns import Ragged

Hashes = NDArray[np.uint64]

CHARACTERS = 1 << 15  # hashed at a time: what fits in a core's own cache
LETTER, WORD, MIX = 0x9E3779B97F4A7C15 | 1, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD  # odd
ALL = 1 << 64


def shingled(texts: Sequence[str], size: int) -> Ragged:
    """Of each text its shingles of `size` words as a set of uint32, rising. A text of fewer words is one shingle; of none, the empty set.

    Case, punctuation and spacing do not count; symbols (+, <, €, emoji) are words. Two different shingles have one hash in 4e9 cases.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")  # texts of like lengths make a matrix with little padding
    rows: list[NDArray[np.uint32]] = [np.zeros(0, np.uint32)] * len(texts)
    powers = _powers(LETTER, 0), _powers(pow(LETTER, -1, ALL), 0)
    for some in _pieces(texts, order):
        codes, ends = folding.words([texts[row] for row in some])
        if len(codes) > len(powers[0]):
            powers = _powers(LETTER, len(codes)), _powers(pow(LETTER, -1, ALL), len(codes))
        starts, hashes = _words(codes, *powers)
        for row, found in zip(some, _sets(hashes, np.searchsorted(starts, ends), size), strict=True):
            rows[row] = found
    return Ragged(np.concatenate([np.zeros(0, np.uint32), *rows]), np.cumsum([len(row) for row in rows], dtype=np.int64))


def _pieces(texts: Sequence[str], order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows in order, about CHARACTERS of text at a time."""
    before = np.cumsum([len(texts[row]) for row in order]) // CHARACTERS
    yield from np.split(order, np.flatnonzero(np.diff(before)) + 1) if len(order) else ()


def _powers(base: int, length: int) -> Hashes:
    """base ** 0, 1, ... modulo 2 ** 64."""
    table = np.full(max(length, 2 * CHARACTERS), base, np.uint64)
    table[0] = 1
    return np.cumprod(table)


def _words(codes: folding.Codes, powers: Hashes, inverse: Hashes) -> tuple[NDArray[np.intp], Hashes]:
    """Where each word starts, and its hash."""
    inside, alone = codes != folding.SEPARATOR, codes >= folding.ALONE
    edge = np.ones(len(codes) + 1, bool)  # edge[i]: no word goes on from i - 1 to i
    edge[1:-1] = ~(inside[1:] & inside[:-1]) | alone[1:] | alone[:-1]
    starts, ends = np.flatnonzero(inside & edge[:-1]), np.flatnonzero(inside & edge[1:]) + 1
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    return starts, _mixed((sums[ends] - sums[starts]) * inverse[starts])


def _sets(words: Hashes, ends: NDArray[np.intp], size: int) -> list[NDArray[np.uint32]]:
    """The set of each text, whose words end before `ends`."""
    starts = np.concatenate(([0], ends[:-1]))
    counts = ends - starts
    runs, short = words, {}
    for length in range(1, size):
        short[length] = np.flatnonzero(counts == length), runs
        runs = runs[:-1] * np.uint64(WORD) + words[length:] if len(runs) else runs
    places = starts[:, None] + np.minimum(np.arange(max(1, counts.max(initial=0) - size + 1)), np.maximum(counts - size, 0)[:, None])
    table = runs.take(places, mode="clip") if len(runs) else np.zeros(places.shape, np.uint64)
    for those, shorter in short.values():
        table[those] = shorter[starts[those]][:, None]
    return _unique((_mixed(table) >> np.uint64(32)).astype(np.uint32), counts > 0)


def _unique(table: NDArray[np.uint32], any_there: NDArray[np.bool_]) -> list[NDArray[np.uint32]]:
    """The different values of each row, rising; none where there were no words."""
    table.sort(axis=1)
    first = np.ones(table.shape, bool)
    np.not_equal(table[:, 1:], table[:, :-1], out=first[:, 1:])
    first &= any_there[:, None]
    return np.split(table[first], np.cumsum(first.sum(1))[:-1])


def _mixed(values: NDArray[Any]) -> Hashes:
    """Every bit decides about the high ones (the finaliser's step of MurmurHash3)."""
    values ^= values >> np.uint64(33)
    values *= np.uint64(MIX)
    return values
