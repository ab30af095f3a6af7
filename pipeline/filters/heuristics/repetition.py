"""Text that goes round in circles, whatever its language: repeated lines, repeated word sequences, loops, runs of one character.

Shares of repeated lines and n-grams are those of Rae et al. 2021 ("Scaling language models: Gopher", table A1), who drop documents of which
more than 0.20 of the characters are in repeated lines, or 0.10 in repeated 10-grams. A rationale is shorter than a web page and may say
the same of several things, so the defaults (config.Filter) leave more room; loops, which are what a language model falls into
(Holtzman et al. 2020, "The curious case of neural text degeneration"), are counted by themselves, at any length.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict

N = 10  # words of an n-gram
LEAST_LINES, LEAST_WORDS = 4, 50  # shorter texts have no share of repeated lines, or of n-grams
LONGEST_PERIOD = 32  # units of what a loop repeats
LEAST_COPIES = 4  # fewer in a row are no loop
WORDLESS = (
    16  # units of a loop without letters, as a row of zeros or a table's rule, that count as one
)
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # no spaces between words
UNIT = re.compile(
    rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]+"
)  # a word, a character of such a script, or marks
RULES = "=_*~^#+.|─━═-"  # drawn across a page
RUN = re.compile(rf"([^\s\d{RULES}])\1{{7,}}|([{RULES}])\2{{159,}}")
REASONS = ("repeated_lines", "repeated_words", "loop", "character_run")


def measure(batch: Batch) -> NDArray[np.float32]:
    """(N, 4): share of the characters in lines that an earlier one equals; share of the words in 10-grams that were there before; units
    (words and marks) of the longest loop, where sixteen count as one if it has no letters; characters of the longest run of one character,
    spaces, digits and short rules (-----) aside."""
    rows = [_measured(sample.text) for sample in batch.samples]
    return np.array(rows, np.float32).reshape(len(rows), len(REASONS))


def repeated(
    left: NDArray[np.int64], found: NDArray[np.float32], most: Sequence[float]
) -> dict[int, Verdict]:
    """repeated_lines, repeated_words, loop, character_run: more of it than `most` (4,) allows. The value: how much."""
    over = found[left] > np.array(most, np.float32)  # (n, 4)
    worst = over.argmax(axis=1)
    return {
        int(row): Verdict(REASONS[which], round(float(found[row, which]), 3))
        for row, which in zip(left[over.any(axis=1)], worst[over.any(axis=1)], strict=True)
    }


def _measured(text: str) -> tuple[float, float, int, int]:
    units = UNIT.findall(text)
    words = [unit for unit in units if unit[0].isalnum()]
    run = max((len(match.group()) for match in RUN.finditer(text)), default=0)
    return _lines(text), _ngrams(words), max(_loops(units), default=0), run


def _lines(text: str) -> float:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < LEAST_LINES:
        return 0.0
    kept = sum(map(len, set(lines)))
    total = sum(map(len, lines))
    return (total - kept) / total


def _ngrams(words: Sequence[str]) -> float:
    """The share of words in 10-grams that were there before; one that overlaps the last such counts for its new words only."""
    if len(words) < LEAST_WORDS:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = end = 0
    for start, gram in enumerate(zip(*(words[shift:] for shift in range(N)), strict=False)):
        if gram in seen:
            repeated += start + N - max(start, end)
            end = start + N
        seen.add(gram)
    return repeated / len(words)


def _frequent(ids: NDArray[np.int32]) -> int:
    """Length of the longest stretch of units that are there often enough to be in a loop; in most texts it is too short for one."""
    rare = np.flatnonzero(np.bincount(ids)[ids] < LEAST_COPIES) if len(ids) else ids
    return int(np.diff(np.concatenate([[-1], rare, [len(ids)]])).max()) - 1


def _loops(units: Sequence[str]) -> Iterator[int]:
    """For each period, the units of every stretch that is at least LEAST_COPIES copies, back to back, of as many units."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(unit, len(numbers)) for unit in units], np.int32)
    for period in range(1, min(LONGEST_PERIOD, _frequent(ids) // LEAST_COPIES) + 1):
        breaks = np.flatnonzero(ids[period:] != ids[:-period])
        bounds = np.concatenate([[-1], breaks, [len(ids) - period]])
        lengths = np.diff(bounds) - 1
        for at in np.flatnonzero(lengths >= (LEAST_COPIES - 1) * period).tolist():
            start, size = int(bounds[at]) + 1, int(lengths[at]) + period
            yield (
                size
                if any(map(str.isalpha, "".join(units[start : start + period])))
                else size // WORDLESS
            )
