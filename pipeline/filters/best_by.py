"""Filters that keep the best rows of a group, by a score that the config names in `best_by`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.filters.confidence import logprobs
from pipeline.filters.confidence.logprobs import CERTAINTY
from pipeline.filters.correctness import agreement
from pipeline.filters.correctness.agreement import SEEDS
from pipeline.filters.correctness.filters import answers_measure
from pipeline.filters.measures import Measure
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.verdict import Verdict

Judge = Callable[..., dict[int, Verdict]]


def scored_filter(
    name: str,
    first: tuple[Measure, ...],
    then: tuple[Measure, ...],
    best_by: str | None,
    judge: Judge,
    config: Config,
) -> NamedFilter:
    """Return a filter whose judge also receives a score for each row, (N,).

    The judge is called with the columns of `first`, the scores, and the columns of `then`. Better
    rows have higher scores. If `best_by` is None, the judge receives no scores.
    """
    measures = _score_measures(best_by, config)

    def judge_with_scores(rows: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
        begin, end = len(first), len(first) + len(measures)
        scores = [_scores(best_by, columns[begin:end])] if best_by else []
        return judge(rows, *columns[:begin], *scores, *columns[end:])

    return NamedFilter(name, (*first, *measures, *then), judge_with_scores)


def _score_measures(best_by: str | None, config: Config) -> tuple[Measure, ...]:
    if best_by == "votes":
        return SEEDS, answers_measure(config)
    return (CERTAINTY,) if best_by else ()


def _scores(best_by: str, columns: Sequence[Any]) -> NDArray[np.float32]:
    if best_by == "votes":
        return agreement.vote_shares(*columns)
    column = {"mean_logprob": logprobs.MEAN_LOGPROB, "answer_margin": logprobs.ANSWER_MARGIN}
    scores: NDArray[np.float32] = columns[0][:, column[best_by]]
    return scores
