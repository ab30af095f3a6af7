"""Filters: each judges all samples that are left and says of some why they are turned down.

They run in the order of `active`; a sample is turned down by the first that objects, and later ones do not see it. What a filter has to
know of a sample by itself is a `Measure`, found once and kept; its `judge` holds thresholds and whatever looks at many samples together.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import models, prompts
from pipeline.config import Config, Filter
from pipeline.filters import correctness, custom, duplicates, form, judge, phrases
from pipeline.filters.columns import Batch, Measure
from pipeline.filters.verdict import Verdict, objections


@dataclass(frozen=True)
class NamedFilter:
    """`judge(left, *columns)`: `left` are the rows (N,) int64 that no earlier filter turned down, rising; `columns` one for each of
    `measures`, over all rows. Returns the verdict of each row that is turned down. `ask(run_dir, left)` gives one more column, which is not
    found by measuring: a model is asked about the rows that are left."""

    name: str
    measures: tuple[Measure, ...]
    judge: Callable[..., dict[int, Verdict]]
    ask: Callable[[Path, NDArray[np.int64]], Any] | None = None


def identity(batch: Batch) -> list[str]:
    """The ids of the samples."""
    return [sample.id for sample in batch.samples]


IDENTITY = Measure(identity)


def active(config: Config, prompt_files: Sequence[Path]) -> list[NamedFilter]:
    """The filters that the config turns on, in the order in which they run. `prompt_files`: what samples were asked with, by number."""
    settings, task = config.filter, config.task
    lengths = settings.min_tokens > 0 or settings.max_tokens is not None
    known = {"metric": task.metric, "labels": task.labels}
    asked = {"reasoned": [prompts.load(path).wants_rationale for path in prompt_files]}
    table: list[tuple[str, bool, Measure, Callable[..., dict[int, Verdict]]]] = [
        ("finished", settings.finished, Measure(form.finished), objections),
        ("length", lengths, Measure(form.tokens), partial(form.length, least=settings.min_tokens, most=settings.max_tokens)),
        ("refusal", settings.refusal, Measure(phrases.found), partial(phrases.said, reason="refused")),
        ("parseable", settings.parseable, Measure(form.parseable, known | asked), objections),
        *((name.partition(":")[2], True, custom.measure(name), objections) for name in settings.custom),
        ("correct", settings.correct, Measure(correctness.correct, known), objections),
        ("duplicate", settings.duplicate, Measure(duplicates.content), duplicates.repeated),
    ]
    chosen = [NamedFilter(name, (measure,), decide) for name, on, measure, decide in table if on]
    if settings.judge:
        drop = settings.judge.unjudged == "drop"
        chosen.append(
            NamedFilter("judge", (), partial(judge.low, least=settings.judge.least, drop_unjudged=drop), judge.Bench(config).marks)
        )
    return chosen


def files(config: Config) -> list[Path]:
    """Outside files whose content decides what the filters say."""
    rubric = [Path(config.filter.judge.prompt)] if config.filter.judge else []
    return [*(custom.source(name) for name in config.filter.custom), *rubric]


def identities(config: Config) -> dict[str, str]:
    """What tells the models that filters ask from others of the same name."""
    asked = models.identities(judge.Bench(config).model) if config.filter.judge else {}
    return {name.replace("teacher", "judge"): identity for name, identity in asked.items()}


def workers(settings: Filter) -> int:
    """How many processes measure."""
    return settings.workers or len(os.sched_getaffinity(0))
