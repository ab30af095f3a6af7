"""Measure what a model costs in use: latency, speed and price under a given load."""

import time
from collections.abc import Sequence

import numpy as np

from pipeline.errors import PipelineError
from pipeline.evaluation.results_model import Load
from pipeline.models.base import Completion, Failure, Model, Request, Sampling


def measure(model: Model, requests: Sequence[Request], max_tokens: int, concurrency: int) -> Load:
    """Measure greedy answers to all `requests` but the first, `concurrency` of them at once.

    First, some requests warm the engine up. Then its prefix cache is emptied, and the first request
    fills it with the text that all prompts begin with, as in production. A latency is the time from
    request to answer, in seconds; it is None if the backend does not report it.

    Raises PipelineError if a request fails.
    """
    sampling = Sampling(max_tokens, concurrency=concurrency)
    _answers(model, requests[: concurrency + 1], sampling)
    model.clear_cache()
    _answers(model, requests[:1], sampling)
    measured = requests[1:] or requests
    began = time.monotonic()
    answers = _answers(model, measured, sampling)
    seconds = time.monotonic() - began
    whole = [answer.seconds for answer in answers]
    first_token = [answer.first_token_s for answer in answers]
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    return Load(
        requests=len(measured),
        concurrency=concurrency,
        p50_s=_percentile(whole, 50),
        p95_s=_percentile(whole, 95),
        first_token_p50_s=_percentile(first_token, 50),
        first_token_p95_s=_percentile(first_token, 95),
        tokens_per_s=round(tokens / seconds, 1),
        answers_per_s=round(len(answers) / seconds, 3),
        peak_bytes=model.peak_bytes(),
    )


def priced(load: Load | None, price_per_hour: float | None) -> Load | None:
    """Add `price_per_1000`: the cost of 1,000 requests, in the currency of `price_per_hour`."""
    if load is None:
        return None
    price = None
    if price_per_hour is not None and load.answers_per_s:
        price = price_per_hour / 3600 / load.answers_per_s * 1000
    return load.model_copy(update={"price_per_1000": price})


def _answers(model: Model, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
    completions: list[Completion] = []
    for batch in model.generate(iter(requests), sampling):
        for answer in batch:
            if isinstance(answer, Failure):
                raise PipelineError(
                    f"evaluate: a request of the load failed, {answer.reason}: {answer.message}; "
                    "fix that, or set evaluate.load=null"
                )
            completions.append(answer)
    return completions


def _percentile(seconds: Sequence[float | None], percent: int) -> float | None:
    known = [value for value in seconds if value is not None]
    return round(float(np.percentile(known, percent)), 4) if known else None
