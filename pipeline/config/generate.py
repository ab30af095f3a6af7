"""Settings of `generate` and `score`."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from pipeline.config.base import Section, runtime

PromptFiles = Annotated[
    list[str],
    Field(min_length=1),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class Generate(Section):
    """The teacher's prompt, and how many completions it writes."""

    prompt: PromptFiles = Field(examples=[["prompts/word_problem.md"]])
    """The teacher's prompt file, or a list; the teacher answers every example with each prompt."""
    samples: int = Field(1, ge=1, examples=[4])
    """Completions per example and prompt."""
    seed: int = Field(0, ge=0, examples=[7])
    """Random seed from which every request's sampling seed is derived."""
    shard_size: int = Field(512, ge=1, examples=[250])
    """Examples per shard file."""
    max_error_rate: float = runtime(0.1, ge=0, le=1, examples=[0.02])
    """Stop when more than this share of the requests fails."""


class Score(Section):
    """Top-k logprobs of existing text, computed without sampling (prefill)."""

    source: str = Field("kept", examples=["targets"])
    """kept (rows after filter), targets (ground truth of the examples), or a run's folder."""
    logprobs: int = Field(64, ge=1, le=4096, examples=[32])
    """k of the top-k logprobs for each token."""
