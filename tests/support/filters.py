"""Measure a few samples and read the reasons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.filters.measures import Batch
from pipeline.records import Sample
from pipeline.storage.topk import TopKFolder


def batch(*samples: Sample) -> Batch:
    return Batch(samples, TopKFolder(Path()))


def reasons(column: Sequence[Any]) -> list[str | None]:
    return [rejection and rejection[0] for rejection in column]
