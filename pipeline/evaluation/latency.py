"""What a model costs in use: latency, speed and price at one stated load."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.models.base import Completion, Failure, Model, Request, Sampling


def measure(
    model: Model, requests: Sequence[Request], max_tokens: int, concurrency: int
) -> dict[str, Any]:
    """Figures of all `requests` but the first, `concurrency` of them in flight all the time, answered greedily.

    Before, some are answered to warm the engine up; then its cache is emptied, and the first request fills it with what all prompts
    begin with, as it would be in use. Seconds are from asking to the answer; None where a backend cannot say.

    Raises PipelineError if a request fails.
    """
    sampling = Sampling(max_tokens, concurrency=concurrency)
    _answers(model, requests[: concurrency + 1], sampling)
    model.clear_cache()
    _answers(model, requests[:1], sampling)
    asked = requests[1:] or requests
    began = time.monotonic()
    answers = _answers(model, asked, sampling)
    seconds = time.monotonic() - began
    return {
        "requests": len(asked),
        "concurrency": concurrency,
        **_percentiles("", [answer.seconds for answer in answers]),
        **_percentiles("first_token_", [answer.first_token_s for answer in answers]),
        "tokens_per_s": round(
            sum(answer.usage.completion_tokens for answer in answers) / seconds, 1
        ),
        "answers_per_s": round(len(answers) / seconds, 3),
        "peak_bytes": model.peak_bytes(),
    }


def priced(load: Mapping[str, Any] | None, price_per_hour: float | None) -> dict[str, Any] | None:
    """The same figures with `price_per_1000`: what 1,000 requests cost at that load, in the currency of the price of the machine."""
    if load is None:
        return None
    price = (
        price_per_hour / 3600 / load["answers_per_s"] * 1000
        if price_per_hour is not None and load["answers_per_s"]
        else None
    )
    return {**load, "price_per_1000": price}


def _answers(model: Model, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
    found: list[Completion] = []
    for batch in model.generate(iter(requests), sampling):
        for answer in batch:
            if isinstance(answer, Failure):
                raise PipelineError(
                    f"evaluate: a request of the load failed, {answer.reason}: {answer.message}; mend that, or set evaluate.load=null"
                )
            found.append(answer)
    return found


def _percentiles(of: str, seconds: Sequence[float | None]) -> dict[str, float | None]:
    known = [one for one in seconds if one is not None]
    return {
        f"{of}p{share}_s": round(float(np.percentile(known, share)), 4) if known else None
        for share in (50, 95)
    }
