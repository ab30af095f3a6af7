"""The duplicate filters' bars: how fast they are, text in and verdicts out, beside the libraries for it; what they find; their memory.

    .venv/bin/python -m benchmarks.duplicates [exact] [quality] [near] [memory]

The libraries are no dependencies. In an environment of their own, or for the time of the measurement:

    pip install rensa datasketch && pip install --no-deps text-dedup click-option-group

Documents have 200 words; those that are planted are earlier ones with some words changed, and what is alike is decided by Python's own sets
of shingles. Each side has one core and does the same documents in turns. A library's figure is a bar if it finds as much as ours must.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, main, python, spread
from pipeline import scoring
from pipeline.filters import duplicates
from pipeline.filters.columns import Batch, Ragged, joined
from pipeline.records import Sample, Seed, Usage
from pipeline.topk import TopKFolder

ROWS = int(os.environ.get("ROWS", "5000"))
TURNS = int(os.environ.get("TURNS", "5"))
SLOW = 1000  # documents of a turn for a library that takes more than half a millisecond for each
WORDS, SIZE, THRESHOLD, SHARD = 200, 3, 0.8, 1000
RECALL, WRONG = 0.97, 0.005
MILLION = int(os.environ.get("MILLION", "1000000"))

Flags = list[bool]  # of each text, whether it goes


@dataclass(frozen=True)
class Corpus:
    texts: list[str]
    pairs: list[tuple[int, int]]
    index: np.ndarray  # of each pair, the Jaccard index

    def found(self, flags: Sequence[bool], least: float, below: float = 1.01) -> float:
        """The share of pairs with such an index of which one goes."""
        hits = [flags[a] or flags[b] for (a, b), index in zip(self.pairs, self.index, strict=True) if least <= index < below]
        return float(np.mean(hits))


def corpus(rows: int, seed: int = 0) -> Corpus:
    """A fifth of the rows are earlier ones with 1 to 15 words changed. Words are as frequent as Zipf has it."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(["".join(random.choice(letters, length)) for length in random.integers(2, 11, 30_000)])
    chances = 1 / np.arange(1, len(vocabulary) + 1) ** 0.9
    draw: Any = partial(random.choice, vocabulary, p=chances / chances.sum())
    planted = rows // 5
    documents: list[Any] = list(draw((rows - planted, WORDS)))
    for row in range(planted):
        changed = documents[row].copy()
        number = random.integers(1, 16)
        changed[random.choice(WORDS, number, replace=False)] = draw(number)
        documents.append(changed)
    texts = [" ".join(words) for words in documents]
    pairs = [(row, rows - planted + row) for row in range(planted)]
    sets = [set(shingles(text)) for text in texts]
    return Corpus(texts, pairs, np.array([jaccard(sets[a], sets[b]) for a, b in pairs]))


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(run) for run in zip(*(words[start:] for start in range(SIZE)), strict=False)]


def jaccard(one: set[str], two: set[str]) -> float:
    return len(one & two) / len(one | two)


def samples(texts: Sequence[str]) -> list[Batch]:
    usage = Usage(prompt_tokens=1, completion_tokens=WORDS)
    fixed: dict[str, Any] = {"index": 0, "teacher": "", "prompt_digest": "", "finish_reason": "stop", "usage": usage}
    made = [
        Sample(id=f"n{row}/0", seed=Seed(id=f"n{row}", inputs={"text": "the same"}), text=text, **fixed) for row, text in enumerate(texts)
    ]
    return [Batch(made[start : start + SHARD], TopKFolder(Path())) for start in range(0, len(made), SHARD)]


def flagged(rows: int, gone: Any) -> Flags:
    flags = np.zeros(rows, bool)
    flags[list(gone)] = True
    return flags.tolist()


def ours_exact(batches: Sequence[Batch]) -> Flags:
    found: Any = joined([duplicates.digests(batch) for batch in batches])
    ids = [name for batch in batches for name in duplicates.identity(batch)]
    return flagged(len(ids), duplicates.exact(np.arange(len(ids)), ids, found))


def ours_near(batches: Sequence[Batch]) -> Flags:
    found: Any = joined([duplicates.sets(batch, "reply", SIZE) for batch in batches])
    ids = [name for batch in batches for name in duplicates.identity(batch)]
    return flagged(len(ids), duplicates.near(np.arange(len(ids)), ids, found, threshold=THRESHOLD))


# --- the libraries, each as its own documentation has it, with as many bands as it needs for the recall


def rensa_words(texts: Sequence[str]) -> Flags:
    """Sets of words instead of shingles: the cheapest that it can do."""
    return _rensa([text.lower().split() for text in texts], 8)


def rensa_rho(texts: Sequence[str]) -> Flags:
    """As above, by its sketch of some of the words."""
    return _rensa([text.lower().split() for text in texts], 32, "_rho")


def rensa_shingles(texts: Sequence[str]) -> Flags:
    return _rensa([shingles(text) for text in texts], 16)


def _rensa(tokens: list[list[str]], bands: int, sketch: str = "") -> Flags:
    import rensa

    matrix = getattr(rensa.RMinHash, f"digest_matrix_from_token_sets{sketch}")(tokens, 128, 42)
    return list(rensa.RMinHashLSH(THRESHOLD, 128, bands).query_duplicate_flags_matrix_one_shot(matrix))


def datasketch_lsh(texts: Sequence[str]) -> Flags:
    from datasketch import MinHash, MinHashLSH

    index, flags = MinHashLSH(num_perm=125, params=(25, 5)), []
    for row, text in enumerate(texts):
        signature = MinHash(num_perm=125)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        flags.append(bool(index.query(signature)))
        index.insert(row, signature)
    return flags


def text_dedup(texts: Sequence[str]) -> Flags:
    """Its fingerprints alone, to which its own program adds tables, clusters and files; and the tables in the plainest form."""
    from text_dedup import minhash
    from text_dedup.utils import sha1_hash

    random, prime = np.random.RandomState(42), np.uint64((1 << 61) - 1)
    permutations = tuple(random.randint(1, prime, size=(125,), dtype=np.uint64) for _ in range(2))
    tables: list[set[bytes]] = [set() for _ in range(25)]
    flags = []
    for row, text in enumerate(texts):
        found: Any = minhash.embed_func(
            content=text, idx=row, num_perm=125, ngram_size=SIZE, min_length=1, hashranges=[(5 * band, 5 * band + 5) for band in range(25)],
            permutations=permutations, hash_func=sha1_hash, dtype=np.uint64, max_hash=np.uint32(0xFFFFFFFF), modulo_prime=prime,
        )  # fmt: skip
        keys = found[minhash.SIGNATURE_COLUMN]
        flags.append(any(key in table for table, key in zip(tables, keys, strict=True)))
        for table, key in zip(tables, keys, strict=True):
            table.add(key)
    return flags


def text_dedup_exact(texts: Sequence[str], normalise: Callable[[str], str]) -> Flags:
    from text_dedup.utils.hashfunc import xxh3_128_digest

    seen: set[bytes] = set()
    flags = []
    for text in texts:
        key = xxh3_128_digest(normalise(text).encode())
        flags.append(key in seen)
        seen.add(key)
    return flags


# --- measurements


def timed(run: Callable[[Any], Flags], given: Any, rows: int) -> tuple[float, Flags]:
    """Rows a second, and what goes."""
    started = time.perf_counter()
    flags = run(given)
    return rows / (time.perf_counter() - started), flags


def beside(
    peer: Callable[[Any], Flags], texts: list[str], ours: Callable[[Any], Flags], batches: list[Batch]
) -> tuple[list[list[float]], Flags]:
    """Sorted rates of ours, of the library, and their ratios, turn by turn after a warm-up of both; and the library's flags."""
    ours(batches[:1])
    peer(texts[:10])
    rates = []
    for _ in range(TURNS):
        mine, _ = timed(ours, batches, len(texts))
        theirs, flags = timed(peer, texts, len(texts))
        rates.append((mine, theirs, mine / theirs))
    return [sorted(side) for side in zip(*rates, strict=True)], flags


def exact(folder: Path) -> Iterator[Row]:
    """Half of the rows are others in capitals and with wider spaces."""
    half = corpus(ROWS).texts[: ROWS // 2]
    texts = half + [text.upper().replace(" ", "  ") for text in half]
    batches = samples(texts)
    assert sum(ours_exact(batches)) == len(half)
    rates = sorted(timed(ours_exact, batches, len(texts))[0] for _ in range(2 * TURNS))
    yield Row("exact: samples/s a core", ">= 100k", spread(rates, 0), rates[len(rates) // 2] >= 100_000)
    peers: list[tuple[str, Callable[[str], str]]] = [("raw bytes", str), ("normalised", scoring.normalise)]
    for name, normalise in peers:
        yield from held(
            "exact", f"text-dedup, {name}", partial(text_dedup_exact, normalise=normalise), texts, ours_exact, batches, len(half)
        )


def held(
    what: str, name: str, peer: Callable[[Any], Flags], texts: list[str], ours: Callable[[Any], Flags], batches: list[Batch], planted: int
) -> Iterator[Row]:
    try:
        (_, theirs, ratio), flags = beside(peer, texts, ours, batches)
    except ImportError as error:
        yield Row(f"{what}: over {name}", ">= 1", f"not installed ({error.name})", False)
        return
    recall = sum(flags) / planted
    bar = ">= 1" if recall >= RECALL else ""
    yield Row(
        f"{what}: over {name}", bar, f"{spread(ratio, 2)}; it does {spread(theirs, 0)}/s, finds {recall:.1%}", ratio[len(ratio) // 2] >= 1
    )


def near(folder: Path) -> Iterator[Row]:
    many, few = corpus(ROWS), corpus(SLOW)
    batches, small = samples(many.texts), samples(few.texts)
    rates = sorted(timed(ours_near, batches, ROWS)[0] for _ in range(2 * TURNS))
    yield Row("near: samples/s a core", ">= 5k", spread(rates, 0), rates[len(rates) // 2] >= 5_000)
    peers: list[tuple[str, Callable[[Any], Flags], bool]] = [
        ("rensa, words", rensa_words, True),
        ("rensa, words, rho", rensa_rho, True),
        ("rensa, shingles", rensa_shingles, True),
        ("datasketch", datasketch_lsh, False),
        ("text-dedup, fingerprints", text_dedup, False),
    ]
    for name, peer, fast in peers:
        documents, given = (many, batches) if fast else (few, small)
        try:
            (_, theirs, ratio), flags = beside(peer, documents.texts, ours_near, given)
        except ImportError as error:
            yield Row(f"near: over {name}", ">= 1", f"not installed ({error.name})", False)
            continue
        recall, wrong = documents.found(flags, THRESHOLD), documents.found(flags, 0, THRESHOLD)
        bar = ">= 1" if recall >= RECALL else ""
        said = f"{spread(ratio, 2)}; it does {spread(theirs, 0)}/s, finds {recall:.1%}, and {wrong:.0%} of those below"
        yield Row(f"near: over {name}", bar, said, ratio[len(ratio) // 2] >= 1)


def quality(folder: Path) -> Iterator[Row]:
    """Four corpora; what goes is held against the keeper that its verdict names."""
    right, found, wrong, below, gone = 0.0, 0, 0, [], 0
    for seed in range(4):
        documents = corpus(ROWS, seed)
        batches = samples(documents.texts)
        column: Any = joined([duplicates.sets(batch, "reply", SIZE) for batch in batches])
        verdicts = duplicates.near(np.arange(ROWS), [str(row) for row in range(ROWS)], column, threshold=THRESHOLD)
        flags = flagged(ROWS, verdicts)
        number = int((documents.index >= THRESHOLD).sum())
        right, found = right + documents.found(flags, THRESHOLD) * number, found + number
        below.append(documents.found(flags, THRESHOLD - 0.1, THRESHOLD))
        gone += len(verdicts)
        for row, verdict in verdicts.items():
            keeper = int(str(verdict.value).split()[0])
            wrong += jaccard(set(shingles(documents.texts[row])), set(shingles(documents.texts[keeper]))) < THRESHOLD
    yield Row(f"near: finds of {found} pairs at 0.8 or above", f">= {RECALL}", f"{right / found:.4f}", right / found >= RECALL)
    yield Row(f"near: wrong of {gone} that go", f"<= {WRONG}", f"{wrong / gone:.4f}", wrong / gone <= WRONG)
    yield Row("near: pairs between 0.7 and 0.8 of which one goes", f"<= {WRONG}", f"{np.mean(below):.4f}", float(np.mean(below)) <= WRONG)


def memory(folder: Path) -> Iterator[Row]:
    """A fresh process judges a million rows whose shingles lie in a file."""
    said = json.loads(python("-m", "benchmarks.duplicates", "judge", str(folder / "sets.npy")).splitlines()[-1])
    yield Row("near: judging a million rows, memory of its own", "<= 1 GB", f"{said['anonymous'] / 1e9:.2f} GB", said["anonymous"] <= 1e9)
    yield Row("near: judging a million rows, µs a row", "", f"{said['seconds'] / MILLION * 1e6:.1f}", True)


def judge(path: Path) -> None:
    random = np.random.default_rng(0)
    length = WORDS - SIZE + 1
    file = np.lib.format.open_memmap(path, "w+", np.uint32, (MILLION, length))
    for start in range(0, MILLION, 10_000):
        file[start : start + 10_000] = np.sort(random.integers(0, 1 << 32, (10_000, length), dtype=np.uint32), axis=1)
    file[MILLION - MILLION // 20 :] = file[: MILLION // 20]
    file.flush()
    sets = Ragged(np.load(path, mmap_mode="r").reshape(-1), np.cumsum(np.full(MILLION, length)))
    ids = [f"n{row}/0" for row in range(MILLION)]
    peak, stop = [anonymous()], threading.Event()
    watch = threading.Thread(target=lambda: peak.extend(iter(lambda: -1 if stop.wait(0.02) else anonymous(), -1)))
    watch.start()
    started = time.perf_counter()
    gone = duplicates.near(np.arange(MILLION), ids, sets, threshold=THRESHOLD)
    seconds = time.perf_counter() - started
    stop.set()
    watch.join()
    assert len(gone) == MILLION // 20
    print(json.dumps({"anonymous": max(peak) - peak[0], "seconds": seconds}))


def anonymous() -> int:
    """Bytes of this process that are in no file."""
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    if sys.argv[1:2] == ["judge"]:
        judge(Path(sys.argv[2]))
    else:
        sys.exit(main({"exact": exact, "quality": quality, "near": near, "memory": memory}, sys.argv[1:]))
