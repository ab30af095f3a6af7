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
    """What the teacher is asked for."""

    prompt: PromptFiles = Field(
        description="the teacher's prompt file, or several: each seed is asked by every one",
        examples=[["prompts/word_problem.md"]],
    )
    samples: int = Field(1, ge=1, description="completions a seed and prompt", examples=[4])
    seed: int = Field(
        0, ge=0, description="every request's sampling seed is derived from it", examples=[7]
    )
    shard_size: int = Field(512, ge=1, description="seeds a shard file", examples=[250])
    max_error_rate: float = runtime(
        0.1,
        ge=0,
        le=1,
        description="stop when more than this share of the requests fails",
        examples=[0.02],
    )


class Score(Section):
    """Top-k logprobs of text that is already there, by prefill."""

    source: str = Field(
        "kept",
        description="kept (rows after filter), targets (the seeds' ground truth), or another run's folder",
        examples=["targets"],
    )
    logprobs: int = Field(
        64,
        ge=1,
        le=4096,
        description="k of the top-k logprobs asked of the engine for each token",
        examples=[32],
    )
