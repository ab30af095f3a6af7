"""Reject text that repeats itself: lines, word sequences, loops, runs of one character.

The shares of repeated lines and n-grams are defined as in Rae et al. 2021 ("Scaling language
models: Gopher", table A1). That paper drops documents with more than 0.20 of the characters in
repeated lines, or 0.10 in repeated 10-grams. A rationale is shorter than a web page and may say the
same about several things, so the default limits (config.Filter) are higher. Loops are a failure of
language models (Holtzman et al. 2020, "The curious case of neural text degeneration") and are
measured in texts of any length.

A format repeats, too, and is right: keys of JSON records, rows of tables, code, tags, refrains.
JSON counts by its strings alone, each by itself. Other lines of a format, and the first copies of a
verse, do not count as repeated. Copies back to back are a loop in any format but JSON.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

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
VERSE_LINES, VERSE_CHARS = 8, 80  # a text of at least this many short lines is verse or a list
SOME = 0.05  # a share of which smaller ones are not looked into
REFRAIN = 3  # copies of a line of verse that are no fault
JSON_START = re.compile(r"[{\[]")
MIN_JSON = 20  # characters; the keys of a shorter record do not matter
FENCE = re.compile(r"^\s*(?:```|~~~)[^\n]*\n(.*?)^\s*(?:```|~~~)\s*$", re.MULTILINE | re.DOTALL)
FAILURES = 16  # brackets that begin no JSON, after which no more are tried
FEW_WORDS = r"(?=(?:\S+(?:\s+|$)){1,8}$)"
FORMAT_LINE = re.compile(
    r"[|<\[{}\])]"  # a row of a table, markup, brackets
    r"|(?:[-*\u2022]|\d+[.):]?) (?:\S+(?:\s+|$)){1,5}$"  # a short entry of a list
    r"|[-\w\"' .]{1,40}[:=](?:\s+\S+){0,4}$"  # a key and its value
    rf"|{FEW_WORDS}.*[{{}}\[\]();|>&\\]$"  # the end of a statement
    r"|(?:if|for|while|elif|def|class|with|except|return|raise|assert|self)\b"
    r".*(?:[:={]$|\w\(|[=!<>]=| = )"
    r"|(?:return|break|continue|pass|end|else|try|finally|done|fi)\b[^\s.!?]*(?: [^\s.!?]+)?$"
    r"|(?:from \S+ )?import |(?:[^,\s]+,){2,}[^,\s]+$"
)
STRUCTURE = frozenset('|<>/{}[]"();')  # a loop with as many marks as words is notation with these
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
    amounts = _amounts(text, ())
    # most texts do not repeat, so their format need not be looked at
    if amounts[2] == 0 and max(amounts[:2]) < SOME:
        return amounts
    rest, strings = _without_json(text)
    formatted = {line for line in _lines(rest) if FORMAT_LINE.match(line)}
    for match in FENCE.finditer(rest):
        formatted.update(_lines(match[1]))
    parts = [_amounts(rest, formatted), *(_amounts(part, ()) for part in strings)]
    lines, words, loop, run = (max(column) for column in zip(*parts, strict=True))
    return lines, words, int(loop), int(run)


def _amounts(text: str, formatted: Collection[str]) -> tuple[float, float, int, int]:
    """Return how much repeats; lines of a format, `formatted`, count only for loops and runs."""
    units = UNIT.findall(text)
    lines = _lines(text)
    longest_loop = max(_loops(units), default=0)
    longest_run = max((len(match.group()) for match in RUN.finditer(text)), default=0)
    is_verse = len(lines) >= VERSE_LINES and max(map(len, lines)) <= VERSE_CHARS
    free = REFRAIN if is_verse else 1
    if formatted:
        units = UNIT.findall("\n".join(line for line in lines if line not in formatted))
    words = [unit for unit in units if unit[0].isalnum()]
    repeated_lines = _repeated_lines(lines, free, formatted)
    return repeated_lines, _repeated_ngrams(words, free), longest_loop, longest_run


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _without_json(text: str) -> tuple[str, list[str]]:
    """Return the text without its JSON objects and arrays, and the strings among their values."""
    decoder = json.JSONDecoder()
    rest, strings, end, failures = [], list[str](), 0, 0
    while failures < FAILURES and (match := JSON_START.search(text, end)) is not None:
        rest.append(text[end : match.start()])
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            value, end = None, match.end()
            failures += 1
        if value is not None and end - match.start() >= MIN_JSON:
            strings += _strings(value)
        else:
            rest.append(text[match.start() : end])
    return "".join([*rest, text[end:]]), strings


def _strings(value: object) -> list[str]:
    """Return the strings of a JSON value, without keys."""
    found, left = [], [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, (dict, list)):
            left += item.values() if isinstance(item, dict) else item
    return list(dict.fromkeys(found))


def _repeated_lines(lines: Sequence[str], free: int, formatted: Collection[str]) -> float:
    """Return the share of characters in copies of lines, after the first `free` of each."""
    counts = Counter(lines)
    if len(lines) < LEAST_LINES or len(counts) == len(lines):
        return 0.0
    repeated = sum(
        (count - free) * len(line)
        for line, count in counts.items()
        if count > free and line not in formatted
    )
    return repeated / sum(map(len, lines))


def _repeated_ngrams(words: Sequence[str], free: int) -> float:
    """Return the share of words in repeated 10-grams; a word in two of them counts once.

    The first `free` copies of a 10-gram do not count.
    """
    if len(words) < LEAST_WORDS:
        return 0.0
    known: set[tuple[str, ...]] = set()
    copies: Counter[tuple[str, ...]] = Counter()
    repeated = end = 0
    shifted = [words[shift:] for shift in range(N)]
    for start, gram in enumerate(zip(*shifted, strict=False)):
        if gram in known:
            copies[gram] += 1
            if copies[gram] >= free:
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


def _is_notation(copied: Sequence[str]) -> bool:
    """Return whether copied units are numbers, marks, tags in capitals or cells of a format."""
    text = "".join(copied)
    if not any(map(str.isalpha, text)) or (text.isascii() and text.upper() == text):
        return True
    marks = [unit for unit in copied if not unit[0].isalnum()]
    return 2 * len(marks) >= len(copied) and not STRUCTURE.isdisjoint("".join(marks))


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
            copied = units[start : start + period]
            yield size // WORDLESS if _is_notation(copied) else size
