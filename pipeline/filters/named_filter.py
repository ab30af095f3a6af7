"""A filter as the filter stage runs it, and what it may write when all filters have run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measure_cache import MeasureCache
from pipeline.filters.measures import Column, Measure
from pipeline.filters.verdict import Verdict, reject_as_measured


@dataclass(frozen=True)
class Outcome:
    """What a filter's `after` may read: all filters have run, and the kept rows are written."""

    measured: MeasureCache
    reached: NDArray[np.int64]  # (N,) rows that came to this filter
    kept: NDArray[np.int64]  # (K,) rows that no filter rejected
    kept_folder: Path  # where the kept rows are stored
    asked: Any = None  # the column that the filter's `ask` returned


@dataclass(frozen=True)
class NamedFilter:
    """A filter with the measures that it needs.

    Args:
        name: what reports and rejected rows call it.
        measures: the columns that `judge` takes.
        judge: `judge(rows, *columns)` returns a verdict for each row that it rejects. `rows` (N,)
            are those that no earlier filter rejected, ascending; each column covers all rows.
        ask: `ask(run_dir, rows)` asks a model about the rows and returns one more column.
        after: writes beside the kept rows and returns notes: by file name, without `.json`, the
            content of a file in the stage's folder.
    """

    name: str
    measures: tuple[Measure, ...]
    judge: Callable[..., dict[int, Verdict]]
    ask: Callable[[Path, NDArray[np.int64]], Any] | None = None
    after: Callable[[Outcome], Mapping[str, Any]] | None = None

    @classmethod
    def by_measure(cls, name: str, function: Callable[..., Column], **settings: Any) -> Self:
        """Return a filter whose measure already holds reason and value of each rejection."""
        return cls(name, (Measure(function, settings),), reject_as_measured)
