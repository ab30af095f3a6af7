"""Filters on the format of an answer: a pattern that it matches as a whole, a JSON schema, a closed set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Rejection
from pipeline.verifiers import json_answers, scorers
from pipeline.verifiers.code_fence import unfenced

SHOWN = 80
TIMEOUT_S = (
    1.0  # for one pattern and one answer; a pattern that takes longer backtracks without end
)
UNTIMED = "patternProperties"  # the schema keyword whose patterns would run without a limit of time


def matches(batch: Batch, pattern: str) -> list[Rejection | None]:
    """not_in_format: the answer as a whole does not match. format_timed_out: the pattern ran for a second. No answer passes."""
    check_pattern(pattern)
    return [
        None if sample.answer is None else _match(pattern, sample.answer)
        for sample in batch.samples
    ]


def valid(batch: Batch, schema: Any) -> list[Rejection | None]:
    """not_json: the answer is no JSON text (RFC 8259). breaks_schema: it is, and says what the schema (draft 2020-12, or what `$schema`
    names) does not allow; the value: where and why. format_timed_out: a pattern of the schema ran for a second. A Markdown code block
    around an answer is taken off. No answer passes."""
    validator = _validator(json.dumps(schema))
    return [
        None if sample.answer is None else _validate(validator, sample.answer)
        for sample in batch.samples
    ]


def listed(batch: Batch, choices: Sequence[str]) -> list[Rejection | None]:
    """not_listed: the answer is none of `choices`, case, outer punctuation and spacing aside. No answer passes."""
    known = {scorers.normalise(choice) for choice in choices}
    answers = (sample.answer for sample in batch.samples)
    return [
        None if a is None or scorers.normalise(a) in known else ("not_listed", a[:SHOWN])
        for a in answers
    ]


def check_pattern(pattern: str) -> None:
    """Raise PipelineError if it is no regular expression."""
    import regex

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise PipelineError(
            f"filter.format: {pattern!r} is no regular expression ({error}); mend it, or quote it in YAML"
        ) from None


def read_schema(path: str | Path) -> Any:
    """The JSON schema in a file. Raises PipelineError if there is none, or if it has a keyword that cannot be checked safely."""
    schema = json_answers.load_schema(Path(path))
    if any(UNTIMED in below for below in _objects(schema)):
        raise PipelineError(
            f"{path}: {UNTIMED} is not supported by filter.format; use properties and additionalProperties"
        )
    return schema


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all objects in it."""
    if isinstance(schema, Mapping):
        yield schema
    for below in (
        schema.values()
        if isinstance(schema, Mapping)
        else schema
        if isinstance(schema, list)
        else ()
    ):
        yield from _objects(below)


def _match(pattern: str, answer: str) -> Rejection | None:
    import regex

    try:
        return (
            None
            if regex.fullmatch(pattern, answer, timeout=TIMEOUT_S)
            else ("not_in_format", answer[:SHOWN])
        )
    except TimeoutError:
        return "format_timed_out", answer[:SHOWN]


def _validate(validator: Any, answer: str) -> Rejection | None:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        content = json.loads(unfenced(answer), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "not_json", answer[:SHOWN]
    try:
        error = best_match(validator.iter_errors(content))
    except TimeoutError:
        return "format_timed_out", answer[:SHOWN]
    except ArithmeticError as error:  # of a number beyond all floats, and multipleOf
        return "breaks_schema", f"{error}: {answer}"[:SHOWN]
    except (Unresolvable, RecursionError) as error:
        raise PipelineError(
            f"filter.format: the schema cannot be followed: {error}; a $ref must stay within it, and come to an end"
        ) from None
    return (
        None if error is None else ("breaks_schema", f"{error.json_path}: {error.message}"[:SHOWN])
    )


@lru_cache
def _validator(schema: str) -> Any:
    """A validator that fetches nothing from elsewhere, and whose patterns are limited in time."""
    from jsonschema import validators
    from referencing import Registry

    content = json.loads(schema)
    timed = validators.extend(validators.validator_for(content), {"pattern": _pattern})
    return timed(content, registry=Registry())


def _pattern(validator: Any, pattern: str, content: Any, schema: Any) -> Any:
    import regex
    from jsonschema import ValidationError

    if isinstance(content, str) and not regex.search(pattern, content, timeout=TIMEOUT_S):
        yield ValidationError(f"{content!r} does not match {pattern!r}")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
