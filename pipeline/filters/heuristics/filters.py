"""The heuristic filters that a config turns on."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.config.filter import Format, Language
from pipeline.data import prompts
from pipeline.data.prompts import prompt_files
from pipeline.filters.heuristics import (
    answer_format,
    answer_leak,
    completeness,
    custom,
    language,
    phrases,
    repetition,
)
from pipeline.filters.measures import Measure
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.verdict import Verdict, reject_as_measured
from pipeline.records import Seed


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters that look at each reply by itself."""
    settings, task = config.filter, config.task
    if settings.finished:
        yield NamedFilter.by_measure("finished", completeness.finished)
    if settings.min_tokens > 0 or settings.max_tokens is not None:
        judge = partial(completeness.length, least=settings.min_tokens, most=settings.max_tokens)
        yield NamedFilter("length", (Measure(completeness.tokens),), judge)
    if settings.refusal:
        yield _phrases("refusal", "refused")
    if settings.boilerplate:
        yield _phrases("boilerplate", "boilerplate")
    if settings.parseable:
        yield NamedFilter.by_measure(
            "parseable",
            completeness.parseable,
            metric=task.metric,
            labels=task.labels,
            reasoned=[prompts.load(path).asks_for_rationale for path in prompt_files(config)],
        )
    if settings.format:
        yield NamedFilter("format", tuple(_formats(settings.format)), _reject_by_any)
    if settings.language:
        yield _language(settings.language)
    if settings.repetition:
        limits = settings.repetition
        most = (limits.lines, limits.words, repetition.MAX_LOOP, repetition.MAX_RUN)
        judge = partial(repetition.repeated, most=most)
        yield NamedFilter("repetition", (Measure(repetition.measure),), judge)
    if settings.answer_before_rationale:
        yield NamedFilter.by_measure("answer_before_rationale", answer_leak.answered_first)
    if settings.leak:
        yield NamedFilter.by_measure("leak", answer_leak.leaked, fields=settings.leak.fields)
    for name in settings.custom:
        function = name.partition(":")[2]
        yield NamedFilter(f"custom.{function}", (custom.measure(name),), reject_as_measured)


def check(config: Config, seeds: Sequence[Seed]) -> None:
    """Raise PipelineError if a language is unknown or the pattern is not a regular expression."""
    settings = config.filter
    if settings.language:
        language.check(settings.language.allowed)
    if settings.format and settings.format.pattern is not None:
        answer_format.check_pattern(settings.format.pattern)


def files(config: Config) -> list[Path]:
    """Return the files of custom filters and the schema of the answer."""
    paths = [path for name in config.filter.custom for path in custom.files(name)]
    if config.filter.format and config.filter.format.schema_file:
        paths.append(Path(config.filter.format.schema_file))
    return paths


def _phrases(name: str, reason: phrases.Reason) -> NamedFilter:
    judge = partial(phrases.contains, reason=reason)
    return NamedFilter(name, (Measure(phrases.first_phrases),), judge)


def _language(settings: Language) -> NamedFilter:
    measured = settings.model_dump() | {"min_letters": language.MIN_LETTERS}
    judge = partial(language.other, parts=settings.parts, least=language.MIN_SHARE)
    return NamedFilter("language", (Measure(language.likelihood, measured),), judge)


def _formats(settings: Format) -> Iterator[Measure]:
    if settings.pattern is not None:
        yield Measure(answer_format.matches, {"pattern": settings.pattern})
    if settings.schema_file is not None:
        schema = answer_format.read_schema(settings.schema_file)
        yield Measure(answer_format.valid, {"schema": schema})
    if settings.choices is not None:
        yield Measure(answer_format.listed, {"choices": settings.choices})


def _reject_by_any(rows: NDArray[np.int64], *columns: Sequence[Any]) -> dict[int, Verdict]:
    """Reject each row that some measure rejects, with the reason of the first such measure."""
    verdicts: dict[int, Verdict] = {}
    for column in columns:
        verdicts = reject_as_measured(rows, column) | verdicts
    return verdicts
