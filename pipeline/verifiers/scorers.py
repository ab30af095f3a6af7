"""Score an answer against the ground truth by string operations."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from pipeline.errors import UnknownError
from pipeline.records import Score
from pipeline.verifiers.numbers import equal, last_number

SHOWN = 80  # characters of an unreadable answer in an explanation
WORD = re.compile(r"\w+")
PUNCTUATION = " .,;:!?\"'`*"
LEADING = " ,;:\u00bf\u00a1\u3001\u3002"
TRAILING = " .,;:\u00b7\u0387\u037e\u060c\u061b\u06d4\u0964\u0965\u3001\u3002"
DETACHED = re.compile(r"[.!?*\"'`]+ ")  # in front of the text, with a space between
FACTORIAL = re.compile(r"(?:\d|\)|(?<!\w)[^\W\d_])!+$")
WRAPPED = [  # in quotes or in Markdown
    re.compile(rf"{opening}([^{inside}]+){closing}")
    for opening, closing, inside in (
        (r"\*\*\*?", r"\*\*\*?", "*"),
        (r"\*", r"\*", "*"),
        ("__?", "__?", "_"),
        ("`+", "`+", "`"),
        ('"', '"', '"'),
        ("'", "'", "'"),
        ("[\u00ab\u00bb\u2039\u203a]", "[\u00ab\u00bb\u2039\u203a]", "\u00ab\u00bb\u2039\u203a"),
        ("[\u300c\u300e\u300a]", "[\u300d\u300f\u300b]", "\u300c\u300d"),
    )
]
TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-"),
        "\u2026": "...",
    }
)
# without their meaning changing, unlike superscripts and fractions: full and half width, ligatures
COMPATIBLE = re.compile(
    "[\u3130-\u318f\ufb00-\ufdff\ufe70-\ufefc\uff01-\uffee\u3000\u1100-\u11ff]+"
)
# zero-width and direction marks, soft hyphens, variation selectors
UNSEEN = re.compile(
    "[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe0e\ufe0f\ufeff]"
)

WHOLE = re.compile(r"([-+]?\d+)\.0+")  # as pandas writes whole numbers of a column with gaps

NO_ANSWER = Score(value=0.0, explanation="no answer found")

Scorer = Callable[[str | None, str, Sequence[str] | None], Score]


def normalise(text: str) -> str:
    """Return the text without case, outer punctuation and repeated white space.

    Different encodings of one text become equal: composed and decomposed letters, full width,
    dashes and minus signs, straight and curly quotes; characters that are not seen are dropped.
    Punctuation that may belong to the text stays: a point or sign directly in front of it, "!"
    behind a number or a single letter, and a text that is nothing but punctuation. A whole number
    has no ".0".
    """
    text = _without_punctuation(_one_form(text))
    match = WHOLE.fullmatch(text)
    return match[1] if match else text


def _without_punctuation(text: str) -> str:
    """Take off all outer punctuation that cannot belong to the text."""
    if not text or (text[0].isalnum() and text[-1].isalnum()):
        return text
    if all(unicodedata.category(character)[0] in "PZ" for character in text):
        return text
    while True:
        stripped = _without_outer(text)
        if stripped == text:
            return text
        text = stripped


def _one_form(text: str) -> str:
    """Return the text in one encoding, without case and repeated white space."""
    if not text.isascii():
        text = COMPATIBLE.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
        text = UNSEEN.sub("", text.translate(TYPOGRAPHY))
        text = unicodedata.normalize("NFC", text.casefold())
    return " ".join(text.casefold().split())


def _without_outer(text: str) -> str:
    """Take off one layer of punctuation or of Markdown, if that leaves any text."""
    for pattern in WRAPPED:
        if (match := pattern.fullmatch(text)) and match.group(1).strip():
            return match.group(1).strip()
    text = text.lstrip(LEADING).rstrip(TRAILING) or text
    if match := DETACHED.match(text):
        text = text[match.end() :]
    for mark in ("**", '"', "`"):  # one that has lost its other half
        if text.count(mark) % 2 and len(text) > len(mark):
            text = text.removeprefix(mark)
            text = text if text[-len(mark) - 1].isdigit() else text.removesuffix(mark)
    if text.endswith(("!", "?")) and not FACTORIAL.search(text):
        return text.rstrip("!? ") or text
    return text.strip()


def find_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that a text is, or None.

    The nearest reading that is one label counts: the same text, then without points and commas
    around it, then without any outer punctuation, unless labels differ in that alone.
    """
    for form, labels_by_form in zip(FORMS, _label_forms(tuple(labels)), strict=True):
        if (wanted := form(text)) in labels_by_form:
            return labels_by_form[wanted]
    return None


@cache
def _label_forms(labels: tuple[str, ...]) -> list[dict[str, str | None]]:
    """Return for each form the labels by it; None where two labels have the same."""
    bare = [_bare(label) for label in labels]
    forms: list[dict[str, str | None]] = []
    for form in FORMS:
        written = [form(label) for label in labels]
        key = bare if form in LOOSE else written  # labels that differ in marks need their marks
        forms.append({})
        for text, name, same in zip(written, labels, key, strict=True):
            forms[-1][text] = name if key.count(same) == 1 else None
    return forms


def _pointed(text: str) -> str:
    return _one_form(text).lstrip(LEADING).rstrip(TRAILING)


def _bare(text: str) -> str:
    return normalise(text).strip(PUNCTUATION)


LOOSE: tuple[Callable[[str], str], ...] = (normalise, _bare)
FORMS: tuple[Callable[[str], str], ...] = (str.strip, _one_form, _pointed, *LOOSE)


def label(answer: str | None, target: str, labels: Sequence[str] | None) -> Score:
    """Score 1 if the answer is the target's label. Raises UnknownError if the target is none."""
    if answer is None or not answer.strip():
        return NO_ANSWER
    expected = find_label(target, labels or ())
    if expected is None:
        raise UnknownError(f"the target is not one of the labels: {target[:SHOWN]}")
    name = find_label(answer, labels or ())
    if name is None:
        return Score(value=0.0, explanation=f"not one of the labels: {answer[:SHOWN]}")
    return _compared(name == expected, name, "right label", target)


def exact(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score 1 if answer and target are the same text after `normalise`."""
    if answer is None:
        return NO_ANSWER
    right = normalise(answer) == normalise(target)
    return _compared(right, answer, "same text", target)


def numeric(answer: str | None, target: str, labels: Sequence[str] | None = None) -> Score:
    """Score 1 if the last numbers of answer and target are equal.

    Whole numbers must be equal exactly, others to one part in a million. Raises UnknownError if the
    target holds no number.
    """
    if answer is None or not answer.strip():
        return NO_ANSWER
    given, expected = last_number(answer), last_number(target)
    if expected is None:
        raise UnknownError(f"no number in the target: {target[:SHOWN]}")
    if given is None:
        return Score(value=0.0, explanation=f"no number in the answer: {answer[:SHOWN]}")
    right = equal(given, expected)
    return _compared(right, given.canonical(15), "same number", expected.canonical(15))


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
