"""The interface between the filter stage and a filter."""

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
    """The result of the whole filter stage, which a filter's `after` may read."""

    measured: MeasureCache
    reached: NDArray[np.int64]  # (N,) rows that no earlier filter rejected
    kept: NDArray[np.int64]  # (K,) rows that no filter rejected
    kept_folder: Path  # where the kept rows are stored
    asked: Any = None  # the column that the filter's `ask` returned


@dataclass(frozen=True)
class NamedFilter:
    """A filter with the measures that it needs.

    Args:
        name: its name in reports and rejected rows.
        measures: `judge` receives their columns.
        judge: `judge(rows, *columns)` returns a verdict for each row that it rejects. `rows` (N,)
            are those that no earlier filter rejected, ascending; each column covers all rows.
        ask: `ask(run_dir, rows)` asks a model about the rows and returns one more column.
        after: called when all filters have run and the kept rows are written. It may write files
            beside the kept rows. It returns notes, which the stage writes as JSON files into its
            folder: a dict from file name, without `.json`, to content.
    """

    name: str
    measures: tuple[Measure, ...]
    judge: Callable[..., dict[int, Verdict]]
    ask: Callable[[Path, NDArray[np.int64]], Any] | None = None
    after: Callable[[Outcome], Mapping[str, Any]] | None = None

    @classmethod
    def by_measure(cls, name: str, function: Callable[..., Column], **settings: Any) -> Self:
        """Return a filter whose measure already returns reason and value of each rejection."""
        return cls(name, (Measure(function, settings),), reject_as_measured)
