"""What samples are compared by, as numbers: a million of them take 8 MB and are sorted in a moment."""

import hashlib

import numpy as np
from numpy.typing import NDArray

NOTHING = 0  # the key of what is not there


def text_key(text: str | None) -> int:
    """64 bits of a hash of the text, the same everywhere; NOTHING for None. Of a million texts two share a key in one of 3.7e7 cases."""
    if text is None:
        return NOTHING
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) or 1


def shuffle(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Other numbers in the place of keys, for each seed others: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    mixed = keys + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def rank_within_groups(groups: NDArray, order: NDArray) -> NDArray[np.int64]:
    """(N,): how many rows of its own group stand before each in the order of `order`, rows of equal order as they come."""
    rows = np.lexsort((order, groups))
    sorted_groups = groups[rows]
    begins = np.flatnonzero(np.append(True, sorted_groups[1:] != sorted_groups[:-1])[: len(rows)])
    found = np.empty(len(rows), np.int64)
    found[rows] = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    return found


def count_occurrences(keys: NDArray) -> NDArray[np.int64]:
    """(N,): how often each row's key occurs."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[inverse]
