"""The deterministic fake: a real backend that needs no weights, for tests of logic.

It answers every request with one of the texts it was given, chosen by a hash of the request, token by token of its own byte-level
tokenizer, with made-up but well-formed distributions. Figures measured on it mean nothing.
"""

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.models import Completion, Facts, RawTopK, Request, Sampling
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Usage

TOKENIZER = Path(__file__).parent / "fake_tokenizer"


class FakeModel:
    """Answers with `replies`. A reply of "!refuse" makes the backend fail, as an engine would that dies."""

    def __init__(self, name: str, replies: Sequence[str], max_in_flight: int, delay_s: float = 0.0):
        self.facts = Facts(name, None, "raw_logprobs", "float32", "fake 1")
        self.tokenizer = Tokenizer(str(TOKENIZER))
        self._replies = [(text, self.tokenizer.encode_reply(text)) for text in replies]
        self._max_in_flight = max_in_flight
        self._delay_s = delay_s

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        waiting = iter(requests)
        while batch := list(itertools.islice(waiting, self._max_in_flight)):
            time.sleep(self._delay_s)
            # the last come first, so that nothing can rely on the order
            yield [self._answer(request, sampling) for request in reversed(batch)]

    def close(self) -> None:
        pass

    def _answer(self, request: Request, sampling: Sampling) -> Completion:
        assert request.token_ids is not None
        key = f"{self.facts.name} {request.token_ids} {request.seed if sampling.temperature else ''}"
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
        text, whole = self._replies[int(random.integers(len(self._replies)))]
        if text == "!refuse":
            raise PipelineError(f"request {request.id}: the fake teacher was told to fail here")
        ids = whole[: sampling.max_tokens]
        return Completion(
            id=request.id,
            text=self.tokenizer.decode(ids),
            token_ids=ids,
            finish_reason="stop" if len(ids) == len(whole) else "length",
            usage=Usage(prompt_tokens=len(request.token_ids), completion_tokens=len(ids)),
            topk=_distributions(ids, sampling.logprobs, self.tokenizer.vocab_size, random) if sampling.logprobs else None,
        )


def _distributions(ids: list[int], k: int, vocab_size: int, random: np.random.Generator) -> RawTopK:
    """(T, 1 + k): a distribution over the whole vocabulary, mostly led by the token that was written."""
    logits = random.normal(0.0, 2.0, (len(ids), vocab_size))
    logits[np.arange(len(ids)), ids] += 8.0
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    top = np.argsort(-logprobs, axis=1)[:, : min(k, vocab_size)]
    columns = np.concatenate([np.array(ids)[:, None], top], axis=1)
    return RawTopK(columns.astype(np.int32), np.take_along_axis(logprobs, columns, axis=1).astype(np.float32))
