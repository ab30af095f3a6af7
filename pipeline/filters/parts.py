"""Whose words are whose: what the teacher wrote, and what it was given."""

from collections.abc import Iterator
from typing import Any

from pipeline.records import Sample


def written(sample: Sample) -> list[str]:
    """The reply; and rationale and answer where they are not in it as they stand."""
    return [sample.text, *(part for part in (sample.rationale, sample.answer) if part and part not in sample.text)]


def given(sample: Sample, fields: list[str] | None = None) -> str:
    """All that the seed's inputs say, or those of `fields`, a line a value."""
    inputs = sample.seed.inputs
    return "\n".join(text for name in inputs if fields is None or name in fields for text in _texts(inputs[name]))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for below in value.values():
            yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)
    elif value is not None:
        yield str(value)
