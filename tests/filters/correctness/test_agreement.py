"""Filters on agreement: with other samples, prompts and teachers, and with the rationale."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.filters.correctness import agreement
from pipeline.filters.hashing import (
    NOTHING,
    count_occurrences,
    rank_within_groups,
    shuffle,
    text_key,
)
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample
from pipeline.storage.topk import TopKFolder
from tests.support.votes import ANSWERS, SEEDS, keys

Make = Callable[..., Sample]


def batch(*samples: Sample) -> Batch:
    return Batch(samples, TopKFolder(Path()))


ALL = np.arange(7)


def test_answers_are_the_same_by_value(sample: Make) -> None:
    """1,200 and 1200.0 were two votes; a text without a number, or an empty one, has no vote."""
    numeric = [
        sample(answer=answer)
        for answer in ("1,200", "$1200.0", "about 1200", "1201", "-0", "0", "many", None)
    ]
    keys_of_answers = agreement.answer_keys(batch(*numeric), "numeric").tolist()
    first, second, third, other, minus, zero, many, none = keys_of_answers
    assert first == second == third != other
    assert minus == zero
    assert many == none == NOTHING
    text = [sample(answer=answer) for answer in (" Yes.", "yes", "no", "...")]
    assert (
        agreement.answer_keys(batch(*text), "label").tolist()
        == keys("yes", "yes", "no", None).tolist()
    )


def test_seeds_and_prompts_of_samples(sample: Make) -> None:
    """Samples of one example have the same key, whatever else differs."""
    seeds = agreement.seed_keys(batch(sample(0), sample(0, id="x"), sample(1)))
    assert seeds[0] == seeds[1] != seeds[2]
    assert agreement.prompt_numbers(batch(sample(prompt=3))).tolist() == [3]


def test_vote_shares() -> None:
    """Unreadable answers must neither vote nor have a share."""
    shares = agreement.vote_shares(SEEDS, ANSWERS)
    assert shares[:6].tolist() == [0.75, 0.75, 0.75, 0.25, 0.5, 0.5]
    assert np.isnan(shares[6])
    majority = agreement.majority_shares(SEEDS, shares)
    assert majority[:6].tolist() == [0.75] * 4 + [0.5] * 2
    assert np.isnan(majority[6])


def test_an_answer_with_few_votes() -> None:
    """A share equal to the bound was rejected; rejected samples must vote, unreadable ones pass."""
    verdicts = agreement.reject_few_votes(
        np.array([1, 3, 4, 6]), SEEDS, ANSWERS, min_vote_share=0.5
    )
    assert verdicts == {3: Verdict("low_vote_share", 0.25)}


def test_a_minority_answer() -> None:
    """Two answers with equally many votes were both rejected."""
    assert agreement.reject_few_votes(ALL, SEEDS, ANSWERS, majority=True) == {
        3: Verdict("minority_answer", 0.25)
    }
    assert agreement.reject_few_votes(ALL, SEEDS, ANSWERS) == {}


def test_other_prompts_disagree() -> None:
    """A prompt voted for its own answers; an example with one prompt must pass."""
    seeds = keys("a", "a", "a", "b", "b")
    answers = keys("1", "1", "2", "1", "1")
    prompts = np.array([0, 0, 1, 0, 0], np.uint64)
    verdicts = agreement.reject_prompt_disagreement(
        np.arange(5), seeds, answers, prompts, min_share=0.5
    )
    assert verdicts == dict.fromkeys([0, 1, 2], Verdict("prompts_disagree", 0.0))
    assert (
        agreement.reject_prompt_disagreement(
            np.arange(5), seeds, keys("2", "2", "2", "1", "1"), prompts, min_share=0.5
        )
        == {}
    )


def test_teachers_disagree() -> None:
    """The order of the other run mattered; an example without its readable answer must pass."""
    other_seeds = keys("c", "b", "b", "b", "a", "z")
    other_answers = keys("9", "2", "2", "1", None, "1")
    verdicts = agreement.reject_teacher_disagreement(
        ALL, SEEDS, ANSWERS, other_seeds=other_seeds, other_answers=other_answers, min_share=0.5
    )
    assert verdicts == {4: Verdict("teachers_disagree", 0.3333)}
    none = keys()
    assert (
        agreement.reject_teacher_disagreement(
            ALL, SEEDS, ANSWERS, other_seeds=none, other_answers=none, min_share=0.5
        )
        == {}
    )


@pytest.mark.parametrize(
    ("metric", "rationale", "answer", "value"),
    [
        ("numeric", "3 * 4 = 12, so there are 12.", "12", None),
        ("numeric", "3 * 4 = 1,200 legs on 3 cows", "1200", None),
        ("numeric", "= 12. Five more make 17.", "17", None),
        ("numeric", "The answer is 12. That took 3 steps.", "12", None),
        ("numeric", "3 * 4 = 12 legs", "14", "12 / 14"),
        ("numeric", "Two and two make four.", "4", None),
        ("numeric", "It is 5.", "no number", None),
        ("label", "It is even, so yes.", "Yes", None),
        ("label", "It is even, so yes.", "no", "yes / no"),
        ("label", "Not even, but perhaps yes; no, it is not yes", "no", None),
        ("label", "It sells a contract", "yes", None),
        ("exact", "So the answer is Paris, of course.", "paris", None),
        ("exact", "So the answer is Rome. It is old.", "Paris", "Rome / Paris"),
        ("exact", "Paris is a town", "Rome", None),
        ("exact", "The answer is Parisian.", "Paris", "Parisian / Paris"),
    ],
)
def test_a_rationale_and_its_answer(
    sample: Make, metric: str, rationale: str, answer: str, value: str | None
) -> None:
    """A student would learn to derive one result and to write another. A rationale without a result
    does not contradict the answer."""
    one = batch(sample(rationale=rationale, answer=answer))
    expected = ("rationale_contradicts_answer", value) if value else None
    assert agreement.find_contradictions(one, metric, ["yes", "no"]) == [expected]


def test_labels_of_one_letter_are_no_words(sample: Make) -> None:
    """The article "a" was read as a label; of two labels that fit, the longer one counts."""
    assert agreement.find_contradictions(
        batch(sample(rationale="It is B, a good one", answer="B")), "label", ["A", "B"]
    ) == [None]
    both = batch(sample(rationale="all in all not sure", answer="sure"))
    assert agreement.find_contradictions(both, "label", ["sure", "not sure"]) == [
        ("rationale_contradicts_answer", "not sure / sure")
    ]


def test_nothing_to_compare(sample: Make) -> None:
    """A missing rationale or answer was reported as a contradiction."""
    pair = batch(sample(rationale=None), sample(answer=None))
    assert agreement.find_contradictions(pair, "label", ["yes", "no"]) == [None, None]


def test_keys_are_the_same_in_every_process() -> None:
    """Python's own hash is salted in each process, so that stored keys would not match."""
    assert text_key("yes") == 15109999359260392082
    assert text_key(None) == NOTHING


def test_ranks_and_counts() -> None:
    """Ranks are within groups, by order, and ties keep their order; no rows give no ranks."""
    groups = np.array([5, 3, 5, 5, 3])
    assert rank_within_groups(groups, np.array([2, 0, 1, 1, 0])).tolist() == [2, 0, 0, 1, 1]
    assert count_occurrences(groups).tolist() == [3, 2, 3, 3, 2]
    assert rank_within_groups(np.empty(0), np.empty(0)).tolist() == []


def test_a_seed_shuffles() -> None:
    """The same random seed must draw the same rows, another one other rows."""
    draws = keys(*map(str, range(100)))
    orders = [shuffle(draws, seed).argsort().tolist() for seed in (0, 1, 1, -1)]
    assert orders[0] != orders[1] == orders[2] != orders[3]
