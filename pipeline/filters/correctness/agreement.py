"""Filters on whether answers agree: with the other samples of a seed, with another teacher's or prompt's, with their own rationale."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.hashing import NOTHING, count_occurrences, shuffle, text_key
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Rejection, Verdict, reject
from pipeline.records import Sample
from pipeline.verifiers import scorers

SHOWN = 35  # characters of a result in a verdict
DENIAL = 40  # characters in front of a label in which it may be denied
STATED = re.compile(
    r"\b(?:answer|result|label) (?:is|would be|must be|should be)\b:?|\banswer:", re.IGNORECASE
)
SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
NEGATED = re.compile(
    r"(?:\b(?:not|no|never|neither|nor|cannot be|rather than|instead of)|n't)(?: (?:an?|the|be|just|really))*\W*$",
    re.IGNORECASE,
)


def seeds(batch: Batch) -> NDArray[np.uint64]:
    """(N,): the key of each sample's seed."""
    return np.array([text_key(sample.seed.id) for sample in batch.samples], np.uint64)


def answers(batch: Batch, metric: str) -> NDArray[np.uint64]:
    """(N,): the key of each answer, NOTHING where there is none. Case, outer punctuation and spacing do not count; under the metric
    numeric answers are the same if their values are, to six digits where they are not whole; under math, json and code texts count."""
    return np.array(
        [text_key(_normalised(sample.answer, metric)) for sample in batch.samples], np.uint64
    )


def prompts(batch: Batch) -> NDArray[np.uint64]:
    """(N,): the number of the prompt that each sample was asked with."""
    return np.array([sample.prompt for sample in batch.samples], np.uint64)


def vote_shares(seeds: NDArray[np.uint64], answers: NDArray[np.uint64]) -> NDArray[np.float32]:
    """(N,): the share of each answer among the answers to its seed (self-consistency, Wang et al. 2023); nan where there is no answer."""
    known = answers != NOTHING
    shares = np.full(len(seeds), np.nan, np.float32)
    shares[known] = count_occurrences(_pairs(seeds[known], answers[known])) / count_occurrences(
        seeds[known]
    )
    return shares


def majority_shares(seeds: NDArray[np.uint64], shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,): the largest of `vote_shares` in each row's seed: how sure the teacher is about it. nan where no answer to it can be read."""
    _, inverse = np.unique(seeds, return_inverse=True)
    most = np.full(int(inverse.max(initial=-1)) + 1, np.nan, np.float32)
    np.fmax.at(most, inverse, shares)
    return most[inverse]


def agreed(
    left: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    answers: NDArray[np.uint64],
    *,
    min_vote_share: float | None = None,
    majority: bool = False,
) -> dict[int, Verdict]:
    """low_vote_share: fewer than this share of the answers to the seed are this one. minority_answer: another one has more votes.

    All samples vote, those turned down before, too: a duplicate's vote is still a vote. A seed with one sample agrees with itself.
    """
    shares = vote_shares(seeds, answers)
    few = shares[left] < (-np.inf if min_vote_share is None else min_vote_share)
    beaten = (shares[left] < majority_shares(seeds, shares)[left]) & majority
    minority = reject("minority_answer", left[beaten], shares[left[beaten]])
    return minority | reject("low_vote_share", left[few], shares[left[few]])


def prompts_agree(
    left: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    answers: NDArray[np.uint64],
    prompts: NDArray[np.uint64],
    *,
    min_share: float,
) -> dict[int, Verdict]:
    """prompts_disagree: of the answers to the seed behind other prompts, fewer than this share are this one. Seeds without any pass."""
    known = answers != NOTHING
    mine = _pairs(seeds, prompts)
    voters, same = (
        count_occurrences(seeds[known]),
        count_occurrences(_pairs(seeds[known], answers[known])),
    )
    others = voters - count_occurrences(mine[known])
    shares = np.full(len(seeds), np.nan, np.float32)
    agreeing = same - count_occurrences(_pairs(mine[known], answers[known]))
    shares[known] = np.divide(agreeing, others, where=others > 0, out=np.full(len(others), np.nan))
    out = left[shares[left] < min_share]
    return reject("prompts_disagree", out, shares[out])


def teachers_agree(
    left: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    answers: NDArray[np.uint64],
    *,
    other_seeds: NDArray[np.uint64],
    other_answers: NDArray[np.uint64],
    min_share: float,
) -> dict[int, Verdict]:
    """teachers_disagree: of another run's answers to the seed (M,) fewer than this share are this one. Seeds without any pass."""
    readable = other_answers != NOTHING
    theirs, said = other_seeds[readable], other_answers[readable]
    rows = left[answers[left] != NOTHING]
    voters = _occurrences(seeds[rows], theirs)
    rows, voters = rows[voters > 0], voters[voters > 0]
    both_seeds, both_answers = np.append(seeds[rows], theirs), np.append(answers[rows], said)
    pairs = _pairs(both_seeds, both_answers)
    shares = (_occurrences(pairs[: len(rows)], pairs[len(rows) :]) / voters).astype(np.float32)
    return reject("teachers_disagree", rows[shares < min_share], shares[shares < min_share])


def contradicted(batch: Batch, metric: str, labels: Sequence[str] | None) -> list[Rejection | None]:
    """rationale_contradicts_answer: the result that the rationale states last is not the answer. Where none is read the sample passes.

    Of numbers it is the last one, the one behind the last "=" or the one behind the last "the answer is"; if any of them is the answer, it
    agrees. Of labels it is the last one that is named and not denied. Of other texts it is what follows the last "the answer is".
    """
    find = {"numeric": _numbers, "label": lambda text: _label(text, labels or ())}.get(
        metric, _claim
    )

    def judge(sample: Sample) -> Rejection | None:
        answer = _normalised(sample.answer, metric)
        if answer is None or sample.rationale is None:
            return None
        stated = list(find(sample.rationale))
        if not stated or any(_same(_normalised(text, metric), answer, metric) for text in stated):
            return None
        return (
            "rationale_contradicts_answer",
            f"{stated[-1].strip()[:SHOWN]} / {(sample.answer or '')[:SHOWN]}",
        )

    return [judge(sample) for sample in batch.samples]


def _normalised(text: str | None, metric: str) -> str | None:
    """What two answers that say the same have in common; None where nothing can be read."""
    if text is None or metric != "numeric":
        return scorers.normalise(text or "") or None
    value = scorers.last_number(text)
    if value is None:
        return None
    value += 0.0  # -0 is 0
    return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"


def _same(stated: str | None, answer: str, metric: str) -> bool:
    """A claim in words may say more than the answer does."""
    if metric in ("numeric", "label"):
        return stated == answer
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", stated or "") is not None


def _numbers(text: str) -> Iterator[str]:
    """The number of the last claim, the one behind the last "=", and the last one."""
    yield from _digits(next(_claim(text), ""))[:1]
    if "=" in text and (found := _digits(text.rpartition("=")[2])):
        yield found[0]
    yield from _digits(text)[-1:]


def _digits(text: str) -> list[str]:
    return [match.group() for match in scorers.find_numbers(text)]


def _label(text: str, labels: Sequence[str]) -> Iterator[str]:
    """The last label that the text names and does not deny. Labels of one character only count as they are written: "a" is a word."""
    names = sorted(labels, key=len, reverse=True)
    words = "|".join(
        re.escape(name) if len(name) == 1 else f"(?i:{re.escape(name)})" for name in names
    )
    for match in reversed(list(re.finditer(rf"(?<!\w)(?:{words})(?!\w)", text))) if names else ():
        if not NEGATED.search(text[max(match.start() - DENIAL, 0) : match.start()]):
            yield match.group()
            return


def _claim(text: str) -> Iterator[str]:
    found = list(STATED.finditer(text))
    if found:
        behind = text[found[-1].end() :].lstrip()
        end = SENTENCE_END.search(behind)
        yield behind[: end.start() if end else len(behind)]


def _pairs(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(N,): one key for each two, the same wherever they are."""
    return shuffle(first, 0) + second


def _occurrences(of: NDArray[np.uint64], among: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(N,): how often each key occurs among others."""
    ordered = np.sort(among)
    return np.searchsorted(ordered, of, "right") - np.searchsorted(ordered, of, "left")


SEEDS = Measure(seeds)
