"""Filters on how sure the teacher was of what it wrote, by the frames that are stored anyway."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Confidence
from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Verdict, reject
from pipeline.records import Range, Sample
from pipeline.storage.topk import DEEPEST, TopK

MEAN_LOGPROB, TOKEN_LOGPROB, ENTROPY, ANSWER_MARGIN, RATIONALE_PERPLEXITY = range(
    5
)  # columns of `certainty`


@dataclass(frozen=True)
class Quantile:
    """A bound that is a quantile, in [0, 1], of the values of the rows that are left."""

    quantile: float


Bound = float | Quantile


@dataclass(frozen=True)
class Bounds:
    """What is kept lies within them; None is no bound."""

    min_mean_logprob: Bound | None = None
    min_token_logprob: Bound | None = None
    max_entropy: Bound | None = None
    min_answer_margin: Bound | None = None
    max_rationale_perplexity: Bound | None = None


def bounds(confidence: Confidence) -> Bounds:
    """The bounds of a config; 10% is a quantile, from the end where the worst are."""
    return Bounds(
        _worst(confidence.min_mean_logprob, False),
        _worst(confidence.min_token_logprob, False),
        _worst(confidence.max_entropy, True),
        _worst(confidence.min_answer_margin, False),
        _worst(confidence.max_rationale_perplexity, True),
    )


def _worst(bound: float | str | None, upper: bool) -> Bound | None:
    if not isinstance(bound, str):
        return bound
    share = float(bound.rstrip("% ")) / 100
    return Quantile(1 - share if upper else share)


def certainty(batch: Batch) -> NDArray[np.float32]:
    """(N, 5): mean and least logprob of the tokens written, mean entropy of their distributions, margin of the answer, perplexity of the
    rationale; all in nats but the last. nan where there are no such tokens. Raises PipelineError for samples without logprobs.

    The entropy is that of the entries and of the tail as one bucket. No token is likelier than the bucket that stands for it, so
    this is a lower bound. The margin is the least, over the answer's tokens, of the logprob of the one written minus that of the likeliest
    other; where that other is not stored it is bounded by the mass that is, so a margin too is at least what it says.
    """
    found = [_certainty(frame(batch, sample, "confidence"), sample) for sample in batch.samples]
    return np.array(found, np.float32).reshape(len(found), 5)


def confident(
    left: NDArray[np.int64], measured: NDArray[np.float32], bounds: Bounds
) -> dict[int, Verdict]:
    """low_mean_logprob, low_token_logprob, high_entropy, low_answer_margin, high_rationale_perplexity: beyond the bound, the bound
    itself included in what is kept. Quantiles are of all of `left`, whichever reason comes first. nan passes."""
    rules = (
        ("low_mean_logprob", MEAN_LOGPROB, bounds.min_mean_logprob, np.less),
        ("low_token_logprob", TOKEN_LOGPROB, bounds.min_token_logprob, np.less),
        ("high_entropy", ENTROPY, bounds.max_entropy, np.greater),
        ("low_answer_margin", ANSWER_MARGIN, bounds.min_answer_margin, np.less),
        (
            "high_rationale_perplexity",
            RATIONALE_PERPLEXITY,
            bounds.max_rationale_perplexity,
            np.greater,
        ),
    )
    verdicts: dict[int, Verdict] = {}
    for reason, column, bound, beyond in rules:
        if bound is not None:
            values = measured[left, column]
            out = beyond(values, resolved(bound, values))
            verdicts = reject(reason, left[out], values[out]) | verdicts
    return verdicts


def resolved(bound: Bound, values: NDArray[np.float32]) -> float:
    """The bound as a number; nan, beyond which nothing is, where there are no values to take a quantile of."""
    if isinstance(bound, int | float):
        return float(bound)
    known = values[~np.isnan(values)]
    return float(np.quantile(known, bound.quantile)) if len(known) else np.nan


def frame(batch: Batch, sample: Sample, name: str) -> TopK:
    """The distributions of a sample, which the filter `name` cannot do without."""
    if sample.frame is None or sample.token_ids is None:
        raise PipelineError(
            f"filter.{name}: sample {sample.id} has no logprobs, and the filter reads them; "
            f"generate with teacher.logprobs of 1 or more, or leave filter.{name} out"
        )
    return batch.frames.of(sample)


def _certainty(topk: TopK, sample: Sample) -> tuple[float, ...]:
    written = np.maximum(topk.logprobs[:, 0], -DEEPEST).astype(np.float64)  # (T,)
    if not len(written):
        return (np.nan,) * 5
    rationale = written[_tokens(sample.rationale_tokens)]
    margins = _margins(topk)[_tokens(sample.answer_tokens)]
    return (
        written.mean(),
        written.min(),
        _entropy(topk).mean(),
        margins.min() if len(margins) else np.nan,
        np.exp(-rationale.mean()) if len(rationale) else np.nan,
    )


def _tokens(part: Range | None) -> slice:
    return slice(*(part or (0, 0)))


def _entropy(topk: TopK) -> NDArray[np.float64]:
    """(T,)"""
    logprobs = np.column_stack([topk.logprobs, topk.tail]).astype(np.float64)
    return -(np.exp(logprobs) * np.maximum(logprobs, -1000.0)).sum(axis=1)  # 0 log 0 is 0


def _margins(topk: TopK) -> NDArray[np.float64]:
    """(T,). Entries fall in probability, so the second is the likeliest other, or a draw, which stands for at least its own probability;
    what is in the tail is less likely than either, and where there is neither, at most the tail's mass."""
    second = topk.logprobs[:, 1] if topk.logprobs.shape[1] > 1 else np.full(len(topk.tail), -np.inf)
    other = np.where(np.isneginf(second), topk.tail, second)
    return np.maximum(topk.logprobs[:, 0], -DEEPEST).astype(np.float64) - np.maximum(
        other, -DEEPEST
    )


CERTAINTY = Measure(certainty)
