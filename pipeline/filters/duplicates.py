"""Filters on what is there already."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import scoring
from pipeline.filters.columns import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import digest


def content(batch: Batch) -> list[list[str]]:
    """Id and digest of input and reply of every sample."""
    return [
        [s.id, digest({key: scoring.normalise(str(value)) for key, value in s.seed.inputs.items()}, scoring.normalise(s.text))]
        for s in batch.samples
    ]


def repeated(left: NDArray[np.int64], found: Sequence[Sequence[str]]) -> dict[int, Verdict]:
    """same_as: an earlier sample has the same input and the same reply, case and spacing aside. The value is its id."""
    first: dict[str, str] = {}
    verdicts: dict[int, Verdict] = {}
    for row in left:
        identifier, key = found[row]
        earlier = first.setdefault(key, identifier)
        if earlier != identifier:
            verdicts[int(row)] = Verdict("same_as", earlier)
    return verdicts
