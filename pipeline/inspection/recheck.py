"""Does a fresh pass of the teacher still think what is stored? By how much do two of its own passes differ?"""

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
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder


def recheck(run_dir: Path, stage: str, rows: int) -> str:
    """Score `rows` samples of a finished stage twice, and say how far the stored distributions and the second pass are from the first.

    KL(stored || fresh), nats a token, over the exact entries and all the rest as one bucket; the rest of a token is what neither names.
    """
    folder = run_dir / stage
    config = Config.model_validate(read_json(folder / "begun.json")["config"])
    samples = _spread(Samples(folder), rows)
    frames = TopKFolder(folder)
    stored = [frames.of(sample) for sample in samples]
    teacher = config.teacher.model_copy(
        update={"logprobs": max(config.teacher.logprobs, config.score.logprobs)}
    )
    model = open_teacher(teacher, folder / "engine.log")
    try:
        requests = [_request(folder, model, sample) for sample in samples]
        first = _pass(model, requests, teacher.logprobs)
        second = _pass(model, requests[::-1], teacher.logprobs)  # in other batches
    finally:
        model.close()
    now = [
        _divergence(_exact(topk), first[sample.id], topk)
        for sample, topk in zip(samples, stored, strict=True)
    ]
    again = [
        _divergence(_at(topk, second[sample.id]), first[sample.id], topk)
        for sample, topk in zip(samples, stored, strict=True)
    ]
    return (
        f"{folder}: {len(samples):,} samples, {sum(map(len, now)):,} tokens scored anew: KL(stored || fresh) "
        f"{np.concatenate(now).mean():.5f} nat a token; of the teacher with itself run twice {np.concatenate(again).mean():.5f}"
    )


def _spread(samples: Samples, rows: int) -> list[Sample]:
    numbers = sorted({int(at) for at in np.linspace(0, len(samples) - 1, min(rows, len(samples)))})
    return [samples[number] for number in numbers]


def _request(folder: Path, model: Model, sample: Sample) -> Request:
    """The prompt made anew; it must be the one that was asked."""
    assert model.tokenizer is not None
    rendered = prompts.load(folder / "prompts" / f"{sample.prompt}.md").render(
        sample.seed, model.tokenizer.control_tokens
    )
    token_ids = model.tokenizer.encode(rendered)
    if digest(token_ids, length=8) != sample.prompt_digest:
        raise PipelineError(
            f"{folder}: sample {sample.id}: its prompt cannot be made again as it was; has the tokenizer changed?"
        )
    return Request(sample.id, rendered, token_ids, reply_ids=sample.token_ids)


def _pass(model: Model, requests: Sequence[Request], k: int) -> dict[str, RawTopK]:
    found: dict[str, RawTopK] = {}
    for answers in model.score(iter(requests), k):
        for answer in answers:
            if not isinstance(answer, Completion) or answer.topk is None:
                raise PipelineError(f"sample {answer.id}: cannot be scored ({answer})")
            found[answer.id] = answer.topk
    return found


def _exact(topk: TopK) -> NDArray[np.float64]:
    """(T, K) probabilities of the exact entries, 0 elsewhere."""
    return np.where(
        np.arange(topk.ids.shape[1]) < topk.exact[:, None],
        np.exp(topk.logprobs.astype(np.float64)),
        0.0,
    )


def _at(topk: TopK, raw: RawTopK) -> NDArray[np.float64]:
    """(T, K) probabilities that a pass gives the exact entries; one that its top k does not name gets the least of them."""
    same = topk.ids[:, :, None] == raw.ids[:, None, :]  # (T, K, 1 + k)
    found = np.where(same, raw.logprobs[:, None, :], -np.inf).max(axis=2)
    least = np.where(np.isneginf(raw.logprobs), np.inf, raw.logprobs).min(axis=1, keepdims=True)
    probability = np.exp(np.where(np.isneginf(found), least, found).astype(np.float64))
    return np.where(np.arange(topk.ids.shape[1]) < topk.exact[:, None], probability, 0.0)


def _divergence(one: NDArray[np.float64], other: RawTopK, topk: TopK) -> NDArray[np.float64]:
    """(T,) KL between probabilities of the exact entries and those of a pass, all other tokens as one bucket."""
    p = np.concatenate([one, np.clip(1.0 - one.sum(axis=1, keepdims=True), 0.0, 1.0)], axis=1)
    there = _at(topk, other)
    q = np.concatenate([there, np.clip(1.0 - there.sum(axis=1, keepdims=True), 1e-9, 1.0)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(axis=1)
