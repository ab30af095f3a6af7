"""Whose words are whose: what the teacher wrote, and what it was given."""

from typing import Any

from pipeline.records import Sample


def reply_parts(sample: Sample) -> list[str]:
    """The reply; and rationale and answer where they are not in it as they stand."""
    return [
        sample.text,
        *(part for part in (sample.rationale, sample.answer) if part and part not in sample.text),
    ]


def input_text(sample: Sample, fields: list[str] | None = None) -> str:
    """All that the seed's inputs say, or those of `fields`."""
    inputs = sample.seed.inputs
    return flatten(
        inputs
        if fields is None
        else {name: value for name, value in inputs.items() if name in fields}
    )


def flatten(value: Any) -> str:
    """All text of a JSON value, a line a leaf; of an object in the order of its keys, so that two with the same content are the same."""
    if isinstance(value, dict):
        return "\n".join(flatten(value[key]) for key in sorted(value))
    if isinstance(value, list):
        return "\n".join(map(flatten, value))
    return "" if value is None else str(value)
