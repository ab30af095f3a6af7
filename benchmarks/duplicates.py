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

from benchmarks import duplicate_libraries as libraries
from benchmarks.duplicate_libraries import SIZE, THRESHOLD, shingles
from benchmarks.table import Row, main, median, run_python, spread
from pipeline.filters import measures
from pipeline.filters.dedup import duplicates
from pipeline.filters.measures import Batch, Ragged, join_columns
from pipeline.records import Sample, Seed, Usage
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import scorers

ROWS = int(os.environ.get("ROWS", "5000"))
TURNS = int(os.environ.get("TURNS", "5"))
SLOW = 1000  # documents of a turn for a library that takes more than half a millisecond for each
WORDS, SHARD = 200, 1000
RECALL, WRONG = 0.97, 0.005
MILLION = int(os.environ.get("MILLION", "1000000"))

Flags = list[bool]  # of each text, whether it goes
Found = tuple[float, str]  # the share of what should be found, and what else is to be said


@dataclass(frozen=True)
class Corpus:
    texts: list[str]
    pairs: list[tuple[int, int]]
    index: np.ndarray  # of each pair, the Jaccard index

    def said(self, flags: Flags) -> Found:
        return self.found(
            flags, THRESHOLD
        ), f", and {self.found(flags, 0, THRESHOLD):.0%} of those below"

    def found(self, flags: Sequence[bool], least: float, below: float = 1.01) -> float:
        """The share of pairs with such an index of which one goes."""
        hits = [
            flags[a] or flags[b]
            for (a, b), index in zip(self.pairs, self.index, strict=True)
            if least <= index < below
        ]
        return float(np.mean(hits))


def corpus(rows: int, seed: int = 0) -> Corpus:
    """A fifth of the rows are earlier ones with 1 to 15 words changed. Words are as frequent as Zipf has it."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(
        ["".join(random.choice(letters, length)) for length in random.integers(2, 11, 30_000)]
    )
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


def lined(text: str) -> str:
    words = text.split()
    return "".join(
        "  ".join((" ".join(words[start : start + 20]), "\n")) for start in range(0, len(words), 20)
    )


def jaccard(one: set[str], two: set[str]) -> float:
    return len(one & two) / len(one | two)


def samples(texts: Sequence[str]) -> list[Batch]:
    usage = Usage(prompt_tokens=1, completion_tokens=WORDS)
    fixed: dict[str, Any] = {
        "index": 0,
        "teacher": "",
        "prompt_digest": "",
        "finish_reason": "stop",
        "usage": usage,
    }
    made = [
        Sample(
            id=f"n{row}/0", seed=Seed(id=f"n{row}", inputs={"text": "the same"}), text=text, **fixed
        )
        for row, text in enumerate(texts)
    ]
    return [
        Batch(made[start : start + SHARD], TopKFolder(Path()))
        for start in range(0, len(made), SHARD)
    ]


def flagged(rows: int, gone: Any) -> Flags:
    flags = np.zeros(rows, bool)
    flags[list(gone)] = True
    return flags.tolist()


def ours_exact(batches: Sequence[Batch]) -> Flags:
    found: Any = join_columns([duplicates.content_digests(batch) for batch in batches])
    ids = [name for batch in batches for name in measures.sample_ids(batch)]
    return flagged(len(ids), duplicates.reject_exact(np.arange(len(ids)), ids, found))


def ours_near(batches: Sequence[Batch]) -> Flags:
    found: Any = join_columns([duplicates.shingle_sets(batch, "reply", SIZE) for batch in batches])
    ids = [name for batch in batches for name in measures.sample_ids(batch)]
    return flagged(
        len(ids), duplicates.reject_near(np.arange(len(ids)), ids, found, threshold=THRESHOLD)
    )


def timed(run: Callable[[Any], Flags], input_text: Any, rows: int) -> tuple[float, Flags]:
    """Rows a second of this process's CPU time, which others on the machine disturb least; and what goes."""
    started = time.process_time()
    flags = run(input_text)
    return rows / (time.process_time() - started), flags


def beside(
    what: str,
    peer: Callable[[Any], Flags],
    texts: list[str],
    ours: Callable[[Any], Flags],
    found: Callable[[Flags], Found],
) -> Row:
    """Ours over a library's rate, turn by turn after a warm-up of both."""
    batches, ratios, rates = samples(texts), [], []
    ours(batches[:1])
    try:
        peer(texts[:10])
    except ImportError as error:
        return Row(what, ">= 1", f"not installed ({error.name})", False)
    for _ in range(TURNS):
        mine, _ = timed(ours, batches, len(texts))
        theirs, flags = timed(peer, texts, len(texts))
        rates.append(theirs)
        ratios.append(mine / theirs)
    recall, said = found(flags)
    bar = ">= 1" if recall >= RECALL else ""
    figure = f"{spread(sorted(ratios), 2)}; it does {spread(sorted(rates), 0)}/s, finds {recall:.1%}{said}"
    return Row(what, bar, figure, not bar or median(sorted(ratios)) >= 1)


def alone(what: str, bar: int, texts: list[str], ours: Callable[[Any], Flags]) -> Row:
    batches = samples(texts)
    rates = sorted(timed(ours, batches, len(texts))[0] for _ in range(2 * TURNS))
    return Row(what, f">= {bar // 1000}k", spread(rates, 0), median(rates) >= bar)


def exact(folder: Path) -> Iterator[Row]:
    """Half of the rows are others in capitals, in lines of 20 words."""
    half = corpus(ROWS).texts[: ROWS // 2]
    texts = half + [lined(text.upper()) for text in half]
    assert sum(ours_exact(samples(texts))) == len(half)
    yield alone("exact: samples/s a core", 100_000, texts, ours_exact)
    normalisers: list[tuple[str, Callable[[str], str]]] = [
        ("raw bytes", str),
        ("normalised", scorers.normalise),
    ]
    for name, normalise in normalisers:
        peer = partial(libraries.text_dedup_exact, normalise=normalise)
        yield beside(
            f"exact: over text-dedup, {name}",
            peer,
            texts,
            ours_exact,
            lambda flags: (sum(flags) / len(half), ""),
        )


def near(folder: Path) -> Iterator[Row]:
    many, few = corpus(ROWS), corpus(SLOW)
    yield alone("near: samples/s a core", 5_000, many.texts, ours_near)
    peers: list[tuple[str, Callable[[Any], Flags], Corpus]] = [
        ("rensa, words", libraries.rensa_words, many),
        ("rensa, words, rho", libraries.rensa_rho, many),
        ("rensa, shingles", libraries.rensa_shingles, many),
        ("datasketch", libraries.datasketch_lsh, few),
        ("text-dedup, fingerprints", libraries.text_dedup, few),
    ]
    for name, peer, input_text in peers:
        yield beside(f"near: over {name}", peer, input_text.texts, ours_near, input_text.said)


def quality(folder: Path) -> Iterator[Row]:
    """Four corpora; what goes is held against the keeper that its verdict names."""
    right, found, wrong, below, gone = 0.0, 0, 0, [], 0
    for seed in range(4):
        documents = corpus(ROWS, seed)
        batches = samples(documents.texts)
        column: Any = join_columns(
            [duplicates.shingle_sets(batch, "reply", SIZE) for batch in batches]
        )
        verdicts = duplicates.reject_near(
            np.arange(ROWS), [str(row) for row in range(ROWS)], column, threshold=THRESHOLD
        )
        flags = flagged(ROWS, verdicts)
        number = int((documents.index >= THRESHOLD).sum())
        right, found = right + documents.found(flags, THRESHOLD) * number, found + number
        below.append(documents.found(flags, THRESHOLD - 0.1, THRESHOLD))
        gone += len(verdicts)
        for row, verdict in verdicts.items():
            keeper = int(str(verdict.value).split()[0])
            wrong += (
                jaccard(set(shingles(documents.texts[row])), set(shingles(documents.texts[keeper])))
                < THRESHOLD
            )
    yield Row(
        f"near: finds of {found} pairs at 0.8 or above",
        f">= {RECALL}",
        f"{right / found:.4f}",
        right / found >= RECALL,
    )
    yield Row(
        f"near: wrong of {gone} that go",
        f"<= {WRONG}",
        f"{wrong / gone:.4f}",
        wrong / gone <= WRONG,
    )
    yield Row(
        "near: pairs between 0.7 and 0.8 of which one goes",
        f"<= {WRONG}",
        f"{np.mean(below):.4f}",
        float(np.mean(below)) <= WRONG,
    )


def memory(folder: Path) -> Iterator[Row]:
    """A fresh process judges a million rows whose shingles lie in a file."""
    said = json.loads(
        run_python("-m", "benchmarks.duplicates", "judge", str(folder / "sets.npy")).splitlines()[
            -1
        ]
    )
    yield Row(
        "near: judging a million rows, memory of its own",
        "<= 1 GB",
        f"{said['anonymous'] / 1e9:.2f} GB",
        said["anonymous"] <= 1e9,
    )
    yield Row(
        "near: judging a million rows, µs a row", "", f"{said['seconds'] / MILLION * 1e6:.1f}", True
    )


def judge(path: Path) -> None:
    random = np.random.default_rng(0)
    length = WORDS - SIZE + 1
    file = np.lib.format.open_memmap(path, "w+", np.uint32, (MILLION, length))
    for start in range(0, MILLION, 10_000):
        file[start : start + 10_000] = np.sort(
            random.integers(0, 1 << 32, (10_000, length), dtype=np.uint32), axis=1
        )
    file[MILLION - MILLION // 20 :] = file[: MILLION // 20]
    file.flush()
    sets = Ragged(np.load(path, mmap_mode="r").reshape(-1), np.cumsum(np.full(MILLION, length)))
    ids = [f"n{row}/0" for row in range(MILLION)]
    peak, stop = [anonymous()], threading.Event()
    watch = threading.Thread(
        target=lambda: peak.extend(iter(lambda: -1 if stop.wait(0.02) else anonymous(), -1))
    )
    watch.start()
    started = time.perf_counter()
    gone = duplicates.reject_near(np.arange(MILLION), ids, sets, threshold=THRESHOLD)
    seconds = time.perf_counter() - started
    stop.set()
    watch.join()
    assert len(gone) == MILLION // 20
    print(json.dumps({"anonymous": max(peak) - peak[0], "seconds": seconds}))


def anonymous() -> int:
    """Bytes of this process that are in no file."""
    return next(
        1024 * int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )


MEASUREMENTS = {"exact": exact, "quality": quality, "near": near, "memory": memory}


if __name__ == "__main__":
    logging.disable(logging.INFO)
    if sys.argv[1:2] == ["judge"]:
        judge(Path(sys.argv[2]))
    else:
        sys.exit(main(MEASUREMENTS, sys.argv[1:]))
