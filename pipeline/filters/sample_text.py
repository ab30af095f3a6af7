"""The text of a sample: what the teacher wrote, and the inputs that it was given."""

from typing import Any

from pipeline.records import Sample


def reply_parts(sample: Sample) -> list[str]:
    """Return the reply, and the rationale and the answer if they are not verbatim in the reply."""
    parts = (sample.rationale, sample.answer)
    return [sample.text, *(part for part in parts if part and part not in sample.text)]


def input_text(sample: Sample, fields: list[str] | None = None) -> str:
    """Return all text of the sample's inputs, or of those named in `fields`."""
    inputs = sample.seed.inputs
    if fields is not None:
        inputs = {name: value for name, value in inputs.items() if name in fields}
    return flatten(inputs)


def flatten(value: Any) -> str:
    """Return all text of a JSON value, one leaf on each line. An object's values sort by key."""
    if isinstance(value, dict):
        return "\n".join(flatten(value[key]) for key in sorted(value))
    if isinstance(value, list):
        return "\n".join(map(flatten, value))
    return "" if value is None else str(value)
