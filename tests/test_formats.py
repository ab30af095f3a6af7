"""Answers held against a pattern, a schema and a list; and that neither a bad one nor a bad answer stops the run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.filters import formats
from pipeline.records import Sample
from tests.test_filters import batch, reasons

Make = Callable[..., Sample]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("answer", "reason"), [("12-34", None), ("12-345", "not_in_format"), ("x 12-34", "not_in_format"), (None, None), ("", "not_in_format")]
)
def test_pattern(sample: Make, answer: str | None, reason: str | None) -> None:
    """The whole answer must match, not a part of it; a missing one is for the filter `parseable`."""
    assert reasons(formats.matches(batch(sample(answer=answer)), r"\d+-\d\d")) == [reason]


def test_a_pattern_without_end_is_stopped(sample: Make) -> None:
    """Nested repetitions take time exponential in the answer's length; without a limit the filter would never end."""
    answer = "a" * 60 + "!"
    assert reasons(formats.matches(batch(sample(answer=answer)), r"(?:a|aa)+b")) == ["format_timed_out"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"n": 4}', None),
        ('{"n": 4.5}', "breaks_schema"),
        ("{}", "breaks_schema"),
        ('{"n": 4, "s": "b"}', "breaks_schema"),
        ('```json\n{"n": 4}\n```', "not_json"),
        ('{"n": NaN}', "not_json"),
        ('{"n": 4', "not_json"),
        ("[" * 100_000, "not_json"),
        ("1" * 5_000, "not_json"),
        (None, None),
    ],
)
def test_schema(sample: Make, answer: str | None, reason: str | None) -> None:
    """What no parser of the task can read must not be learnt; an answer made to break the parser is only wrong."""
    assert reasons(formats.valid(batch(sample(answer=answer)), SCHEMA)) == [reason]


def test_schema_says_where(sample: Make) -> None:
    """'invalid' alone would not help to mend the prompt."""
    assert formats.valid(batch(sample(answer='{"n": "4"}')), SCHEMA) == [("breaks_schema", "$.n: '4' is not of type 'integer'")]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "number of legs"}, "no JSON schema"),
        ({"properties": {"a": {"pattern": "("}}}, "no JSON schema: .* is not a .regex."),
        ({"items": {"patternProperties": {"a": {}}}}, "patternProperties is not supported"),
    ],
)
def test_a_schema_that_cannot_be_used(schema: dict[str, Any], message: str) -> None:
    """A mistake in the schema must be told before a million answers are read."""
    with pytest.raises(PipelineError, match=rf"filter\.format: .*{message}"):
        formats.check_schema(schema)


def test_nothing_is_fetched_for_a_schema(sample: Make) -> None:
    """A $ref to elsewhere would ask the network for every answer."""
    with pytest.raises(PipelineError, match="must stay within it"):
        formats.valid(batch(sample(answer="1")), {"$ref": "https://example.org/other.json"})


def test_schema_file(tmp_path: Path) -> None:
    """A missing file and one that holds something else are told apart from a bad schema."""
    path = tmp_path / "schema.json"
    with pytest.raises(PipelineError, match="no JSON schema can be read"):
        formats.read_schema(path)
    path.write_text("[1]")
    with pytest.raises(PipelineError, match="holds list"):
        formats.read_schema(path)
    path.write_text('{"type": "integer"}')
    assert formats.read_schema(path) == {"type": "integer"}


def test_pattern_that_is_none() -> None:
    """A bracket too few must not end in a traceback of a worker process."""
    with pytest.raises(PipelineError, match=r"filter\.format: '\(' is no regular expression"):
        formats.check_pattern("(")


@pytest.mark.parametrize(("answer", "reason"), [("Billing.", None), ("billing or access", "not_listed"), ("", "not_listed"), (None, None)])
def test_listed(sample: Make, answer: str | None, reason: str | None) -> None:
    """Case and a full stop are no other answer."""
    assert reasons(formats.listed(batch(sample(answer=answer)), ["billing", "access"])) == [reason]
