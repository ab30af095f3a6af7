"""The interface of all models: requests in, completions with logprobs out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.execution.redaction import redacted
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import FailureReason, FinishReason, Rendered, Usage


@dataclass(frozen=True)
class Sampling:
    """Settings that all requests of one stage share.

    Attributes:
        temperature: 0 is greedy decoding.
        logprobs: k of the top-k logprobs, 0 for none.
        concurrency: requests in flight, each of which is timed. If None, the engine decides how
            many, and none is timed.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    logprobs: int = 0
    concurrency: int | None = None


@dataclass(frozen=True)
class Request:
    """One prompt. A model with a tokenizer reads `token_ids`, a text-only server reads `rendered`.

    `reply_ids` are the token ids of a reply to score instead of generating one.
    """

    id: str
    rendered: Rendered
    token_ids: list[int] | None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reply_ids: list[int] | None = None

    @property
    def prompt_ids(self) -> list[int]:
        """Return `token_ids`, which every model with a tokenizer gets."""
        assert self.token_ids is not None
        return self.token_ids


@dataclass(frozen=True)
class RawTopK:
    """Logprobs as the engine gives them: the written token first, then the top k from high to low.

    Both arrays have the shape (T, 1 + k).
    """

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Completion:
    """The reply to one request. `token_ids` is None where a server gives no ids.

    `seconds` is the time from the request to the end of the reply, `first_token_s` to its first
    token. They are None if no times were asked for, or the server gives none.
    """

    id: str
    text: str
    token_ids: list[int] | None
    finish_reason: FinishReason
    usage: Usage
    topk: RawTopK | None = None
    seconds: float | None = None
    first_token_s: float | None = None
    reasoning: str | None = None  # what a server gives beside the text


@dataclass(frozen=True)
class Failure:
    """Why one request has no completion. The model can still answer other requests."""

    id: str
    reason: FailureReason
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redacted(self.message))


Answer = Completion | Failure


@dataclass(frozen=True)
class Facts:
    """Facts about a model that the header of a `.topk` file stores."""

    name: str
    revision: str | None
    logprobs_mode: str
    head_dtype: str
    engine: str


class Model(Protocol):
    """A teacher or a student that answers requests."""

    @property
    def facts(self) -> Facts: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every request, in any order.

        Yields often, sometimes an empty list, so that the caller can commit and report progress.
        Takes the next of `requests` when the model can start one. Raises PipelineError if the model
        cannot continue, and EngineError if a new instance could.
        """
        ...

    def score(self, requests: Iterable[Request], k: int) -> Iterator[list[Answer]]:
        """Complete every request with its own `reply_ids` and their top-k logprobs."""
        ...

    def clear_cache(self) -> None:
        """Clear the prefix cache. Call it only while no request is in flight."""
        ...

    def peak_bytes(self) -> int | None:
        """Return the bytes of memory that the model uses; None if it runs elsewhere."""
        ...

    def close(self) -> None:
        """Release the engine and its memory."""
        ...


class NothingToRelease:
    """Methods of a Model that has no cache and no memory of its own to release or measure."""

    def clear_cache(self) -> None:
        """Do nothing."""

    def peak_bytes(self) -> int | None:
        """Return None: the memory of this model is not measured."""
        return None

    def close(self) -> None:
        """Do nothing."""
