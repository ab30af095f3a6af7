"""Filters on the format of an answer: a pattern, a JSON schema, or a closed set of choices."""

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
# For one pattern and one answer. A pattern that takes longer backtracks exponentially.
TIMEOUT_S = 1.0
UNTIMED = (
    "patternProperties"  # jsonschema would run the patterns of this keyword without time limit
)


def matches(batch: Batch, pattern: str) -> list[Rejection | None]:
    """Reject answers that the pattern does not match as a whole. A missing answer passes.

    Reasons: not_in_format; format_timed_out if the pattern ran for TIMEOUT_S.
    """
    check_pattern(pattern)
    answers = [sample.answer for sample in batch.samples]
    return [None if answer is None else _match(pattern, answer) for answer in answers]


def valid(batch: Batch, schema: Any) -> list[Rejection | None]:
    """Reject answers that are not JSON, or break the schema. A missing answer passes.

    A Markdown code block around an answer is removed first. Reasons: not_json (RFC 8259);
    breaks_schema (draft 2020-12, or the draft that `$schema` names), whose value says where and
    why; format_timed_out if a pattern of the schema ran for TIMEOUT_S.
    """
    validator = _validator(json.dumps(schema))
    answers = [sample.answer for sample in batch.samples]
    return [None if answer is None else _validate(validator, answer) for answer in answers]


def listed(batch: Batch, choices: Sequence[str]) -> list[Rejection | None]:
    """Reject answers that are not in `choices`, with the reason not_listed.

    A missing answer passes. Case, outer punctuation and spacing are ignored.
    """

    def judge(answer: str | None) -> Rejection | None:
        if answer is None or scorers.find_label(answer, choices) is not None:
            return None
        return "not_listed", answer[:SHOWN]

    return [judge(sample.answer) for sample in batch.samples]


def check_pattern(pattern: str) -> None:
    """Raise PipelineError if the pattern is not a regular expression."""
    import regex

    try:
        regex.compile(pattern)
    except regex.error as error:
        raise PipelineError(
            f"filter.format: {pattern!r} is not a regular expression ({error}); "
            "fix it, or quote it in YAML"
        ) from None


def read_schema(path: str | Path) -> Any:
    """Read a JSON schema. Raises PipelineError for a keyword that cannot be checked safely."""
    schema = json_answers.load_schema(Path(path))
    if any(UNTIMED in part for part in _objects(schema)):
        raise PipelineError(
            f"{path}: filter.format does not support {UNTIMED}; "
            "use properties and additionalProperties"
        )
    return schema


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object in the schema, itself included."""
    values = schema if isinstance(schema, list) else []
    if isinstance(schema, Mapping):
        yield schema
        values = list(schema.values())
    for value in values:
        yield from _objects(value)


def _match(pattern: str, answer: str) -> Rejection | None:
    import regex

    try:
        matched = regex.fullmatch(pattern, answer, timeout=TIMEOUT_S)
    except TimeoutError:
        return "format_timed_out", answer[:SHOWN]
    return None if matched else ("not_in_format", answer[:SHOWN])


def _validate(validator: Any, answer: str) -> Rejection | None:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        content = json.loads(unfenced(answer), parse_constant=json_answers.refuse_constant)
    except (ValueError, RecursionError):
        return "not_json", answer[:SHOWN]
    try:
        error = best_match(validator.iter_errors(content))
    except TimeoutError:
        return "format_timed_out", answer[:SHOWN]
    except ArithmeticError as error:  # multipleOf, and a number beyond all floats
        return "breaks_schema", f"{error}: {answer}"[:SHOWN]
    except (Unresolvable, RecursionError) as error:
        raise PipelineError(
            f"filter.format: a reference in the schema cannot be followed ({error}); "
            "a $ref must stay within the schema and must not lead back to itself"
        ) from None
    if error is None:
        return None
    return "breaks_schema", f"{error.json_path}: {error.message}"[:SHOWN]


@lru_cache
def _validator(schema: str) -> Any:
    return json_answers.validator(json.loads(schema), pattern=_check_timed_pattern)


def _check_timed_pattern(validator: Any, pattern: str, content: Any, schema: Any) -> Iterator[Any]:
    import regex
    from jsonschema import ValidationError

    if isinstance(content, str) and not regex.search(pattern, content, timeout=TIMEOUT_S):
        yield ValidationError(f"{content!r} does not match {pattern!r}")
