"""Settings of the task: its examples, its metric and the verifier."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.base import Section


class Source(Section):
    """Where examples come from: a .jsonl, .csv or .parquet file, or a Hugging Face dataset."""

    path: str | None = Field(None, examples=["data/mine.jsonl"])
    """File; its ending gives its format."""
    dataset: str | None = Field(None, examples=["openai/gsm8k"])
    """Hub id of a dataset. Set this or path, not both."""
    name: str | None = Field(None, examples=["main"])
    """The dataset's configuration."""
    split: str = Field("train", examples=["validation"])
    """The dataset's split."""
    revision: str | None = Field(None, examples=["v1.0"])
    """The dataset's revision; pin it."""
    id_field: str = Field("id", examples=["key"])
    """Column with the id. Without one, ids are made from the content."""
    target_field: str = Field("target", examples=["answer"])
    """Column with the ground truth, if any."""
    target_pattern: str | None = Field(None, examples=["A=(.+)"])
    """Regular expression whose first group is the ground truth in that column."""
    group_field: str = Field("group", examples=["language"])
    """Column with the group for reports, if any."""
    limit: int | None = Field(None, ge=1, examples=[48])
    """Only the first N examples."""

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("needs either path or dataset")
        if self.target_pattern is not None and _groups(self.target_pattern) < 1:
            raise ValueError(
                f"target_pattern {self.target_pattern!r} is no regular expression "
                "with a group in parentheses"
            )
        return self


def _groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error:
        return 0


SeedSource = Annotated[
    Source, BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value)
]


class Verifier(Section):
    """Limits of the check of one answer, for the metrics math, json and code.

    If the check of an answer exceeds a limit, its result is unknown, not wrong.
    """

    timeout_s: float = Field(4.0, gt=0, le=600, examples=[10.0])
    """Longest time for one check, in seconds."""
    json_schema: str | None = Field(None, examples=["answer.schema.json"])
    """json: file with a JSON schema that answers must also fit."""


class Task(Section):
    """The task: its examples, its metric, and how answers are checked."""

    seeds: SeedSource = Field()
    """Examples that the teacher answers."""
    eval_seeds: SeedSource = Field()
    """Held-out examples with ground truth, never trained on."""
    metric: Literal["label", "exact", "numeric", "math", "json", "code", "rouge_l", "chrf"] = Field(
        "exact", examples=["numeric"]
    )
    """How an answer is compared with the ground truth: docs/reference/metrics.md."""
    verifier: Verifier = Verifier()
    labels: list[str] | None = Field(None, min_length=2, examples=[["spam", "normal"]])
    """Closed set of answers of a label task."""

    @model_validator(mode="after")
    def labels_of_label(self) -> Self:
        if (self.metric == "label") != (self.labels is not None):
            raise ValueError("metric 'label' and a list of labels belong together")
        if self.verifier.json_schema is not None and self.metric != "json":
            raise ValueError("verifier.json_schema is for metric 'json'")
        plain = [label.strip().casefold() for label in self.labels or ()]
        if len(set(plain)) < len(plain) or "" in plain:
            raise ValueError("labels must differ in more than case, and none may be empty")
        return self
