"""Score an answer against the ground truth by string operations."""

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
    r"(?P<sign>[-+]?)"
    r"(?:(?P<whole>\d{1,3}) (?P<part>[1-9]\d{0,2})/(?P<parts>\d{1,3})(?!\d)"
    rf"|(?P<above>{WHOLE}(?:\.\d+)?|(?<!\w)\.\d+)"
    r"(?:(?:e|\s?[x*\u00d7]\s?10\s?\^\s?)(?P<power>[-+]?\d+))?"
    r"(?:\s*/\s*(?P<below>\d+(?:\.\d+)?))?)",
    re.IGNORECASE,
)
GLUED = re.compile(r"[A-Za-z_^]")  # in front of a digit: m2, cm^3, CO2

NO_ANSWER = Score(value=0.0, explanation="no answer found")

Scorer = Callable[[str | None, str, Sequence[str] | None], Score]


def normalise(text: str) -> str:
    """Return the text without case, outer punctuation and repeated white space."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*")


def find_numbers(text: str) -> list[re.Match[str]]:
    """Return the numbers in a text; those directly behind a letter or ^ only if all of them are."""
    matches = list(NUMBER.finditer(text.replace("\u2212", "-")))
    free = [match for match in matches if not GLUED.match(text, match.start() - 1, match.start())]
    return free or matches


def last_number(text: str) -> float | None:
    """Return the last number of a text; None if there is none, or it is not finite.

    Reads signs, thousands by commas or spaces, decimals, powers of ten, fractions and mixed ones.
    """
    matches = find_numbers(text)
    return _value(matches[-1]) if matches else None


def _value(match: re.Match[str]) -> float | None:
    groups = match.groupdict()
    if groups["whole"] is not None:
        below = float(groups["parts"])
        above = str(int(groups["whole"]) * int(groups["parts"]) + int(groups["part"]))
    else:
        below = float(groups["below"] or 1)
        above = re.sub(r"[,\s]", "", groups["above"])
    value = float(f"{groups['sign']}{above}e{groups['power'] or 0}")
    return value / below if below and math.isfinite(value) else None


def label(answer: str | None, target: str, labels: Sequence[str] | None) -> Score:
    """Score 1 if the answer is the target's label."""
    if answer is None:
        return NO_ANSWER
    known = {normalise(name): name for name in labels or ()}
    name = known.get(normalise(answer))
    if name is None:
        return Score(value=0.0, explanation=f"not one of the labels: {answer[:SHOWN]}")
    right = name == known.get(normalise(target), target)
    return _compared(right, name, "right label", target)


def exact(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score 1 if answer and target are the same text after `normalise`."""
    if answer is None:
        return NO_ANSWER
    right = normalise(answer) == normalise(target)
    return _compared(right, answer, "same text", target)


def numeric(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score 1 if the last numbers of answer and target are equal.

    Whole numbers must be equal exactly, others to one part in a million.
    """
    if answer is None:
        return NO_ANSWER
    given, expected = last_number(answer), last_number(target)
    if given is None:
        return Score(value=0.0, explanation=f"no number in the answer: {answer[:SHOWN]}")
    if expected is None:
        return Score(value=0.0, explanation=f"no number in the target: {target}")
    if given.is_integer() and expected.is_integer():
        right = given == expected
    else:
        right = bool(np.isclose(given, expected, rtol=1e-6, atol=1e-9))
    return _compared(right, f"{given:.15g}", "same number", f"{expected:.15g}")


def _compared(right: bool, answer: str, why_right: str, target: str) -> Score:
    explanation = why_right if right else f"is {target}"
    return Score(value=float(right), answer=answer, explanation=explanation)


def rouge_l(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score by the longest common subsequence of words, F1 (Lin 2004), by rouge-score.

    Without stemming; case does not count. Words may be of any script that separates them.
    """
    return _overlap("rouge_l", _rouge_l, answer, target)


def chrf(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score by chrF, the F2 of character n-grams up to 6 (Popović 2015), by sacrebleu, in [0, 1].

    Case counts, spacing does not.
    """
    return _overlap("chrf", _chrf, answer, target)


def _overlap(
    name: str, measure: Callable[[str, str], float], answer: str | None, target: str
) -> Score:
    if answer is None or not answer.strip():
        return NO_ANSWER
    value = measure(answer, target)
    return Score(value=value, answer=answer, explanation=f"{name} {value:.3f}")


def _rouge_l(answer: str, target: str) -> float:
    return float(_rouge().score(target, answer)["rougeL"].fmeasure)


def _chrf(answer: str, target: str) -> float:
    from sacrebleu import sentence_chrf

    return min(1.0, sentence_chrf(answer, [target]).score / 100.0)


class _Tokenizer:
    """Words of any script; rouge-score's own tokenizer knows only a to z."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.casefold())


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())


SCORERS: dict[str, Scorer] = {
    "label": label,
    "exact": exact,
    "numeric": numeric,
    "rouge_l": rouge_l,
    "chrf": chrf,
}
