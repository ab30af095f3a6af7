"""Filters on the form of a reply: is it whole, of a sane length, an answer at all, and readable."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Rejection, Verdict
from pipeline.records import Sample
from pipeline.verifiers import scorers

VALUE_CHARS = 80


def finished(batch: Batch) -> list[Rejection | None]:
    """cut_at_length: the reply ran into max_tokens. not_finished: the engine ended it for another reason."""
    said: dict[str, Rejection | None] = {"stop": None, "length": ("cut_at_length", "length")}
    return [said.get(s.finish_reason, ("not_finished", s.finish_reason)) for s in batch.samples]


def tokens(batch: Batch) -> NDArray[np.int32]:
    """Completion tokens (N,)."""
    return np.array([s.usage.completion_tokens for s in batch.samples], np.int32)


def length(
    left: NDArray[np.int64], tokens: NDArray[np.int32], least: int, most: int | None
) -> dict[int, Verdict]:
    """too_short, too_long: completion tokens, both bounds included."""
    found = tokens[left]
    short = {int(row): Verdict("too_short", int(tokens[row])) for row in left[found < least]}
    long = (
        {}
        if most is None
        else {int(row): Verdict("too_long", int(tokens[row])) for row in left[found > most]}
    )
    return short | long


def parseable(
    batch: Batch, reasoned: Sequence[bool], metric: str, labels: Sequence[str] | None
) -> list[Rejection | None]:
    """no_answer, no_rationale, not_a_label, not_a_number: what the prompt asked for cannot be read out of the reply.

    `reasoned`: for each prompt, by number, whether it asks for a rationale.
    """
    known = {scorers.normalise(label) for label in labels or ()}

    def judge(sample: Sample) -> Rejection | None:
        if sample.answer is None:
            return "no_answer", sample.text[:VALUE_CHARS]
        if metric == "label" and scorers.normalise(sample.answer) not in known:
            return "not_a_label", sample.answer[:VALUE_CHARS]
        if metric == "numeric" and scorers.last_number(sample.answer) is None:
            return "not_a_number", sample.answer[:VALUE_CHARS]
        if reasoned[sample.prompt] and sample.rationale is None:
            return "no_rationale", sample.text[:VALUE_CHARS]
        return None

    return [judge(s) for s in batch.samples]
