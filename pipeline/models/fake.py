"""The deterministic fake: a real backend that needs no weights, for tests of logic.

It answers every request with one of the texts it was given, chosen by a hash of the request, token by token of its own byte-level
tokenizer, with made-up but well-formed distributions. Figures measured on it mean nothing.
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
from pipeline.models.base import Answer, Completion, Facts, Failure, RawTopK, Request, Sampling
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FinishReason, Usage

TOKENIZER = Path(__file__).parent / "fake_tokenizer"


class FakeModel:
    """Answers with `replies`. Some of them are orders: "!refuse" to turn the request down, "!die" to fail as an engine that dies."""

    def __init__(self, name: str, replies: Sequence[str], engine: Engine, delay_s: float = 0.0):
        self.facts = Facts(name, None, "raw_logprobs", "float32", "fake 2")
        self.tokenizer = Tokenizer(str(TOKENIZER))
        self._replies = [(text, self.tokenizer.encode_reply(text)) for text in replies]
        self._engine = engine
        self._delay_s = delay_s

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        return self._feed(
            requests, lambda request: self._answer(request, sampling), sampling.concurrency
        )

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        return self._feed(
            requests,
            lambda request: self._completed(
                request, request.reply_ids or [], "stop", k, _dice(self.facts.name, request)
            ),
        )

    def clear_cache(self) -> None:
        pass

    def peak_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        pass

    def _feed(
        self,
        requests: Iterable[Request],
        answer: Callable[[Request], Answer],
        concurrency: int | None = None,
    ) -> Iterator[list[Answer]]:
        waiting = iter(requests)
        most = self._engine.max_in_flight
        while batch := list(itertools.islice(waiting, min(most, concurrency or most))):
            began = time.monotonic()
            time.sleep(self._delay_s)
            # the last come first, so that nothing can rely on the order
            answers = [self._too_long(request) or answer(request) for request in reversed(batch)]
            yield (
                [_timed(one, time.monotonic() - began) for one in answers]
                if concurrency
                else answers
            )

    def _too_long(self, request: Request) -> Failure | None:
        length, limit = (
            len(request.token_ids or ()) + len(request.reply_ids or ()),
            self._engine.max_model_len,
        )
        if limit is None or length < limit:
            return None
        return Failure(
            request.id, "too_long", f"{length} tokens, and engine.max_model_len is {limit}"
        )

    def _answer(self, request: Request, sampling: Sampling) -> Answer:
        random = _dice(self.facts.name, request, request.seed if sampling.temperature else "")
        text, whole = self._replies[int(random.integers(len(self._replies)))]
        if text == "!refuse":
            return Failure(request.id, "refused", "the fake teacher was told to refuse this")
        if text == "!die":
            raise EngineError(f"request {request.id}: the fake teacher was told to fail here")
        ids = whole[: sampling.max_tokens]
        return self._completed(
            request, ids, "stop" if len(ids) == len(whole) else "length", sampling.logprobs, random
        )

    def _completed(
        self,
        request: Request,
        ids: list[int],
        finish_reason: FinishReason,
        k: int,
        random: np.random.Generator,
    ) -> Completion:
        assert request.token_ids is not None
        usage = Usage(prompt_tokens=len(request.token_ids), completion_tokens=len(ids))
        topk = _distributions(ids, k, self.tokenizer.vocab_size, random) if k else None
        return Completion(request.id, self.tokenizer.decode(ids), ids, finish_reason, usage, topk)


def _timed(answer: Answer, seconds: float) -> Answer:
    """As if the first token had come after one share of so many equal ones."""
    if isinstance(answer, Failure):
        return answer
    return dataclasses.replace(
        answer, seconds=seconds, first_token_s=seconds / max(answer.usage.completion_tokens, 1)
    )


def _dice(*parts: object) -> np.random.Generator:
    key = " ".join(str(part.token_ids if isinstance(part, Request) else part) for part in parts)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))


def _distributions(ids: list[int], k: int, vocab_size: int, random: np.random.Generator) -> RawTopK:
    """(T, 1 + k): a distribution over the whole vocabulary, mostly led by the token that was written."""
    logits = random.normal(0.0, 2.0, (len(ids), vocab_size))
    logits[np.arange(len(ids)), ids] += 8.0
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logprobs, axis=1)[:, : min(k, vocab_size)]
    columns = np.concatenate([np.array(ids)[:, None], top], axis=1)
    return RawTopK(
        columns.astype(np.int32), np.take_along_axis(logprobs, columns, axis=1).astype(np.float32)
    )
