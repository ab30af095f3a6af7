"""Filters on what is there already."""

from collections.abc import Sequence

from pipeline import scoring
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample, digest


def duplicate(samples: Sequence[Sample]) -> list[Verdict | None]:
    """same_as: an earlier sample has the same input and the same reply, case and spacing aside. The value is its id."""
    first: dict[str, str] = {}
    verdicts: list[Verdict | None] = []
    for sample in samples:
        inputs = {key: scoring.normalise(str(value)) for key, value in sample.seed.inputs.items()}
        earlier = first.setdefault(digest(inputs, scoring.normalise(sample.text)), sample.id)
        verdicts.append(None if earlier == sample.id else Verdict("same_as", earlier))
    return verdicts
