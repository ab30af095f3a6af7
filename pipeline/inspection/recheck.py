"""Compare stored distributions with a fresh pass of the teacher, and two fresh passes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.errors import PipelineError
from pipeline.models.backends import open_teacher
from pipeline.models.base import Completion, Model, RawTopK, Request
from pipeline.records import Sample, digest
from pipeline.storage.files import read_object
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder


def recheck(run_dir: Path, stage: str, rows: int) -> str:
    """Score `rows` samples of a finished stage twice; say how far stored and fresh passes differ.

    The measure is KL(stored || fresh) in nats/token, over the exact entries and one bucket for all
    other tokens.
    """
    folder = run_dir / stage
    config = Config.model_validate(read_object(folder / "begun.json", "config")["config"])
    samples = _evenly_spaced(Samples(folder), rows)
    frames = TopKFolder(folder)
    stored = {sample.id: frames.topk_of(sample) for sample in samples}
    k = max(config.teacher.logprobs, config.score.logprobs)
    model = open_teacher(config.teacher.model_copy(update={"logprobs": k}), folder / "engine.log")
    try:
        requests = [_request(folder, model, sample) for sample in samples]
        first = _score(model, requests, k)
        second = _score(model, requests[::-1], k)  # in other batches
    finally:
        model.close()
    to_stored = [
        _divergence(_exact(topk), first[identifier], topk) for identifier, topk in stored.items()
    ]
    to_second = [
        _divergence(_probabilities(topk, second[identifier]), first[identifier], topk)
        for identifier, topk in stored.items()
    ]
    tokens = sum(map(len, to_stored))
    return (
        f"{folder}: {len(samples):,} samples, {tokens:,} tokens scored again: KL(stored || fresh) "
        f"{np.concatenate(to_stored).mean():.5f} nats/token; "
        f"between two fresh passes {np.concatenate(to_second).mean():.5f} nats/token"
    )


def _evenly_spaced(samples: Samples, rows: int) -> list[Sample]:
    places = np.linspace(0, len(samples) - 1, min(rows, len(samples)))
    return [samples[number] for number in sorted(set(places.astype(int).tolist()))]


def _request(folder: Path, model: Model, sample: Sample) -> Request:
    """Render the prompt again; raises PipelineError if it differs from the prompt that was sent."""
    assert model.tokenizer is not None
    prompt = prompts.load(folder / "prompts" / f"{sample.prompt}.md")
    rendered = prompt.render(sample.seed, model.tokenizer.control_tokens)
    token_ids = model.tokenizer.encode(rendered)
    if digest(token_ids, length=8) != sample.prompt_digest:
        raise PipelineError(
            f"{folder}: sample {sample.id}: its prompt renders to other tokens than were sent; "
            "check whether the teacher's tokenizer has changed"
        )
    return Request(sample.id, rendered, token_ids, reply_ids=sample.token_ids)


def _score(model: Model, requests: Sequence[Request], k: int) -> dict[str, RawTopK]:
    scored: dict[str, RawTopK] = {}
    for answers in model.score(iter(requests), k):
        for answer in answers:
            if not isinstance(answer, Completion) or answer.topk is None:
                raise PipelineError(f"sample {answer.id}: cannot be scored ({answer})")
            scored[answer.id] = answer.topk
    return scored


def _exact(topk: TopK) -> NDArray[np.float64]:
    """Return the probabilities (T, K) of the exact entries; other entries get 0."""
    probability = np.exp(topk.logprobs.astype(np.float64))
    return np.where(_is_exact(topk), probability, 0.0)


def _is_exact(topk: TopK) -> NDArray[np.bool_]:  # (T, K)
    return np.arange(topk.ids.shape[1]) < topk.exact[:, None]


def _probabilities(topk: TopK, raw: RawTopK) -> NDArray[np.float64]:
    """Return the probabilities (T, K) that a fresh pass `raw` gives to the exact entries of `topk`.

    An entry outside the top k of the fresh pass gets the lowest probability of that top k.
    """
    same = topk.ids[:, :, None] == raw.ids[:, None, :]  # (T, K, 1 + k)
    logprobs = np.where(same, raw.logprobs[:, None, :], -np.inf).max(axis=2)
    lowest = np.where(np.isneginf(raw.logprobs), np.inf, raw.logprobs).min(axis=1, keepdims=True)
    logprobs = np.where(np.isneginf(logprobs), lowest, logprobs)
    return np.where(_is_exact(topk), np.exp(logprobs.astype(np.float64)), 0.0)


def _divergence(p: NDArray[np.float64], raw: RawTopK, topk: TopK) -> NDArray[np.float64]:
    """Return KL(stored || fresh) for each token, (T,); `p` are the stored probabilities (T, K).

    Only exact entries are compared one by one; all other tokens form one bucket.
    """
    q = _probabilities(topk, raw)
    p = np.concatenate([p, np.clip(1.0 - p.sum(axis=1, keepdims=True), 0.0, 1.0)], axis=1)
    q = np.concatenate([q, np.clip(1.0 - q.sum(axis=1, keepdims=True), 1e-9, 1.0)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(axis=1)
