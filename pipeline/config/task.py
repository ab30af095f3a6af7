"""Settings of the task: its examples, its metric and the verifier."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.base import Section


class Source(Section):
    """Where seeds come from: a .jsonl, .csv or .parquet file, or a Hugging Face dataset."""

    path: str | None = Field(
        None, description="file, its format told by its ending", examples=["data/mine.jsonl"]
    )
    dataset: str | None = Field(
        None, description="hub id of a dataset; this or path", examples=["openai/gsm8k"]
    )
    name: str | None = Field(None, description="the dataset's configuration", examples=["main"])
    split: str = Field("train", description="the dataset's split", examples=["validation"])
    revision: str | None = Field(
        None, description="the dataset's revision: pin it", examples=["v1.0"]
    )
    id_field: str = Field(
        "id",
        description="column with the seed's id; without one, ids are made from the content",
        examples=["key"],
    )
    target_field: str = Field(
        "target", description="column with the ground truth, if any", examples=["answer"]
    )
    target_pattern: str | None = Field(
        None,
        description="regular expression whose first group is the ground truth in that column",
        examples=["A=(.+)"],
    )
    group_field: str = Field(
        "group", description="column with the slice for reports, if any", examples=["language"]
    )
    limit: int | None = Field(None, ge=1, description="take only the first so many", examples=[48])

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("needs either path or dataset")
        if self.target_pattern is not None and _groups(self.target_pattern) < 1:
            raise ValueError(
                f"target_pattern {self.target_pattern!r} is no regular expression with a group in parentheses"
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
    """How far a check of one answer may go, by the metrics math, json and code. Beyond it the answer is unknown, not wrong."""

    timeout_s: float = Field(
        4.0, gt=0, le=600, description="longest check, seconds of the clock", examples=[10.0]
    )
    memory_mib: int = Field(1024, ge=256, description="most memory of a check", examples=[512])
    json_schema: str | None = Field(
        None,
        description="json: file with a JSON schema that answers must fit, too",
        examples=["answer.schema.json"],
    )


class Task(Section):
    """What the student is for."""

    seeds: SeedSource = Field(description="what the teacher is asked")
    eval_seeds: SeedSource = Field(description="held-out seeds with ground truth, never trained on")
    metric: Literal["label", "exact", "numeric", "math", "json", "code", "rouge_l", "chrf"] = Field(
        "exact",
        description="how an answer is held against the ground truth: docs/reference/metrics.md",
        examples=["numeric"],
    )
    verifier: Verifier = Verifier()
    labels: list[str] | None = Field(
        None,
        min_length=2,
        description="closed set of answers of a label task",
        examples=[["spam", "normal"]],
    )

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
