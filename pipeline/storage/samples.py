"""A finished folder of samples as a map-style dataset, with random access to each sample."""

import io
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.storage.arrays import DamagedError, read_arrays
from pipeline.storage.files import content, read_object, sha256, write_atomic
from pipeline.storage.shards import read_lines
from pipeline.storage.topk import TopKFolder

OPEN_SHARDS = 16
# in a folder of kept samples: their numbers in RUN/generate, and the digest of its outputs
ROWS = "rows.npz"


class Samples:
    """The samples of RUN/generate, RUN/score or RUN/filter/kept by number, in input order.

    RUN/filter/kept holds only numbers of samples of RUN/generate; `folder` is then RUN/generate.
    For torch this is a map-style dataset of records.
    """

    def __init__(self, folder: str | Path):
        self.folder = self._given = Path(folder)
        self._rows: NDArray[np.int64] | None = None
        if (self.folder / ROWS).is_file():
            self._finished(self.folder.parent)
            self._rows, numbered = _read(self.folder)
            self.folder = self.folder.parent.parent / "generate"
        manifest = read_object(self._finished(self.folder), "files")
        if self._rows is not None and numbered != content(manifest):
            raise PipelineError(
                f"{folder}: its row numbers belong to another {self.folder}; "
                "run pipeline filter with --redo"
            )
        sources = (self.folder / "manifest.json", self._given / ROWS)
        self._content = [sha256(path) for path in sources if path.is_file()]
        records = {
            name: entry["records"]
            for name, entry in manifest["files"].items()
            if "/" not in name and name.endswith(".jsonl.gz")
        }
        names = sorted(records, key=_shard_number)
        self._paths = [self.folder / name for name in names]
        self._ends = list(accumulate(records[name] for name in names))
        self._lines = lru_cache(OPEN_SHARDS)(lambda path: list(read_lines(path)))

    def _finished(self, folder: Path) -> Path:
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            raise PipelineError(
                f"{folder}: its stage is not finished (there is no manifest.json); "
                "run it to the end first"
            )
        return manifest

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder and its digest, so that caches notice if a run was regenerated."""
        return Samples, (self._given,), {"_content": self._content}

    def __len__(self) -> int:
        if self._rows is not None:
            return len(self._rows)
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder}: sample {number} of {len(self)}")
        number = number if self._rows is None else int(self._rows[number])
        shard = bisect_right(self._ends, number)
        first = self._ends[shard - 1] if shard else 0
        path = self._paths[shard]
        return Sample.from_line(self._lines(path)[number - first], f"{path}:{number - first + 1}")

    def __iter__(self) -> Iterator[Sample]:
        return (self[number] for number in range(len(self)))

    def take(self, first: int, last: int) -> list[Sample]:
        """Return samples first to last - 1, or to the end."""
        return [self[number] for number in range(first, min(last, len(self)))]


def keep(folder: Path, rows: NDArray[np.int64], source: Path) -> None:
    """Write which samples of the finished stage folder `source`, RUN/generate, are kept.

    `rows` are their numbers, in ascending order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        rows=rows.astype(np.int64),
        content=np.array(content(read_object(source / "manifest.json", "files"))),
    )
    write_atomic(folder / ROWS, file.getvalue())


def kept_rows(folder: Path) -> NDArray[np.int64]:
    """Return the numbers of the samples that are kept."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[NDArray[np.int64], str]:
    try:
        arrays = read_arrays(folder / ROWS)
        return arrays["rows"], str(arrays["content"])
    except (DamagedError, KeyError) as error:
        raise PipelineError(
            f"{folder / ROWS}: cannot be read ({error}); run pipeline filter with --redo"
        ) from None


class Captured:
    """The teacher's samples with its token probabilities, for a custom training loop.

    Item: id, text, token_ids (T,). Where there are logprobs, also topk_ids (T, K), topk_logprobs
    (T, K) with -inf where a token has fewer entries, and topk_tail (T,), the log of the mass
    outside them. K is the largest number of entries in the item.

    `frames` is the folder of the .topk files, if it is not that of the samples.
    """

    def __init__(self, folder: str | Path, frames: str | Path | None = None):
        self.samples = Samples(folder)
        self._frames = TopKFolder(Path(frames or self.samples.folder))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> dict[str, Any]:
        sample = self.samples[number]
        item = {"id": sample.id, "text": sample.text, "token_ids": sample.token_ids}
        if sample.frame is None:
            return item
        topk = self._frames.topk_of(sample)
        return {
            **item,
            "topk_ids": topk.ids,
            "topk_logprobs": topk.logprobs,
            "topk_tail": topk.tail,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all items, for `datasets.Dataset.from_generator`."""
        for number in range(len(self)):
            yield self[number]


def _shard_number(name: str) -> int:
    return int(name.split(".")[0])
