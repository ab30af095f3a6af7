"""Measures the duplicate filters: speed against libraries, what they find, and memory.

    .venv/bin/python -m benchmarks.duplicates [exact] [quality] [near] [memory]

The libraries are no dependencies of the project. Install them in an environment of their own, or
for the time of the measurement:

    pip install rensa datasketch && pip install --no-deps text-dedup click-option-group

Documents have 200 words. A fifth of them are copies of earlier ones with some words changed;
Python's own sets of shingles decide which pairs are similar. Each side has one core and reads the
same documents, in turns, from text to verdicts. A library's speed is a bar if it finds as much as
ours must.
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
from benchmarks.table import Row, last_line, main, median, spread
from pipeline.filters import measures
from pipeline.filters.dedup import duplicates
from pipeline.filters.measures import Batch, Ragged, join_columns
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, Seed, Usage
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import scorers

ROWS = int(os.environ.get("ROWS", "5000"))
TURNS = int(os.environ.get("TURNS", "5"))
SLOW = 1000  # documents a turn for a library that takes over half a millisecond for each
WORDS = 200
SHARD = 1000
RECALL = 0.97
WRONG = 0.005
MILLION = int(os.environ.get("MILLION", "1000000"))

Flags = list[bool]  # for each text, whether it is rejected
Filter = Callable[[Any], Flags]
Quality = tuple[float, str]  # the share of duplicates found, and a remark


@dataclass(frozen=True)
class Corpus:
    """Texts with planted pairs of similar ones, and the Jaccard index of each pair."""

    texts: list[str]
    pairs: list[tuple[int, int]]
    index: np.ndarray

    def quality(self, flags: Flags) -> Quality:
        """Return the share found at the threshold, and a remark on the pairs below it."""
        below = self.share_found(flags, 0, THRESHOLD)
        return self.share_found(flags, THRESHOLD), f", and {below:.0%} of those below"

    def share_found(self, flags: Sequence[bool], least: float, below: float = 1.01) -> float:
        """Return the share of the pairs with such an index of which one is rejected."""
        found = []
        for (first, second), index in zip(self.pairs, self.index, strict=True):
            if least <= index < below:
                found.append(flags[first] or flags[second])
        return float(np.mean(found))


def corpus(rows: int, seed: int = 0) -> Corpus:
    """Make texts of which a fifth are earlier ones with 1 to 15 words changed.

    The frequency of words follows Zipf's law.
    """
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(
        ["".join(random.choice(letters, length)) for length in random.integers(2, 11, 30_000)]
    )
    frequency = 1 / np.arange(1, len(vocabulary) + 1) ** 0.9
    draw: Any = partial(random.choice, vocabulary, p=frequency / frequency.sum())
    planted = rows // 5
    documents: list[Any] = list(draw((rows - planted, WORDS)))
    for row in range(planted):
        changed = documents[row].copy()
        number = random.integers(1, 16)
        changed[random.choice(WORDS, number, replace=False)] = draw(number)
        documents.append(changed)
    texts = [" ".join(words) for words in documents]
    pairs = [(row, rows - planted + row) for row in range(planted)]
    index = [jaccard(texts[first], texts[second]) for first, second in pairs]
    return Corpus(texts, pairs, np.array(index))


def in_lines(text: str) -> str:
    """Return the text in lines of 20 words, with two spaces before each line break."""
    words = text.split()
    lines = [" ".join(words[start : start + 20]) for start in range(0, len(words), 20)]
    return "".join(f"{line}  \n" for line in lines)


def jaccard(first: str, second: str) -> float:
    """Return the Jaccard index of the shingles of two texts, by the definition."""
    one = set(shingles(first))
    other = set(shingles(second))
    return len(one & other) / len(one | other)


def batches_of(texts: Sequence[str]) -> list[Batch]:
    """Return samples with these replies to the same input, in shards."""
    samples = []
    for row, text in enumerate(texts):
        sample = Sample(
            id=f"n{row}/0",
            seed=Seed(id=f"n{row}", inputs={"text": "the same"}),
            index=0,
            teacher="",
            prompt_digest="",
            text=text,
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=WORDS),
        )
        samples.append(sample)
    starts = range(0, len(samples), SHARD)
    return [Batch(samples[start : start + SHARD], TopKFolder(Path())) for start in starts]


def flags_of(verdicts: dict[int, Verdict], rows: int) -> Flags:
    """Return for each row whether it is rejected."""
    flags = np.zeros(rows, bool)
    flags[list(verdicts)] = True
    return flags.tolist()


def sample_ids(batches: Sequence[Batch]) -> list[str]:
    """Return the ids of all samples."""
    return [id_ for batch in batches for id_ in measures.sample_ids(batch)]


def ours_exact(batches: Sequence[Batch]) -> Flags:
    """Filter exact duplicates with the pipeline."""
    digests: Any = join_columns([duplicates.content_digests(batch) for batch in batches])
    ids = sample_ids(batches)
    return flags_of(duplicates.reject_exact(np.arange(len(ids)), ids, digests), len(ids))


def ours_near(batches: Sequence[Batch]) -> Flags:
    """Filter near duplicates with the pipeline."""
    return flags_of(near_verdicts(batches), sum(len(batch.samples) for batch in batches))


def near_verdicts(batches: Sequence[Batch]) -> dict[int, Verdict]:
    """Return the verdicts of the pipeline's near filter."""
    sets: Any = join_columns([duplicates.shingle_sets(batch, "reply", SIZE) for batch in batches])
    ids = sample_ids(batches)
    return duplicates.reject_near(np.arange(len(ids)), ids, sets, threshold=THRESHOLD)


def timed(run: Filter, texts: Any, rows: int) -> tuple[float, Flags]:
    """Return rows/s of this process's CPU time, which other processes disturb least, and flags."""
    started = time.process_time()
    flags = run(texts)
    return rows / (time.process_time() - started), flags


def compare(
    what: str,
    library: Filter,
    texts: list[str],
    ours: Filter,
    quality: Callable[[Flags], Quality],
) -> Row:
    """Return the ratio of our rate to a library's, measured in turns after a warm-up of both."""
    batches = batches_of(texts)
    ours(batches[:1])
    try:
        library(texts[:10])
    except ImportError as error:
        return Row(what, ">= 1", f"not installed ({error.name})", False)
    ratios = []
    rates = []
    flags: Flags = []
    for _ in range(TURNS):
        our_rate, _ = timed(ours, batches, len(texts))
        rate, flags = timed(library, texts, len(texts))
        rates.append(rate)
        ratios.append(our_rate / rate)
    ratios.sort()
    recall, remark = quality(flags)
    bar = ">= 1" if recall >= RECALL else ""
    figure = (
        f"{spread(ratios, 2)}; it does {spread(sorted(rates), 0)}/s, finds {recall:.1%}{remark}"
    )
    return Row(what, bar, figure, not bar or median(ratios) >= 1)


def alone(what: str, bar: int, texts: list[str], ours: Filter) -> Row:
    """Return our rate in samples/s."""
    batches = batches_of(texts)
    rates = sorted(timed(ours, batches, len(texts))[0] for _ in range(2 * TURNS))
    return Row(what, f">= {bar // 1000}k", spread(rates, 0), median(rates) >= bar)


def exact(folder: Path) -> Iterator[Row]:
    """Measure exact duplicates: half of the rows repeat others in capitals and in lines."""
    half = corpus(ROWS).texts[: ROWS // 2]
    texts = half + [in_lines(text.upper()) for text in half]
    assert sum(ours_exact(batches_of(texts))) == len(half)
    yield alone("exact: samples/s a core", 100_000, texts, ours_exact)
    normalisers: list[tuple[str, Callable[[str], str]]] = [
        ("raw bytes", str),
        ("normalised", scorers.normalise),
    ]
    for name, normalise in normalisers:
        library = partial(libraries.text_dedup_exact, normalise=normalise)
        what = f"exact: over text-dedup, {name}"
        yield compare(what, library, texts, ours_exact, lambda flags: (sum(flags) / len(half), ""))


def near(folder: Path) -> Iterator[Row]:
    """Measure near duplicates against each library."""
    large = corpus(ROWS)
    small = corpus(SLOW)
    yield alone("near: samples/s a core", 5_000, large.texts, ours_near)
    sides: list[tuple[str, Filter, Corpus]] = [
        ("rensa, words", libraries.rensa_words, large),
        ("rensa, words, rho", libraries.rensa_rho, large),
        ("rensa, shingles", libraries.rensa_shingles, large),
        ("datasketch", libraries.datasketch_lsh, small),
        ("text-dedup, fingerprints", libraries.text_dedup, small),
    ]
    for name, library, documents in sides:
        yield compare(f"near: over {name}", library, documents.texts, ours_near, documents.quality)


def quality(folder: Path) -> Iterator[Row]:
    """Compare the rejected texts of four corpora with the kept ones that the verdicts name."""
    found = pairs = wrong = rejected = 0.0
    below = []
    for seed in range(4):
        documents = corpus(ROWS, seed)
        verdicts = near_verdicts(batches_of(documents.texts))
        flags = flags_of(verdicts, ROWS)
        number = int((documents.index >= THRESHOLD).sum())
        pairs += number
        found += documents.share_found(flags, THRESHOLD) * number
        below.append(documents.share_found(flags, THRESHOLD - 0.1, THRESHOLD))
        rejected += len(verdicts)
        for row, verdict in verdicts.items():
            keeper = int(str(verdict.value).split("/")[0].removeprefix("n"))
            wrong += jaccard(documents.texts[row], documents.texts[keeper]) < THRESHOLD
    recall = found / pairs
    error = wrong / rejected
    share_below = float(np.mean(below))
    what = f"near: finds of {pairs:.0f} pairs at 0.8 or above"
    yield Row(what, f">= {RECALL}", f"{recall:.4f}", recall >= RECALL)
    what = f"near: wrong of {rejected:.0f} rejected"
    yield Row(what, f"<= {WRONG}", f"{error:.4f}", error <= WRONG)
    what = "near: pairs between 0.7 and 0.8 of which one is rejected"
    yield Row(what, f"<= {WRONG}", f"{share_below:.4f}", share_below <= WRONG)


def memory(folder: Path) -> Iterator[Row]:
    """Judge a million rows in a fresh process, whose shingles are in a file."""
    path = str(folder / "sets.npy")
    result = json.loads(last_line("-m", "benchmarks.duplicates", "judge", path))
    peak = result["anonymous"]
    what = "near: judging a million rows, memory of its own"
    yield Row(what, "<= 1 GB", f"{peak / 1e9:.2f} GB", peak <= 1e9)
    microseconds = result["seconds"] / MILLION * 1e6
    yield Row("near: judging a million rows, µs a row", "", f"{microseconds:.1f}", True)


def judge(path: Path) -> None:
    """Write random shingles to a file, judge them, and print memory and time as JSON."""
    random = np.random.default_rng(0)
    length = WORDS - SIZE + 1
    file = np.lib.format.open_memmap(path, "w+", np.uint32, (MILLION, length))
    for start in range(0, MILLION, 10_000):
        hashes = random.integers(0, 1 << 32, (10_000, length), dtype=np.uint32)
        file[start : start + 10_000] = np.sort(hashes, axis=1)
    file[MILLION - MILLION // 20 :] = file[: MILLION // 20]
    file.flush()
    sets = Ragged(np.load(path, mmap_mode="r").reshape(-1), np.cumsum(np.full(MILLION, length)))
    ids = [f"n{row}/0" for row in range(MILLION)]
    sizes = [anonymous_memory()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            sizes.append(anonymous_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    verdicts = duplicates.reject_near(np.arange(MILLION), ids, sets, threshold=THRESHOLD)
    seconds = time.perf_counter() - started
    stop.set()
    thread.join()
    assert len(verdicts) == MILLION // 20
    print(json.dumps({"anonymous": max(sizes) - sizes[0], "seconds": seconds}))


def anonymous_memory() -> int:
    """Return the bytes of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise AssertionError("/proc/self/status has no line RssAnon")


MEASUREMENTS = {"exact": exact, "quality": quality, "near": near, "memory": memory}


if __name__ == "__main__":
    logging.disable(logging.INFO)
    if sys.argv[1:2] == ["judge"]:
        judge(Path(sys.argv[2]))
    else:
        sys.exit(main(MEASUREMENTS, sys.argv[1:]))
