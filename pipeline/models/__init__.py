"""One interface for teacher, student and judge: prompts in, completions with logprobs out.

A model is anything with the methods of `Model`. `open_model` gives one by the name of its backend.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Engine, Teacher
from pipeline.models import locate
from pipeline.models.tokenizer import Tokenizer
from pipeline.prompts import Rendered
from pipeline.records import FinishReason, Usage


@dataclass(frozen=True)
class Sampling:
    """What holds for all requests of one stage. temperature 0 is greedy; logprobs is k, 0 for none."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    logprobs: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One prompt. `token_ids` is what is asked wherever the tokenizer is at hand; `rendered` where only the server has it."""

    id: str
    rendered: Rendered
    token_ids: list[int] | None
    seed: int | None = None


@dataclass(frozen=True)
class RawTopK:
    """Log-probabilities as the engine gives them: (T, 1 + k), the sampled token first, then the top k in falling order."""

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Completion:
    """What came back for one request. `token_ids` is None where a server gives no ids."""

    id: str
    text: str
    token_ids: list[int] | None
    finish_reason: FinishReason
    usage: Usage
    topk: RawTopK | None = None


@dataclass(frozen=True)
class Facts:
    """What the numbers of a model mean, for the header of a `.topk` file."""

    name: str
    revision: str | None
    logprobs_mode: str
    head_dtype: str
    engine: str


class Model(Protocol):
    facts: Facts
    tokenizer: Tokenizer | None

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """Answer every request, in any order. Yields often, sometimes nothing, so that the caller can commit and report.

        `requests` is drawn from as room becomes free. Raises PipelineError if the model cannot go on.
        """
        ...

    def close(self) -> None: ...


def open_teacher(teacher: Teacher) -> Model:
    """The teacher of a config, on the backend that it names."""
    return BACKENDS[teacher.backend](teacher)


def open_student(backend: str, folder: str, revision: str | None, engine: Engine, replies: list[str] | None) -> Model:
    """A student, given by its folder or hub id, on the backend that evaluates it."""
    return BACKENDS[backend](
        Teacher(backend=backend, model=folder, revision=revision, engine=engine, replies=replies, logprobs=0)  # type: ignore[arg-type]
    )


def tokenizer_of(teacher: Teacher) -> str:
    """Folder or hub id of the teacher's tokenizer, without starting the teacher."""
    if teacher.backend == "fake":
        from pipeline.models.fake import TOKENIZER

        return str(TOKENIZER)
    if teacher.backend == "openai" and teacher.tokenizer:
        return locate.resolve(teacher.tokenizer)
    return locate.resolve(teacher.model)


def _vllm(teacher: Teacher) -> Model:
    from pipeline.models.vllm_engine import VllmModel

    return VllmModel(teacher.model, teacher.revision, teacher.engine, teacher.logprobs)


def _openai(teacher: Teacher) -> Model:
    from pipeline.models.openai_server import ServerModel

    return ServerModel(teacher)


def _fake(teacher: Teacher) -> Model:
    from pipeline.models.fake import FakeModel

    return FakeModel(teacher.model, teacher.replies or [], teacher.engine.max_in_flight)


BACKENDS: dict[str, Callable[[Teacher], Model]] = {"vllm": _vllm, "openai": _openai, "fake": _fake}
