"""The section on what is kept."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Section, runtime


class Judge(Section):
    """A model that marks every reply that is left by a rubric."""

    prompt: str = Field("prompts/judge.md", description="the rubric: a prompt file that may name reply, too", examples=["rubric.md"])
    model: str | None = Field(
        None,
        description="who judges: hub id, folder, or a server's name for it; null: the teacher itself",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    revision: str | None = Field(None, description="its revision on the hub: pin it", examples=["v1.0"])
    backend: Literal["vllm", "openai", "fake"] | None = Field(None, description="what runs it; null: teacher.backend", examples=["openai"])
    base_url: str | None = runtime(
        None, description="openai: where it answers; null: teacher.base_url", examples=["http://127.0.0.1:8001/v1"]
    )
    replies: list[str] | None = Field(None, min_length=1, description="fake: the texts it answers with", examples=[["Score: 5"]])
    max_tokens: int = Field(256, ge=1, description="longest opinion, tokens", examples=[64])
    lowest: float = Field(1.0, description="the scale's end; a mark below it is none", examples=[0.0])
    highest: float = Field(5.0, description="the scale's other end; a mark above it is none", examples=[10.0])
    least: float = Field(4.0, description="what is kept has at least this mark", examples=[3.0])
    unjudged: Literal["keep", "drop"] = Field("drop", description="what becomes of replies without a readable mark", examples=["keep"])

    @model_validator(mode="after")
    def on_the_scale(self) -> Self:
        if not self.lowest <= self.least <= self.highest:
            raise ValueError("least must lie between lowest and highest")
        return self


class Filter(Section):
    """Each filter by its name; see docs/filters.md for the reasons."""

    finished: bool = Field(True, description="drop what was cut off", examples=[False])
    min_tokens: int = Field(1, ge=0, description="shortest completion, tokens", examples=[2])
    max_tokens: int | None = Field(None, ge=1, description="longest completion, tokens", examples=[600])
    parseable: bool = Field(True, description="drop what has no readable answer, or no rationale where one is asked for", examples=[False])
    refusal: bool = Field(True, description="drop refusals", examples=[False])
    correct: bool = Field(True, description="drop answers that differ from the ground truth, where a seed has one", examples=[False])
    custom: list[str] = Field(
        [], description="filters of one's own: Python functions, sample -> None or a reason", examples=[["my_module:my_filter"]]
    )
    judge: Judge | None = Field(None, description="a model that marks replies by a rubric; null: none")
    workers: int | None = runtime(None, ge=1, description="processes that measure the samples; null: one a core", examples=[4])
    duplicate: bool = Field(True, description="drop exact repetitions of one input with one completion", examples=[False])
