"""Filters on agreement: votes of a seed's samples, of other prompts and teachers, and what a rationale says itself."""

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
    """A vote for 1,200 is one for 1200.0; a text without a number votes for nothing, and neither does an empty one."""
    numeric = [
        sample(answer=answer)
        for answer in ("1,200", "$1200.0", "about 1200", "1201", "-0", "0", "many", None)
    ]
    first, second, third, other, minus, zero, many, none = agreement.answer_keys(
        batch(*numeric), "numeric"
    ).tolist()
    assert first == second == third != other
    assert minus == zero
    assert many == none == NOTHING
    text = [sample(answer=answer) for answer in (" Yes.", "yes", "no", "...")]
    assert (
        agreement.answer_keys(batch(*text), "label").tolist()
        == keys("yes", "yes", "no", None).tolist()
    )


def test_seeds_and_prompts_of_samples(sample: Make) -> None:
    """Samples of one seed have one key, whatever else differs."""
    found = agreement.seed_keys(batch(sample(0), sample(0, id="x"), sample(1)))
    assert found[0] == found[1] != found[2]
    assert agreement.prompt_numbers(batch(sample(prompt=3))).tolist() == [3]


def test_vote_shares() -> None:
    """By seed, and unreadable answers neither vote nor have a share."""
    shares = agreement.vote_shares(SEEDS, ANSWERS)
    assert shares[:6].tolist() == [0.75, 0.75, 0.75, 0.25, 0.5, 0.5]
    assert np.isnan(shares[6])
    majority = agreement.majority_shares(SEEDS, shares)
    assert majority[:6].tolist() == [0.75] * 4 + [0.5] * 2
    assert np.isnan(majority[6])


def test_an_answer_with_few_votes() -> None:
    """Below the share, not at it; samples that are gone still have their vote, and what cannot be read passes."""
    verdicts = agreement.reject_few_votes(
        np.array([1, 3, 4, 6]), SEEDS, ANSWERS, min_vote_share=0.5
    )
    assert verdicts == {3: Verdict("low_vote_share", 0.25)}


def test_a_minority_answer() -> None:
    """Two answers that share the lead are both kept."""
    assert agreement.reject_few_votes(ALL, SEEDS, ANSWERS, majority=True) == {
        3: Verdict("minority_answer", 0.25)
    }
    assert agreement.reject_few_votes(ALL, SEEDS, ANSWERS) == {}


def test_other_prompts_disagree() -> None:
    """A prompt does not vote for its own answers; a seed that only one prompt was asked for passes."""
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
    """By seed, in whatever order the other run has them; a seed that it has no readable answer to passes."""
    other_seeds, other_answers = (
        keys("c", "b", "b", "b", "a", "z"),
        keys("9", "2", "2", "1", None, "1"),
    )
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
    """A student learns to reason towards one result and to write another; but what states no result is no contradiction."""
    one = batch(sample(rationale=rationale, answer=answer))
    expected = ("rationale_contradicts_answer", value) if value else None
    assert agreement.find_contradictions(one, metric, ["yes", "no"]) == [expected]


def test_labels_of_one_letter_are_no_words(sample: Make) -> None:
    """ "a" is an article; the longer of two labels is read where both fit."""
    assert agreement.find_contradictions(
        batch(sample(rationale="It is B, a good one", answer="B")), "label", ["A", "B"]
    ) == [None]
    both = batch(sample(rationale="all in all not sure", answer="sure"))
    assert agreement.find_contradictions(both, "label", ["sure", "not sure"]) == [
        ("rationale_contradicts_answer", "not sure / sure")
    ]


def test_nothing_to_hold_against_each_other(sample: Make) -> None:
    """Without rationale or answer there is no contradiction."""
    pair = batch(sample(rationale=None), sample(answer=None))
    assert agreement.find_contradictions(pair, "label", ["yes", "no"]) == [None, None]


def test_keys_are_the_same_in_every_process() -> None:
    """Python's own hash is salted anew for each."""
    assert text_key("yes") == 15109999359260392082
    assert text_key(None) == NOTHING


def test_ranks_and_counts() -> None:
    """Within groups, by order, ties as they come; and nothing for nothing."""
    groups = np.array([5, 3, 5, 5, 3])
    assert rank_within_groups(groups, np.array([2, 0, 1, 1, 0])).tolist() == [2, 0, 0, 1, 1]
    assert count_occurrences(groups).tolist() == [3, 2, 3, 3, 2]
    assert rank_within_groups(np.empty(0), np.empty(0)).tolist() == []


def test_a_seed_shuffles() -> None:
    """Another seed draws others; the same draws the same."""
    some = keys(*map(str, range(100)))
    orders = [shuffle(some, seed).argsort().tolist() for seed in (0, 1, 1, -1)]
    assert orders[0] != orders[1] == orders[2] != orders[3]
