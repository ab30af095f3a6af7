"""A deterministic fake model: a backend without weights, to test the pipeline quickly.

It answers every request with one of its texts, chosen by a hash of the request, in tokens of its
own byte-level tokenizer, with random but well-formed distributions. Metrics measured on it mean
nothing.
"""

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.config import Engine
from pipeline.errors import EngineError
from pipeline.models.base import (
    Answer,
    Completion,
    Facts,
    Failure,
    NothingToRelease,
    RawTopK,
    Request,
    Sampling,
)
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FinishReason, Usage

TOKENIZER = Path(__file__).parent / "fake_tokenizer"


class FakeModel(NothingToRelease):
    """Answers with `replies`, two of which have a special meaning.

    "!refuse" fails the request. "!die" raises EngineError, as if the engine had died.
    """

    def __init__(self, name: str, replies: Sequence[str], engine: Engine, delay_s: float = 0.0):
        self.facts = Facts(name, None, "raw_logprobs", "float32", "fake 2")
        self.tokenizer = Tokenizer(str(TOKENIZER))
        self._replies = [(text, self.tokenizer.encode_reply(text)) for text in replies]
        self._engine = engine
        self._delay_s = delay_s

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        def answer(request: Request) -> Answer:
            return self._generated(request, sampling)

        return self._batches(requests, answer, sampling.concurrency)

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        def answer(request: Request) -> Answer:
            random = _generator(self.facts.name, request)
            return self._completion(request, request.reply_ids or [], "stop", k, random)

        return self._batches(requests, answer)

    def _batches(
        self,
        requests: Iterable[Request],
        answer: Callable[[Request], Answer],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        remaining = iter(requests)
        size = min(self._engine.max_in_flight, concurrency or self._engine.max_in_flight)
        while batch := list(itertools.islice(remaining, size)):
            began = time.monotonic()
            time.sleep(self._delay_s)
            # in reverse, so that no caller can rely on the order
            answers = [self._too_long(request) or answer(request) for request in reversed(batch)]
            if concurrency:
                seconds = time.monotonic() - began
                answers = [_timed(each, seconds) for each in answers]
            yield answers

    def _too_long(self, request: Request) -> Failure | None:
        limit = self._engine.max_model_len
        length = len(request.token_ids or ()) + len(request.reply_ids or ())
        if limit is None or length < limit:
            return None
        message = f"{length} tokens, and engine.max_model_len is {limit}"
        return Failure(request.id, "too_long", message)

    def _generated(self, request: Request, sampling: Sampling) -> Answer:
        seed = request.seed if sampling.temperature else ""
        random = _generator(self.facts.name, request, seed)
        text, reply_ids = self._replies[int(random.integers(len(self._replies)))]
        if text == "!refuse":
            return Failure(request.id, "refused", "the fake teacher was told to refuse this")
        if text == "!die":
            raise EngineError(f"request {request.id}: the fake teacher was told to fail here")
        ids = reply_ids[: sampling.max_tokens]
        finish_reason: FinishReason = "stop" if len(ids) == len(reply_ids) else "length"
        return self._completion(request, ids, finish_reason, sampling.logprobs, random)

    def _completion(
        self,
        request: Request,
        ids: list[int],
        finish_reason: FinishReason,
        k: int,
        random: np.random.Generator,
    ) -> Completion:
        usage = Usage(prompt_tokens=len(request.prompt_ids), completion_tokens=len(ids))
        topk = _distributions(ids, k, self.tokenizer.vocab_size, random) if k else None
        return Completion(request.id, self.tokenizer.decode(ids), ids, finish_reason, usage, topk)


def _timed(answer: Answer, seconds: float) -> Answer:
    """Add times, as if every token had taken the same time."""
    if isinstance(answer, Failure):
        return answer
    first_token_s = seconds / max(answer.usage.completion_tokens, 1)
    return dataclasses.replace(answer, seconds=seconds, first_token_s=first_token_s)


def _generator(*parts: object) -> np.random.Generator:
    """Return a random generator seeded by the parts; a request counts by its token ids."""
    key = " ".join(str(part.token_ids if isinstance(part, Request) else part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))


def _distributions(ids: list[int], k: int, vocab_size: int, random: np.random.Generator) -> RawTopK:
    """Draw distributions over the whole vocabulary; the written token is usually the most likely.

    Returns arrays of the shape (T, 1 + k).
    """
    logits = random.normal(0.0, 2.0, (len(ids), vocab_size))
    logits[np.arange(len(ids)), ids] += 8.0
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logprobs, axis=1)[:, : min(k, vocab_size)]
    columns = np.concatenate([np.array(ids)[:, None], top], axis=1)
    values = np.take_along_axis(logprobs, columns, axis=1)
    return RawTopK(columns.astype(np.int32), values.astype(np.float32))
