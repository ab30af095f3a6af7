"""Filter on the teacher's certainty: each figure by hand, each reason, and missing data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import Confidence
from pipeline.errors import PipelineError
from pipeline.filters.confidence import logprobs
from pipeline.filters.measures import Batch
from pipeline.records import Sample
from pipeline.storage.topk import TopK, TopKFolder
from tests.support.frames import Distribution, framed

Make = Callable[..., Sample]
ROUNDING = 0.03  # nats; the rounding of the file's codes


def measured(folder: Path, sample: Sample, *tokens: Distribution) -> NDArray[np.float32]:
    samples, frames = framed(folder, [sample], [tokens])
    return logprobs.certainty(Batch(samples, frames))[0]


def test_figures_of_a_sample(sample: Make, tmp_path: Path) -> None:
    """Mean, least, entropy with the tail as one token, margin and perplexity, by hand."""
    distributions = [[(1, 0.6), (2, 0.3)], [(3, 0.5), (4, 0.5)], [(5, 0.25), (6, 0.75)]]
    spans = sample(answer_tokens=(0, 1), rationale_tokens=(1, 3))
    figures = measured(tmp_path, spans, *distributions)
    written = np.log([0.6, 0.5, 0.25])
    rows = map(np.array, ([0.6, 0.3, 0.1], [0.5, 0.5], [0.25, 0.75]))
    entropies = [-(row * np.log(row)).sum() for row in rows]
    expected = [
        written.mean(),
        written.min(),
        np.mean(entropies),
        np.log(0.6 / 0.3),
        np.exp(-written[1:].mean()),
    ]
    assert figures == pytest.approx(expected, abs=2 * ROUNDING)


def test_margin_is_of_the_least_sure_token_of_the_answer(sample: Make, tmp_path: Path) -> None:
    """One doubtful token makes a doubtful answer; the margin of an unlikely token is negative."""
    figures = measured(
        tmp_path,
        sample(answer_tokens=(0, 2)),
        [(1, 0.9), (2, 0.1)],
        [(3, 0.2), (4, 0.8)],
        [(5, 0.1), (6, 0.9)],
    )
    expected = np.log(0.2 / 0.8)
    assert figures[logprobs.ANSWER_MARGIN] == pytest.approx(expected, abs=2 * ROUNDING)


def test_margin_without_a_stored_rival(sample: Make, tmp_path: Path) -> None:
    """An unstored rival has at most the tail's mass; without a tail the margin was infinite."""
    tail = measured(tmp_path, sample(answer_tokens=(0, 1)), [(1, 0.9)])
    no_tail = measured(tmp_path, sample(answer_tokens=(0, 1)), [(1, 1.0)])
    assert tail[logprobs.ANSWER_MARGIN] == pytest.approx(np.log(0.9 / 0.1), abs=0.1)
    assert no_tail[logprobs.ANSWER_MARGIN] == 25.0


def test_entropy_is_a_lower_bound() -> None:
    """The tail holds several tokens; an overestimate would reject rows that the teacher was sure
    of."""
    logits = np.random.default_rng(0).normal(0, 3, (50, 40))
    true = np.sort(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[:, ::-1]
    stored = true[:, :5]
    tail = 1 - true[:, :5].sum(1)
    topk = TopK(
        np.zeros((50, 5), np.int64),
        np.log(stored).astype(np.float32),
        np.log(tail).astype(np.float32),
        np.full(50, 5),
    )
    entropy = logprobs._entropy(topk)
    true_entropy = -(true * np.log(true)).sum(1)
    assert (entropy <= true_entropy + 1e-5).all()
    assert entropy.mean() > 0.7 * true_entropy.mean()


def test_nothing_to_be_measured_is_nan(sample: Make, tmp_path: Path) -> None:
    """A sample without rationale, answer or tokens counted as a sure or an unsure one."""
    no_spans = measured(tmp_path, sample(), [(1, 0.5), (2, 0.5)])
    no_tokens = measured(tmp_path, sample(answer_tokens=(0, 0)))
    assert np.isnan(no_spans).tolist() == [False, False, False, True, True]
    assert np.isnan(no_tokens).all()
    bounds = Confidence(min_mean_logprob=0.0, max_entropy=0.0, min_answer_margin="50%")
    assert logprobs.reject_uncertain(np.arange(1), no_tokens[None], bounds) == {}


def test_samples_without_frames_are_refused(sample: Make) -> None:
    """The filter kept samples that it could not judge, as if it had judged them."""
    message = r"filter\.confidence: sample s0 has no logprobs.*generate with teacher\.logprobs"
    with pytest.raises(PipelineError, match=message):
        logprobs.certainty(Batch([sample()], TopKFolder(Path())))


@pytest.mark.parametrize(
    ("setting", "bound", "column", "reason"),
    [
        ("min_mean_logprob", -1.0, logprobs.MEAN_LOGPROB, "low_mean_logprob"),
        ("min_token_logprob", -1.0, logprobs.TOKEN_LOGPROB, "low_token_logprob"),
        ("min_answer_margin", -1.0, logprobs.ANSWER_MARGIN, "low_answer_margin"),
        ("max_entropy", 1.0, logprobs.ENTROPY, "high_entropy"),
        (
            "max_rationale_perplexity",
            1.0,
            logprobs.RATIONALE_PERPLEXITY,
            "high_rationale_perplexity",
        ),
    ],
)
def test_a_reason_for_each_bound(setting: str, bound: float, column: int, reason: str) -> None:
    """Values at the bound are kept, values beyond it are not; rejected rows are not judged."""
    values = np.zeros((4, 5), np.float32)
    values[:, column] = [bound, 3 * bound, bound / 2, 3 * bound]
    bounds = Confidence.model_validate({setting: bound})
    verdicts = logprobs.reject_uncertain(np.arange(3), values, bounds)
    assert {row: (verdict.reason, verdict.value) for row, verdict in verdicts.items()} == {
        1: (reason, 3 * bound)
    }


def test_quantiles_are_of_the_rows_that_are_left() -> None:
    """Rows that were rejected before moved the bound; of several reasons the first is given."""
    values = np.repeat(-np.arange(12, dtype=np.float32)[:, None], 5, axis=1)
    bounds = Confidence(min_mean_logprob="30%", max_entropy="25%", min_token_logprob=-9.5)
    verdicts = logprobs.reject_uncertain(np.arange(1, 11), values, bounds)
    assert {row: verdict.reason for row, verdict in verdicts.items()} == {
        **dict.fromkeys([8, 9, 10], "low_mean_logprob"),
        **dict.fromkeys([1, 2, 3], "high_entropy"),
    }
