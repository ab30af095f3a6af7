"""Filters on whether answers agree.

An answer is compared with the other samples of its example, with the answers to other prompts, with
the answers of another teacher, and with the rationale that leads to it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.hashing import NOTHING, count_occurrences, shuffle, text_key
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Rejection, Verdict, reject
from pipeline.records import Sample
from pipeline.verifiers import numbers, scorers

MAX_CHARACTERS = 35  # of a result in a verdict
NEGATION_REACH = 40  # characters before a label in which it may be negated
CLAIM = re.compile(
    r"\b(?:answer|result|label) (?:is|would be|must be|should be)\b:?|\banswer:", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
NEGATION = re.compile(
    r"(?:\b(?:not|no|never|neither|nor|cannot be|rather than|instead of)|n't)"
    r"(?: (?:an?|the|be|just|really))*\W*$",
    re.IGNORECASE,
)

Keys = NDArray[np.uint64]


def seed_keys(batch: Batch) -> Keys:
    """Return the key of each sample's example, (N,)."""
    return np.array([text_key(sample.seed.id) for sample in batch.samples], np.uint64)


def answer_keys(batch: Batch, metric: str) -> Keys:
    """Return the key of each answer, (N,); NOTHING where there is none.

    Case, outer punctuation and spacing do not count. Under the metric numeric, answers are equal if
    their values are; values that are not whole count to six digits. Under math, json and code the
    text counts.
    """
    answers = [_normalise(sample.answer, metric) for sample in batch.samples]
    return np.array([text_key(answer) for answer in answers], np.uint64)


def prompt_numbers(batch: Batch) -> Keys:
    """Return the number of the prompt of each sample, (N,)."""
    return np.array([sample.prompt for sample in batch.samples], np.uint64)


def vote_shares(seeds: Keys, answers: Keys) -> NDArray[np.float32]:
    """Return the share of each answer among the answers to its example, (N,).

    It is nan for a missing answer. This is self-consistency (Wang et al. 2023).
    """
    known = answers != NOTHING
    votes = count_occurrences(_pair_keys(seeds[known], answers[known]))
    shares = np.full(len(seeds), np.nan, np.float32)
    shares[known] = votes / count_occurrences(seeds[known])
    return shares


def majority_shares(seeds: Keys, shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest of the `vote_shares` of each row's example, (N,).

    It tells how sure the teacher is about the example; nan if no answer to it is readable.
    """
    _, inverse = np.unique(seeds, return_inverse=True)
    largest = np.full(int(inverse.max(initial=-1)) + 1, np.nan, np.float32)
    np.fmax.at(largest, inverse, shares)
    return largest[inverse]


def reject_few_votes(
    rows: NDArray[np.int64],
    seeds: Keys,
    answers: Keys,
    *,
    min_vote_share: float | None = None,
    majority: bool = False,
) -> dict[int, Verdict]:
    """Reject vote shares below `min_vote_share` as low_vote_share; with `majority`, reject answers
    with fewer votes than another as minority_answer.

    All samples vote, even rejected ones: a duplicate's vote is still a vote. The only sample of an
    example passes.
    """
    shares = vote_shares(seeds, answers)
    low = rows[shares[rows] < (-np.inf if min_vote_share is None else min_vote_share)]
    verdicts = reject("low_vote_share", low, shares[low])
    if majority:
        minority = rows[shares[rows] < majority_shares(seeds, shares)[rows]]
        verdicts = reject("minority_answer", minority, shares[minority]) | verdicts
    return verdicts


def reject_prompt_disagreement(
    rows: NDArray[np.int64], seeds: Keys, answers: Keys, prompts: Keys, *, min_share: float
) -> dict[int, Verdict]:
    """Reject an answer as prompts_disagree if too few answers to other prompts are the same.

    The bound is `min_share` of the other prompts' answers to the example. Without any it passes.
    """
    known = answers != NOTHING
    own_prompt = _pair_keys(seeds, prompts)
    votes = count_occurrences(_pair_keys(seeds[known], answers[known]))
    own_votes = count_occurrences(_pair_keys(own_prompt[known], answers[known]))
    other_answers = count_occurrences(seeds[known]) - count_occurrences(own_prompt[known])
    unknown = np.full(len(other_answers), np.nan)
    shares = np.full(len(seeds), np.nan, np.float32)
    shares[known] = np.divide(
        votes - own_votes, other_answers, where=other_answers > 0, out=unknown
    )
    low = rows[shares[rows] < min_share]
    return reject("prompts_disagree", low, shares[low])


def reject_teacher_disagreement(
    rows: NDArray[np.int64],
    seeds: Keys,
    answers: Keys,
    *,
    other_seeds: Keys,
    other_answers: Keys,
    min_share: float,
) -> dict[int, Verdict]:
    """Reject an answer as teachers_disagree if too few answers of another run are the same.

    The bound is `min_share` of the other run's answers (M,) to the example. Without any it passes.
    """
    readable = other_answers != NOTHING
    other_seeds = other_seeds[readable]
    other_answers = other_answers[readable]
    rows = rows[answers[rows] != NOTHING]
    votes_cast = _occurrences(seeds[rows], other_seeds)
    rows = rows[votes_cast > 0]
    votes_cast = votes_cast[votes_cast > 0]
    votes = _occurrences(
        _pair_keys(seeds[rows], answers[rows]), _pair_keys(other_seeds, other_answers)
    )
    shares = (votes / votes_cast).astype(np.float32)
    low = shares < min_share
    return reject("teachers_disagree", rows[low], shares[low])


def find_contradictions(
    batch: Batch, metric: str, labels: Sequence[str] | None
) -> list[Rejection | None]:
    """Find rationales whose last stated result is not the answer: rationale_contradicts_answer.

    A sample without a readable result passes. A rationale can state up to three numbers: the last
    one, the one after the last "=" and the one after the last "the answer is". It agrees if one
    of them is the answer. A label is the last one that is named and not negated. Any other text is
    what follows the last "the answer is".
    """
    if metric == "numeric":
        find_results = _numbers
    elif metric == "label":
        find_results = partial(_label, labels=labels or ())
    else:
        find_results = _claim

    def judge(sample: Sample) -> Rejection | None:
        answer = _normalise(sample.answer, metric)
        if answer is None or sample.rationale is None:
            return None
        results = list(find_results(sample.rationale))
        if not results:
            return None
        if any(_says(_normalise(result, metric), answer, metric) for result in results):
            return None
        result = results[-1].strip()[:MAX_CHARACTERS]
        return (
            "rationale_contradicts_answer",
            f"{result} / {(sample.answer or '')[:MAX_CHARACTERS]}",
        )

    return [judge(sample) for sample in batch.samples]


def _normalise(text: str | None, metric: str) -> str | None:
    """Return what two equal answers have in common; None where nothing is readable."""
    if text is None or metric != "numeric":
        words = scorers.normalise(text or "")
        return words if words.strip(".,;: ") else None
    number = numbers.last_number(text)
    return None if number is None else number.canonical(6)


def _says(result: str | None, answer: str, metric: str) -> bool:
    """Return whether a result is the answer. A claim in words may be longer than the answer."""
    if metric in ("numeric", "label"):
        return result == answer
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", result or "") is not None


def _numbers(text: str) -> Iterator[str]:
    """Yield the number of the last claim, the one after the last "=", and the last one."""
    yield from _digits(next(_claim(text), ""))[:1]
    if "=" in text:
        yield from _digits(text.rpartition("=")[2])[:1]
    yield from _digits(text)[-1:]


def _digits(text: str) -> list[str]:
    return [number.text for number in numbers.find_numbers(text)]


def _label(text: str, labels: Sequence[str]) -> Iterator[str]:
    """Yield the last label that the text names and does not negate.

    A label of one character counts only in its own case: "a" is a word.
    """
    if not labels:
        return
    patterns = []
    for label in sorted(labels, key=len, reverse=True):
        escaped = re.escape(label)
        patterns.append(escaped if len(label) == 1 else f"(?i:{escaped})")
    matches = re.finditer(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", text)
    for match in reversed(list(matches)):
        before = text[max(match.start() - NEGATION_REACH, 0) : match.start()]
        if not NEGATION.search(before):
            yield match.group()
            return


def _claim(text: str) -> Iterator[str]:
    """Yield the rest of the sentence after the last "the answer is"."""
    claims = list(CLAIM.finditer(text))
    if claims:
        claimed = text[claims[-1].end() :].lstrip()
        end = SENTENCE_END.search(claimed)
        yield claimed[: end.start()] if end else claimed


def _pair_keys(first: Keys, second: Keys) -> Keys:
    """Return one key for each pair, (N,)."""
    return shuffle(first, 0) + second


def _occurrences(keys: Keys, among: Keys) -> NDArray[np.int64]:
    """Count how often each of `keys` (N,) occurs in `among`."""
    ordered = np.sort(among)
    return np.searchsorted(ordered, keys, "right") - np.searchsorted(ordered, keys, "left")


SEEDS = Measure(seed_keys)
