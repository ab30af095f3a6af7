"""Which heuristic filters a config turns on."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config, Filter
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
    """What can be seen of a reply by itself."""
    settings, task = config.filter, config.task
    if settings.finished:
        yield NamedFilter("finished", (Measure(completeness.finished),), reject_as_measured)
    if settings.min_tokens > 0 or settings.max_tokens is not None:
        bounds = partial(completeness.length, least=settings.min_tokens, most=settings.max_tokens)
        yield NamedFilter("length", (Measure(completeness.tokens),), bounds)
    if settings.refusal:
        yield NamedFilter(
            "refusal",
            (Measure(phrases.first_phrases),),
            partial(phrases.contains, reason="refused"),
        )
    if settings.boilerplate:
        yield NamedFilter(
            "boilerplate",
            (Measure(phrases.first_phrases),),
            partial(phrases.contains, reason="boilerplate"),
        )
    if settings.parseable:
        reasoned = [prompts.load(path).asks_for_rationale for path in prompt_files(config)]
        known = {"metric": task.metric, "labels": task.labels, "reasoned": reasoned}
        yield NamedFilter(
            "parseable", (Measure(completeness.parseable, known),), reject_as_measured
        )
    if settings.format:
        measures = tuple(_formats(settings))
        yield NamedFilter("format", measures, _any)
    if settings.language:
        parts = settings.language.parts
        told = {
            "allowed": settings.language.allowed,
            "parts": parts,
            "min_letters": settings.language.min_letters,
        }
        yield NamedFilter(
            "language",
            (Measure(language.likelihood, told),),
            partial(language.other, parts=parts, least=settings.language.least),
        )
    if settings.repetition:
        repeats = settings.repetition
        most = (repeats.lines, repeats.words, repeats.loop, repeats.run)
        yield NamedFilter(
            "repetition", (Measure(repetition.measure),), partial(repetition.repeated, most=most)
        )
    if settings.answer_before_rationale:
        yield NamedFilter(
            "answer_before_rationale", (Measure(answer_leak.answered_first),), reject_as_measured
        )
    if settings.leak:
        yield NamedFilter(
            "leak",
            (Measure(answer_leak.leaked, {"fields": settings.leak.fields}),),
            reject_as_measured,
        )
    yield from _custom(config)


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


def _formats(settings: Filter) -> Iterator[Measure]:
    assert settings.format is not None
    if settings.format.pattern is not None:
        yield Measure(answer_format.matches, {"pattern": settings.format.pattern})
    if settings.format.schema_file is not None:
        yield Measure(
            answer_format.valid, {"schema": answer_format.read_schema(settings.format.schema_file)}
        )
    if settings.format.choices is not None:
        yield Measure(answer_format.listed, {"choices": settings.format.choices})


def _custom(config: Config) -> Iterator[NamedFilter]:
    """Filters of one's own."""
    for name in config.filter.custom:
        yield NamedFilter(
            f"custom.{name.partition(':')[2]}", (custom.measure(name),), reject_as_measured
        )


def _any(left: NDArray[np.int64], *found: Sequence[Any]) -> dict[int, Verdict]:
    """The first objection of several measures."""
    verdicts: dict[int, Verdict] = {}
    for column in found:
        verdicts = reject_as_measured(left, column) | verdicts
    return verdicts
