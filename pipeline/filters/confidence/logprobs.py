"""Filter on how sure the teacher was of what it wrote, by the stored token probabilities."""

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Confidence
from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Verdict, reject
from pipeline.records import Range, Sample
from pipeline.storage.topk import DEEPEST, TopK

# Columns of `certainty`.
MEAN_LOGPROB, TOKEN_LOGPROB, ENTROPY, ANSWER_MARGIN, RATIONALE_PERPLEXITY = range(5)


def certainty(batch: Batch) -> NDArray[np.float32]:
    """Return five figures of each sample's certainty, (N, 5); nan without such tokens.

    They are the mean and the least logprob of the written tokens, the mean entropy of their
    distributions, the margin of the answer, all in nats, and the perplexity of the rationale.
    Raises PipelineError for samples without logprobs.

    The entropy counts the tail as one token that no token in it exceeds, which makes it a lower
    bound. The margin is the least, over the answer's tokens, of the logprob of the written token
    minus that of the most likely other one. If the other one is not stored, its upper bound is
    used, so the margin is a lower bound too.
    """
    figures = [
        _certainty(stored_topk(batch, sample, "confidence"), sample) for sample in batch.samples
    ]
    return np.array(figures, np.float32).reshape(len(figures), 5)


def reject_uncertain(
    rows: NDArray[np.int64], measured: NDArray[np.float32], bounds: Confidence
) -> dict[int, Verdict]:
    """Reject rows beyond a bound; the bound itself and nan pass.

    The reasons are low_mean_logprob, low_token_logprob, high_entropy, low_answer_margin and
    high_rationale_perplexity, the first one that applies. A bound such as "10%" rejects the worst
    tenth of `rows`, whichever reason applies first.
    """
    rules = (
        ("low_mean_logprob", MEAN_LOGPROB, bounds.min_mean_logprob, False),
        ("low_token_logprob", TOKEN_LOGPROB, bounds.min_token_logprob, False),
        ("high_entropy", ENTROPY, bounds.max_entropy, True),
        ("low_answer_margin", ANSWER_MARGIN, bounds.min_answer_margin, False),
        (
            "high_rationale_perplexity",
            RATIONALE_PERPLEXITY,
            bounds.max_rationale_perplexity,
            True,
        ),
    )
    verdicts: dict[int, Verdict] = {}
    for reason, column, bound, is_upper in rules:
        if bound is None:
            continue
        values = measured[rows, column]
        limit = _limit(bound, values, is_upper)
        beyond = values > limit if is_upper else values < limit
        verdicts = reject(reason, rows[beyond], values[beyond]) | verdicts
    return verdicts


def _limit(bound: float | str, values: NDArray[np.float32], is_upper: bool) -> float:
    """Return a bound as a number; a share such as "10%" is a quantile of the known values.

    Without known values it is nan, which no value is beyond.
    """
    if not isinstance(bound, str):
        return float(bound)
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan
    share = float(bound.rstrip("% ")) / 100
    return float(np.quantile(known, 1 - share if is_upper else share))


def stored_topk(batch: Batch, sample: Sample, filter_name: str) -> TopK:
    """Return the stored token probabilities of a sample, which the filter needs."""
    if sample.frame is None or sample.token_ids is None:
        raise PipelineError(
            f"filter.{filter_name}: sample {sample.id} has no logprobs, and the filter reads them; "
            f"generate with teacher.logprobs of 1 or more, or leave filter.{filter_name} out"
        )
    return batch.frames.topk_of(sample)


def _certainty(topk: TopK, sample: Sample) -> tuple[float, ...]:
    written = _floor(topk.logprobs[:, 0])  # (T,)
    if not len(written):
        return (np.nan,) * 5
    rationale = written[_slice(sample.rationale_tokens)]
    margins = _margins(topk)[_slice(sample.answer_tokens)]
    return (
        written.mean(),
        written.min(),
        _entropy(topk).mean(),
        margins.min() if len(margins) else np.nan,
        np.exp(-rationale.mean()) if len(rationale) else np.nan,
    )


def _slice(tokens: Range | None) -> slice:
    return slice(*(tokens or (0, 0)))


def _floor(logprobs: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.maximum(logprobs, -DEEPEST).astype(np.float64)


def _entropy(topk: TopK) -> NDArray[np.float64]:
    """Return the entropy at each token, (T,)."""
    logprobs = np.column_stack([topk.logprobs, topk.tail]).astype(np.float64)
    return -(np.exp(logprobs) * np.maximum(logprobs, -1000.0)).sum(axis=1)  # 0 log 0 is 0


def _margins(topk: TopK) -> NDArray[np.float64]:
    """Return a lower bound of the margin at each token, (T,).

    Entries are sorted by probability. The second entry is the most likely other token, or a draw
    that stands for at least its own probability. Tokens in the tail are less likely than either.
    Without a second entry, the other token has at most the mass of the tail.
    """
    second = topk.logprobs[:, 1] if topk.logprobs.shape[1] > 1 else np.full(len(topk.tail), -np.inf)
    other = np.where(np.isneginf(second), topk.tail, second)
    return _floor(topk.logprobs[:, 0]) - _floor(other)


CERTAINTY = Measure(certainty)
