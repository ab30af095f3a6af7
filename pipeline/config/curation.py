"""The section on what is kept."""

from pydantic import Field

from pipeline.config.section import Section, runtime


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
    workers: int | None = runtime(None, ge=1, description="processes that measure the samples; null: one a core", examples=[4])
    duplicate: bool = Field(True, description="drop exact repetitions of one input with one completion", examples=[False])
