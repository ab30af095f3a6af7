"""Answers compared with a pattern, a schema and a list, and bad ones that must not stop the run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.filters.heuristics import answer_format
from pipeline.records import Sample
from tests.support.filters import batch, reasons

Make = Callable[..., Sample]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string", "pattern": "^(a+)+$"}},
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("12-34", None),
        ("12-345", "not_in_format"),
        ("x 12-34", "not_in_format"),
        (None, None),
        ("", "not_in_format"),
    ],
)
def test_pattern(sample: Make, answer: str | None, reason: str | None) -> None:
    """The whole answer must match, not part of it; `parseable` rejects a missing answer."""
    assert reasons(answer_format.matches(batch(sample(answer=answer)), r"\d+-\d\d")) == [reason]


def test_a_pattern_without_end_is_stopped(sample: Make) -> None:
    """Nested repetitions take exponential time; without a limit the filter would never end."""
    answer = "a" * 60 + "!"
    assert reasons(answer_format.matches(batch(sample(answer=answer)), r"(?:a|aa)+b")) == [
        "format_timed_out"
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"n": 4}', None),
        ('{"n": 4.5}', "breaks_schema"),
        ("{}", "breaks_schema"),
        ('{"n": 4, "s": "b"}', "breaks_schema"),
        ('```json\n{"n": 4}\n```', None),
        ('{"n": NaN}', "not_json"),
        ('{"n": 4', "not_json"),
        ("[" * 100_000, "not_json"),
        ("1" * 5_000, "not_json"),
        (None, None),
    ],
)
def test_schema(sample: Make, answer: str | None, reason: str | None) -> None:
    """No parser could read such an answer; one made to break the parser is only wrong."""
    assert reasons(answer_format.valid(batch(sample(answer=answer)), SCHEMA)) == [reason]


def test_schema_says_where(sample: Make) -> None:
    """'invalid' alone would not help to fix the prompt."""
    assert answer_format.valid(batch(sample(answer='{"n": "4"}')), SCHEMA) == [
        ("breaks_schema", "$.n: '4' is not of type 'integer'")
    ]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "number of legs"}', "is no JSON schema"),
        ('{"properties": {"a": {"pattern": "("}}}', r"is no JSON schema: .* is not a .regex."),
        ('{"items": {"patternProperties": {"a": {}}}}', "does not support patternProperties"),
        ("[1]", "holds list"),
        ("1", "holds int"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_a_schema_that_cannot_be_used(schema: str, message: str, tmp_path: Path) -> None:
    """A mistake in the schema must be reported before a million answers are read."""
    path = tmp_path / "schema.json"
    path.write_text(schema)
    with pytest.raises(PipelineError, match=rf"schema\.json: .*{message}"):
        answer_format.read_schema(path)


@pytest.mark.parametrize("answer", ["1e400", "1" + 400 * "0"])
def test_a_number_beyond_all_floats_breaks_a_schema(sample: Make, answer: str) -> None:
    """multipleOf cannot make a float of it; the error once ended the stage."""
    assert reasons(
        answer_format.valid(batch(sample(answer=answer)), {"type": "number", "multipleOf": 0.01})
    ) == ["breaks_schema"]


@pytest.mark.parametrize(
    ("draft", "reason"),
    [("http://json-schema.org/draft-07/schema#", None), (None, "breaks_schema")],
)
def test_the_schema_names_its_draft(
    sample: Make, draft: str | None, reason: str | None, tmp_path: Path
) -> None:
    """filter.format and the metric json must read a file by the same draft.

    Draft 7 has no prefixItems.
    """
    path = tmp_path / "schema.json"
    path.write_text(
        json.dumps({"prefixItems": [{"type": "string"}], **({"$schema": draft} if draft else {})})
    )
    assert reasons(
        answer_format.valid(batch(sample(answer="[1]")), answer_format.read_schema(path))
    ) == [reason]


def test_nothing_is_fetched_for_a_schema(sample: Make) -> None:
    """A $ref to a URL would send a request for every answer."""
    with pytest.raises(PipelineError, match="must stay within the schema"):
        answer_format.valid(batch(sample(answer="1")), {"$ref": "https://example.org/other.json"})


def test_pattern_that_is_none() -> None:
    """A missing bracket must not end in a traceback of a worker process."""
    with pytest.raises(PipelineError, match=r"filter\.format: '\(' is not a regular expression"):
        answer_format.check_pattern("(")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("Billing.", None), ("billing or access", "not_listed"), ("", "not_listed"), (None, None)],
)
def test_listed(sample: Make, answer: str | None, reason: str | None) -> None:
    """Case and a full stop do not make another answer."""
    assert reasons(answer_format.listed(batch(sample(answer=answer)), ["billing", "access"])) == [
        reason
    ]
