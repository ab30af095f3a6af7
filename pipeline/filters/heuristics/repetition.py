"""Reject text that repeats itself: lines, word sequences, loops, runs of one character.

The shares of repeated lines and n-grams are defined as in Rae et al. 2021 ("Scaling language
models: Gopher", table A1). That paper drops documents with more than 0.20 of the characters in
repeated lines, or 0.10 in repeated 10-grams. A rationale is shorter than a web page and may say the
same about several things, so the default limits (config.Filter) are higher. Loops are a failure of
language models (Holtzman et al. 2020, "The curious case of neural text degeneration") and are
measured in texts of any length.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict

N = 10  # words of an n-gram
# for texts with fewer lines or words, the share of repeated lines or n-grams is 0
LEAST_LINES, LEAST_WORDS = 4, 50
LONGEST_PERIOD = 32  # units of the longest period that is searched for
LEAST_COPIES = 4  # a period with fewer copies in sequence is not a loop
# A loop without letters, such as zeros or the rule of a table, may be 16 times as long.
WORDLESS = 16
UNSPACED = (  # scripts without spaces between words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# a unit is a word, a character of such a script, or adjacent punctuation marks
UNIT = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]+")
RULES = "=_*~^#+.|─━═-"  # drawn across a page
RUN = re.compile(rf"([^\s\d{RULES}])\1{{7,}}|([{RULES}])\2{{159,}}")
MAX_LOOP = 12  # largest number of units in one stretch of copies
MAX_RUN = 24  # largest number of equal characters in sequence
REASONS = ("repeated_lines", "repeated_words", "loop", "character_run")


def measure(batch: Batch) -> NDArray[np.float32]:
    """Return how much of each reply repeats, (N, 4), by the order of REASONS.

    - the share of characters in lines that equal an earlier line;
    - the share of words in 10-grams that occurred before;
    - the number of units (words and marks) in the longest loop, divided by 16 without letters;
    - the longest run of one character, except spaces, digits and short rules (-----).
    """
    rows = [_measure_text(sample.text) for sample in batch.samples]
    return np.array(rows, np.float32).reshape(len(rows), len(REASONS))


def repeated(
    rows: NDArray[np.int64], amounts: NDArray[np.float32], most: Sequence[float]
) -> dict[int, Verdict]:
    """Reject replies with an amount above `most` (4,), for the first such reason in REASONS."""
    is_over = amounts[rows] > np.array(most, np.float32)  # (R, 4)
    rejected = is_over.any(axis=1)
    first = is_over.argmax(axis=1)
    verdicts = {}
    for row, reason in zip(rows[rejected].tolist(), first[rejected].tolist(), strict=True):
        verdicts[row] = Verdict(REASONS[reason], round(float(amounts[row, reason]), 3))
    return verdicts


def _measure_text(text: str) -> tuple[float, float, int, int]:
    units = UNIT.findall(text)
    words = [unit for unit in units if unit[0].isalnum()]
    longest_loop = max(_loops(units), default=0)
    longest_run = max((len(match.group()) for match in RUN.finditer(text)), default=0)
    return _repeated_lines(text), _repeated_ngrams(words), longest_loop, longest_run


def _repeated_lines(text: str) -> float:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < LEAST_LINES:
        return 0.0
    distinct = sum(map(len, set(lines)))
    total = sum(map(len, lines))
    return (total - distinct) / total


def _repeated_ngrams(words: Sequence[str]) -> float:
    """Return the share of words in repeated 10-grams; a word in two of them counts once."""
    if len(words) < LEAST_WORDS:
        return 0.0
    known: set[tuple[str, ...]] = set()
    repeated = end = 0
    shifted = [words[shift:] for shift in range(N)]
    for start, gram in enumerate(zip(*shifted, strict=False)):
        if gram in known:
            repeated += start + N - max(start, end)
            end = start + N
        known.add(gram)
    return repeated / len(words)


def _longest_frequent(ids: NDArray[np.int32]) -> int:
    """Return the longest stretch of units that are frequent enough for a loop."""
    if not len(ids):
        return 0
    rare = np.flatnonzero(np.bincount(ids)[ids] < LEAST_COPIES)
    return int(np.diff(np.concatenate([[-1], rare, [len(ids)]])).max()) - 1


def _loops(units: Sequence[str]) -> Iterator[int]:
    """Yield the units in each stretch that repeats a period LEAST_COPIES times or more."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(unit, len(numbers)) for unit in units], np.int32)
    # Every unit of a loop occurs LEAST_COPIES times or more. For most texts this bound is 0, which
    # saves most of the time.
    longest_period = min(LONGEST_PERIOD, _longest_frequent(ids) // LEAST_COPIES)
    for period in range(1, longest_period + 1):
        breaks = np.flatnonzero(ids[period:] != ids[:-period])
        bounds = np.concatenate([[-1], breaks, [len(ids) - period]])
        lengths = np.diff(bounds) - 1
        for index in np.flatnonzero(lengths >= (LEAST_COPIES - 1) * period).tolist():
            start = int(bounds[index]) + 1
            size = int(lengths[index]) + period
            has_letters = any(map(str.isalpha, "".join(units[start : start + period])))
            yield size if has_letters else size // WORDLESS
