"""What filters know of samples: columns of one value a sample, made a shard at a time and kept on disk."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample, digest
from pipeline.storage.files import sha256
from pipeline.storage.topk import TopKFolder


@dataclass(frozen=True)
class Batch:
    """The samples of one shard, and where their frames are."""

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


LIBRARIES = (
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
    """What is found out about every sample by itself; costly, so it is kept, and a changed threshold does not ask again.

    Args:
        of: a function of a module, `of(batch, **settings)` -> one row a sample. Worker processes call it.
        settings: JSON values.
        slow: whether a few samples take longer than a process to start.
    """

    of: Callable[..., Column]
    settings: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False

    @cached_property
    def name(self) -> str:
        """A folder's name, another one for whatever could give other values."""
        function = f"{self.of.__module__.rpartition('.')[2]}.{self.of.__qualname__}"
        return f"{function}-{digest(self.of.__module__, _code(), dict(self.settings))}"

    def __hash__(self) -> int:
        return hash(self.name)

    def __call__(self, batch: Batch) -> Column:
        column = self.of(batch, **self.settings)
        assert len(column) == len(batch.samples), (
            f"{self.name}: {len(column)} rows of {len(batch.samples)} samples"
        )
        return column


@lru_cache
def _code() -> list[str]:
    """What the code of filters and verifiers and the libraries behind them are: other ones may find other values."""
    here = Path(__file__).parent
    files = sorted(
        [
            *here.rglob("*.py"),
            *(here.parent / "verifiers").rglob("*.py"),
            here.parent / "storage" / "topk.py",
        ]
    )
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return [*(sha256(path) for path in files), *versions]


def save_column(path: Path, column: Column) -> None:
    """Write a column so that it is there as a whole or not at all."""
    if isinstance(column, Ragged):
        arrays = {"values": column.values, "ends": column.ends}
    elif isinstance(column, list):
        arrays = {"json": np.frombuffer(json.dumps(column, ensure_ascii=False).encode(), np.uint8)}
    else:
        arrays = {"values": column}
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(
        f"{path.stem}.{os.getpid()}.npz"
    )  # another run may measure the same for itself
    np.savez(own, **arrays)  # type: ignore[arg-type]
    os.replace(own, path)


def load_column(path: Path) -> Column:
    """Raises PipelineError if the file is damaged, after it was set aside: the same command measures again."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "json" in arrays:
                found: list[Any] = json.loads(arrays["json"].tobytes())
                return found
            return (
                Ragged(arrays["values"], arrays["ends"]) if "ends" in arrays else arrays["values"]
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        path.unlink(missing_ok=True)
        raise PipelineError(
            f"{path}: was damaged ({error}) and is removed; the same command measures its samples again"
        ) from None


def join_columns(parts: Sequence[Column]) -> Column:
    """The column of several shards, one after the other."""
    first = parts[0]
    if isinstance(first, list):
        return [value for part in parts if isinstance(part, list) for value in part]
    if isinstance(first, Ragged):
        before = np.cumsum([0, *(len(part.values) for part in parts if isinstance(part, Ragged))])
        ends = [
            part.ends + shift
            for part, shift in zip(parts, before, strict=False)
            if isinstance(part, Ragged)
        ]
        return Ragged(
            np.concatenate([part.values for part in parts if isinstance(part, Ragged)]),
            np.concatenate(ends),
        )
    return np.concatenate(parts)  # type: ignore[arg-type]


def sample_ids(batch: Batch) -> list[str]:
    """The ids of the samples."""
    return [sample.id for sample in batch.samples]


SAMPLE_IDS = Measure(sample_ids)
