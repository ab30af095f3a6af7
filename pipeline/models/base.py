"""The interface of all models: requests in, completions with logprobs out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FailureReason, FinishReason, Rendered, Usage


@dataclass(frozen=True)
class Sampling:
    """What holds for all requests of one stage. temperature 0 is greedy; logprobs is k, 0 for none.

    `concurrency`: keep just so many requests in flight and time each of them; None: as many as the engine takes, untimed.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    logprobs: int = 0
    concurrency: int | None = None


@dataclass(frozen=True)
class Request:
    """One prompt. `token_ids` is what is asked wherever the tokenizer is at hand; `rendered` where only the server has it.

    `reply_ids` are the token ids of a reply that is not to be made but scored.
    """

    id: str
    rendered: Rendered
    token_ids: list[int] | None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reply_ids: list[int] | None = None


@dataclass(frozen=True)
class RawTopK:
    """Log-probabilities as the engine gives them: (T, 1 + k), the sampled token first, then the top k in falling order."""

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Completion:
    """What came back for one request. `token_ids` is None where a server gives no ids.

    `seconds` from asking to the whole answer, `first_token_s` to its first token; None where not asked for or not known.
    """

    id: str
    text: str
    token_ids: list[int] | None
    finish_reason: FinishReason
    usage: Usage
    topk: RawTopK | None = None
    seconds: float | None = None
    first_token_s: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why one request has no completion, though the model can go on with others."""

    id: str
    reason: FailureReason
    message: str


Answer = Completion | Failure


@dataclass(frozen=True)
class Facts:
    """What the numbers of a model mean, for the header of a `.topk` file."""

    name: str
    revision: str | None
    logprobs_mode: str
    head_dtype: str
    engine: str


class Model(Protocol):
    @property
    def facts(self) -> Facts: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every request, in any order. Yields often, sometimes nothing, so that the caller can commit and report.

        `requests` is drawn from as room becomes free. Raises PipelineError if the model cannot go on, EngineError if a fresh
        one could.
        """
        ...

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        """The same for the `reply_ids` tokens of every request: a completion that is just them, with what the model thinks of each."""
        ...

    def clear_cache(self) -> None:
        """Drop what is cached of earlier prompts, where that can be done. Only while nothing is in flight."""
        ...

    def peak_bytes(self) -> int | None:
        """The most memory that the model has taken since it was opened; None where it runs elsewhere."""
        ...

    def close(self) -> None: ...
