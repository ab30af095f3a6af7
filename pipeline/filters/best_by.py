"""The filters that look at many rows together: what is there already, and which of the good ones are taken."""

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
    """A filter whose judge takes the columns of `first`, with `best_by` scores (N,), higher ones for better rows, and those of `then`."""
    scores = (
        (SEEDS, answers_measure(config)) if best_by == "votes" else (CERTAINTY,) if best_by else ()
    )

    def judged(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
        begin, end = len(first), len(first) + len(scores)
        score = [_score(best_by, columns[begin:end])] if best_by else []
        return judge(left, *columns[:begin], *score, *columns[end:])

    return NamedFilter(name, (*first, *scores, *then), judged)


def _score(best_by: str, columns: Sequence[Any]) -> NDArray[np.float32]:
    if best_by == "votes":
        return agreement.vote_shares(*columns)
    which = {"mean_logprob": logprobs.MEAN_LOGPROB, "answer_margin": logprobs.ANSWER_MARGIN}[
        best_by
    ]
    found: NDArray[np.float32] = columns[0][:, which]
    return found
