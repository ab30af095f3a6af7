"""A finished folder of samples as a map-style dataset: any sample, with its top-k logprobs, in time that does not grow with the run."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.store import read_json, read_lines, sha256
from pipeline.topk import TopKFolder

OPEN_SHARDS = 16


class Samples:
    """The samples of RUN/generate, RUN/score or RUN/filter/kept by number, in input order.

    For torch it is a map-style dataset of records; `datasets.Dataset.from_generator(Samples(folder).rows)` takes it too.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        manifest = next((path for path in (self.folder / "manifest.json", self.folder.parent / "manifest.json") if path.is_file()), None)
        if manifest is None:
            raise PipelineError(f"{folder}: its stage is not finished (there is no manifest.json); run it to the end first")
        self._manifest = sha256(manifest)
        files = {manifest.parent / name: entry.get("records", 0) for name, entry in read_json(manifest)["files"].items()}
        self._paths = sorted((path for path in files if path.parent == self.folder and path.name.endswith(".jsonl.gz")), key=_number)
        self._ends = list(accumulate(files[path] for path in self._paths))
        self._lines = lru_cache(OPEN_SHARDS)(lambda path: list(read_lines(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes, and for caches that must not take a run that was made again for the old one."""
        return Samples, (self.folder,), {"_manifest": self._manifest}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder}: sample {number} of {len(self)}")
        shard = bisect_right(self._ends, number)
        first = self._ends[shard - 1] if shard else 0
        path = self._paths[shard]
        return Sample.from_line(self._lines(path)[number - first], f"{path}:{number - first + 1}")

    def take(self, first: int, last: int) -> list[Sample]:
        """Samples first to last - 1."""
        return [self[number] for number in range(first, min(last, len(self)))]


class Captured:
    """What the teacher wrote and thought, for one's own training loop.

    Item: id, text, token_ids (T,), and, where there are logprobs, topk_ids (T, K), topk_logprobs (T, K) with -inf where a token has fewer
    entries, topk_tail (T,) the log of the mass outside them. K is the widest of the item. `frames` is the folder of the .topk files.
    """

    def __init__(self, folder: str | Path, frames: str | Path | None = None):
        self.samples = Samples(folder)
        self._frames = TopKFolder(Path(frames or folder))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> dict[str, Any]:
        sample = self.samples[number]
        item = {"id": sample.id, "text": sample.text, "token_ids": sample.token_ids}
        if sample.frame is None:
            return item
        topk = self._frames.of(sample)
        return {**item, "topk_ids": topk.ids, "topk_logprobs": topk.logprobs, "topk_tail": topk.tail}

    def rows(self) -> Iterator[dict[str, Any]]:
        """All items, for `datasets.Dataset.from_generator`."""
        for number in range(len(self)):
            yield self[number]


def _number(path: Path) -> int:
    return int(path.name.split(".")[0])
