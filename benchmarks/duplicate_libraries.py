"""Libraries that find duplicates, which `benchmarks.duplicates` compares the filters with.

Each is called as its documentation shows, with as many bands as it needs for the recall. A function
takes texts and returns for each whether it is rejected. It raises ImportError if the library is not
installed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SIZE, THRESHOLD = 3, 0.8  # words in a shingle; Jaccard index


def shingles(text: str) -> list[str]:
    """Return all runs of SIZE words, in lower case."""
    words = text.lower().split()
    return [" ".join(words[start : start + SIZE]) for start in range(len(words) - SIZE + 1)]


def rensa_words(texts: Sequence[str]) -> list[bool]:
    """Find duplicates by rensa with words instead of shingles, its fastest way."""
    return _rensa([text.lower().split() for text in texts], 8)


def rensa_rho(texts: Sequence[str]) -> list[bool]:
    """Find duplicates by rensa with its sketch of some of the words."""
    return _rensa([text.lower().split() for text in texts], 32, "_rho")


def rensa_shingles(texts: Sequence[str]) -> list[bool]:
    """Find duplicates by rensa with shingles."""
    return _rensa([shingles(text) for text in texts], 16)


def _rensa(tokens: list[list[str]], bands: int, sketch: str = "") -> list[bool]:
    import rensa

    matrix = getattr(rensa.RMinHash, f"digest_matrix_from_token_sets{sketch}")(tokens, 128, 42)
    return list(
        rensa.RMinHashLSH(THRESHOLD, 128, bands).query_duplicate_flags_matrix_one_shot(matrix)
    )


def datasketch_lsh(texts: Sequence[str]) -> list[bool]:
    """Find duplicates by datasketch."""
    from datasketch import MinHash, MinHashLSH

    index, flags = MinHashLSH(num_perm=125, params=(25, 5)), []
    for row, text in enumerate(texts):
        signature = MinHash(num_perm=125)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        flags.append(bool(index.query(signature)))
        index.insert(row, signature)
    return flags


def text_dedup(texts: Sequence[str]) -> list[bool]:
    """Find duplicates by text-dedup's fingerprints and plain tables.

    Its own program adds clusters and files to them.
    """
    from text_dedup import minhash
    from text_dedup.utils import sha1_hash

    random, prime = np.random.RandomState(42), np.uint64((1 << 61) - 1)
    permutations = tuple(random.randint(1, prime, size=(125,), dtype=np.uint64) for _ in range(2))
    tables: list[set[bytes]] = [set() for _ in range(25)]
    flags = []
    for row, text in enumerate(texts):
        fingerprint: Any = minhash.embed_func(
            content=text,
            idx=row,
            num_perm=125,
            ngram_size=SIZE,
            min_length=1,
            hashranges=[(5 * band, 5 * band + 5) for band in range(25)],
            permutations=permutations,
            hash_func=sha1_hash,
            dtype=np.uint64,
            max_hash=np.uint32(0xFFFFFFFF),
            modulo_prime=prime,
        )
        keys = fingerprint[minhash.SIGNATURE_COLUMN]
        flags.append(any(key in table for table, key in zip(tables, keys, strict=True)))
        for table, key in zip(tables, keys, strict=True):
            table.add(key)
    return flags


def text_dedup_exact(texts: Sequence[str], normalise: Callable[[str], str]) -> list[bool]:
    """Find exact duplicates by text-dedup's hash of the normalised text."""
    from text_dedup.utils.hashfunc import xxh3_128_digest

    seen: set[bytes] = set()
    flags = []
    for text in texts:
        key = xxh3_128_digest(normalise(text).encode())
        flags.append(key in seen)
        seen.add(key)
    return flags
