"""Filters on the form of a reply: it is complete, of the right length, and readable."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Rejection, Verdict, reject
from pipeline.records import Sample
from pipeline.verifiers import numbers, scorers

SHOWN = 80


def finished(batch: Batch) -> list[Rejection | None]:
    """Reject replies that did not stop by themselves.

    Reasons: cut_at_length if the reply reached max_tokens; not_finished for any other end.
    """
    known: dict[str, Rejection | None] = {"stop": None, "length": ("cut_at_length", "length")}
    reasons = [sample.finish_reason for sample in batch.samples]
    return [known.get(reason, ("not_finished", reason)) for reason in reasons]


def tokens(batch: Batch) -> NDArray[np.int32]:
    """Return the number of completion tokens of each sample, (N,)."""
    return np.array([sample.usage.completion_tokens for sample in batch.samples], np.int32)


def length(
    rows: NDArray[np.int64], tokens: NDArray[np.int32], least: int, most: int | None
) -> dict[int, Verdict]:
    """Reject replies of fewer than `least` (too_short) or more than `most` tokens (too_long)."""
    counts = tokens[rows]
    short = rows[counts < least]
    verdicts = reject("too_short", short, tokens[short])
    if most is not None:
        long = rows[counts > most]
        verdicts |= reject("too_long", long, tokens[long])
    return verdicts


def parseable(
    batch: Batch, reasoned: Sequence[bool], metric: str, labels: Sequence[str] | None
) -> list[Rejection | None]:
    """Reject replies from which an answer or rationale cannot be read.

    `reasoned[n]` is True if prompt n asks for a rationale. Reasons: no_answer, no_rationale,
    not_a_label, not_a_number.
    """

    def judge(sample: Sample) -> Rejection | None:
        if sample.answer is None:
            return "no_answer", sample.text[:SHOWN]
        if metric == "label" and scorers.find_label(sample.answer, labels or ()) is None:
            return "not_a_label", sample.answer[:SHOWN]
        if metric == "numeric" and numbers.last_number(sample.answer) is None:
            return "not_a_number", sample.answer[:SHOWN]
        if reasoned[sample.prompt] and sample.rationale is None:
            return "no_rationale", sample.text[:SHOWN]
        return None

    return [judge(sample) for sample in batch.samples]
