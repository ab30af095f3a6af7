"""Measures: values that filters need, one for each sample. They are cached on disk by shard."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample, digest
from pipeline.storage.arrays import DamagedError, read_arrays
from pipeline.storage.files import sha256
from pipeline.storage.topk import TopKFolder


@dataclass(frozen=True)
class Batch:
    """The samples of one shard, and the top-k frames of their tokens."""

    samples: Sequence[Sample]
    frames: TopKFolder


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row n is values[ends[n - 1] : ends[n]]."""

    values: NDArray[Any]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]


LIBRARIES = (  # whose versions can change a value
    "jsonschema",
    "math-verify",
    "numpy",
    "phonenumbers",
    "py3langid",
    "python-stdnum",
    "regex",
    "sympy",
    "transformers",
    "xxhash",
)

Column = NDArray[Any] | list[Any] | Ragged


@dataclass(frozen=True)
class Measure:
    """A function that computes one value for each sample, from that sample alone.

    The column of values is cached, so another threshold does not compute it again.

    Args:
        function: a module-level function, `function(batch, **settings)`. It returns a column with
            one row for each sample. Worker processes import and call it.
        settings: JSON values.
        slow: True if it takes longer for a few samples than it takes to start a process.
        lost: the row of a sample at which every process dies; None if no sample can do that.
    """

    function: Callable[..., Column]
    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False
    lost: Any = None

    @cached_property
    def name(self) -> str:
        """A folder name that changes with everything that could change the values."""
        module, function = self.function.__module__, self.function.__qualname__
        key = digest(module, _code_version(), dict(self.settings))
        return f"{module.rpartition('.')[2]}.{function}-{key}"

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self, batch: Batch) -> Column:
        column = self.function(batch, **self.settings)
        rows, samples = len(column), len(batch.samples)
        assert rows == samples, f"{self.name}: {rows} rows of {samples} samples"
        return column


@lru_cache
def _code_version() -> list[str]:
    """Return hashes and versions of the code that decides the values."""
    filters = Path(__file__).parent
    package = filters.parent
    topk = package / "storage" / "topk.py"
    files = sorted([*filters.rglob("*.py"), *(package / "verifiers").rglob("*.py"), topk])
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return [*(sha256(path) for path in files), *versions]


def save_column(path: Path, column: Column) -> None:
    """Write a column atomically."""
    if isinstance(column, Ragged):
        arrays = {"values": column.values, "ends": column.ends}
    elif isinstance(column, list):
        arrays = {"json": np.frombuffer(json.dumps(column, ensure_ascii=False).encode(), np.uint8)}
    else:
        arrays = {"values": column}
    path.parent.mkdir(parents=True, exist_ok=True)
    # the name holds the process id, because another run may write the same column at the same time
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def load_column(path: Path) -> Column:
    """Read a column. Raises PipelineError if the file is damaged, and removes it."""
    try:
        arrays = read_arrays(path)
        if "json" in arrays:
            rows: list[Any] = json.loads(arrays["json"].tobytes())
            return rows
        values = arrays["values"]
        return Ragged(values, arrays["ends"]) if "ends" in arrays else values
    except (DamagedError, ValueError, KeyError) as error:
        path.unlink(missing_ok=True)
        raise PipelineError(
            f"{path}: damaged ({error}), so it was removed; "
            "give the same command again to measure these samples anew"
        ) from None


def join_columns(parts: Sequence[Any]) -> Column:
    """Concatenate the columns of several shards. All must have the same type."""
    if isinstance(parts[0], list):
        return list(chain.from_iterable(parts))
    if isinstance(parts[0], Ragged):
        sizes = [len(part.values) for part in parts]
        shifts = np.cumsum([0, *sizes[:-1]])
        ends = [part.ends + shift for part, shift in zip(parts, shifts, strict=True)]
        return Ragged(np.concatenate([part.values for part in parts]), np.concatenate(ends))
    joined: NDArray[Any] = np.concatenate(parts)
    return joined


def sample_ids(batch: Batch) -> list[str]:
    """Return the ids of the samples."""
    return [sample.id for sample in batch.samples]


SAMPLE_IDS = Measure(sample_ids)
