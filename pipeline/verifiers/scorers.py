"""How an answer is held against the ground truth, and how sure the averages are. The tests of differences: evaluation/significance.py."""

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from pipeline.records import Score

SHOWN = 80  # characters of an unreadable answer in an explanation
WORD = re.compile(r"\w+")
WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|(?<!\d )\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|\d+)"
NUMBER = re.compile(  # 2 1/2; or -1,234.5, 1 000, .5, 3e8, 3 x 10^8, 3/4
    rf"(?P<sign>[-+]?)(?:(?P<whole>\d{{1,3}}) (?P<part>[1-9]\d{{0,2}})/(?P<parts>\d{{1,3}})(?!\d)"
    rf"|(?P<above>{WHOLE}(?:\.\d+)?|(?<!\w)\.\d+)(?:(?:e|\s?[x*\u00d7]\s?10\s?\^\s?)(?P<power>[-+]?\d+))?"
    r"(?:\s*/\s*(?P<below>\d+(?:\.\d+)?))?)",
    re.IGNORECASE,
)
GLUED = re.compile(r"[A-Za-z_^]")  # in front of a digit: m2, cm^3, CO2

Scorer = Callable[[str | None, str, Sequence[str] | None], Score]


def normalise(text: str) -> str:
    """Case, outer punctuation and runs of white space do not count."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")


def find_numbers(text: str) -> list[re.Match[str]]:
    """The numbers in a text, in order; those directly behind a letter or ^ only where there are no others."""
    found = list(NUMBER.finditer(text.replace("\u2212", "-")))
    return [
        match for match in found if not GLUED.match(text, match.start() - 1, match.start())
    ] or found


def last_number(text: str) -> float | None:
    """The last of `find_numbers`: sign, thousands by commas or spaces, decimals, powers of ten, fractions, mixed ones; None if it is beyond all
    floats, or a division by 0."""
    found = find_numbers(text)
    return _value(found[-1]) if found else None


def _value(match: re.Match[str]) -> float | None:
    part = match.groupdict()
    if part["whole"] is not None:
        above, below = (
            str(int(part["whole"]) * int(part["parts"]) + int(part["part"])),
            float(part["parts"]),
        )
    else:
        above, below = re.sub(r"[,\s]", "", part["above"]), float(part["below"] or 1)
    value = float(f"{part['sign']}{above}e{part['power'] or 0}")
    return value / below if below and math.isfinite(value) else None


def label(answer: str | None, target: str, labels: Sequence[str] | None) -> Score:
    """1 if the answer is the target's label."""
    if answer is None:
        return Score(value=0.0, explanation="no answer found")
    known = {normalise(name): name for name in labels or ()}
    read = known.get(normalise(answer))
    if read is None:
        return Score(value=0.0, explanation=f"not one of the labels: {answer[:SHOWN]}")
    right = read == known.get(normalise(target), target)
    return Score(
        value=float(right), answer=read, explanation="right label" if right else f"is {target}"
    )


def exact(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """1 if answer and target are the same text, case, outer punctuation and spacing aside."""
    if answer is None:
        return Score(value=0.0, explanation="no answer found")
    right = normalise(answer) == normalise(target)
    return Score(
        value=float(right), answer=answer, explanation="same text" if right else f"is {target}"
    )


def numeric(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """1 if the last number in the answer equals the target's: whole numbers exactly, others to one part in a million."""
    if answer is None:
        return Score(value=0.0, explanation="no answer found")
    given, wanted = last_number(answer), last_number(target)
    if given is None or wanted is None:
        return Score(
            value=0.0,
            explanation=f"no number in the answer: {answer[:SHOWN]}"
            if given is None
            else f"no number in the target: {target}",
        )
    whole = given.is_integer() and wanted.is_integer()
    right = given == wanted if whole else bool(np.isclose(given, wanted, rtol=1e-6, atol=1e-9))
    return Score(
        value=float(right),
        answer=f"{given:.15g}",
        explanation="same number" if right else f"is {wanted:.15g}",
    )


def rouge_l(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """F-measure of the longest common subsequence of words (Lin 2004), by rouge-score, without stemming. Words are of any script that
    puts something between them; case does not count."""
    return _overlap("rouge_l", _rouge_l, answer, target)


def chrf(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """chrF: F2 of character n-grams up to 6 (Popović 2015), by sacrebleu, as a share of 1. Case counts, spacing does not."""
    return _overlap("chrf", _chrf, answer, target)


def _overlap(
    name: str, measure: Callable[[str, str], float], answer: str | None, target: str
) -> Score:
    if answer is None or not answer.strip():
        return Score(value=0.0, explanation="no answer found")
    value = measure(answer, target)
    return Score(value=value, answer=answer, explanation=f"{name} {value:.3f}")


def _rouge_l(answer: str, target: str) -> float:
    return float(_rouge().score(target, answer)["rougeL"].fmeasure)


def _chrf(answer: str, target: str) -> float:
    from sacrebleu import sentence_chrf

    return min(1.0, sentence_chrf(answer, [target]).score / 100.0)


class _Words:
    """rouge-score's own words are of a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.casefold())


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


SCORERS: dict[str, Scorer] = {
    "label": label,
    "exact": exact,
    "numeric": numeric,
    "rouge_l": rouge_l,
    "chrf": chrf,
}
