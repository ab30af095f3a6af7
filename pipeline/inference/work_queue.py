"""The samples that a stage has to make, shard by shard, so that a worker loads only its own shards.

work.json is written when the seeds have been counted. It holds the number of seeds and where each
shard's seeds begin in the file. --retry-errors adds the failures to retry. The first shards hold
the seeds' samples, in order; extra shards after them hold retried samples.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from pipeline.data import seeds
from pipeline.execution.contract import Job
from pipeline.records import Identified
from pipeline.storage.files import write_atomic
from pipeline.storage.journal import Shard, archive_file, read_failures, sealed_path, sweep
from pipeline.storage.locks import locked

S = TypeVar("S")
T = TypeVar("T", bound=Identified)


class Work(BaseModel):
    """The content of work.json.

    Attributes:
        shard_seeds: seeds per shard.
        samples: samples per seed.
        offsets: where each shard's seeds begin in the file.
        retries: one list per extra shard, with (seed number, sample index) of its samples.
        taken_up: shards whose failures were copied into `retries`. The list is emptied when their
            error files are known to be archived.
    """

    seeds: int
    shard_seeds: int
    samples: int
    offsets: tuple[int, ...] = ()
    retries: list[list[tuple[int, int]]] = []
    taken_up: list[int] = []

    @property
    def shards(self) -> int:
        """Count all shards, including the extra shards of retries."""
        return -(-self.seeds // self.shard_seeds) + len(self.retries)

    @property
    def total(self) -> int:
        """Count the samples of the whole run."""
        return self.seeds * self.samples

    def size(self, shard: int) -> int:
        """Count the samples of a shard."""
        first = shard * self.shard_seeds
        if first >= self.seeds:
            return len(self.retries[self.retry_index(shard)])
        return (min(first + self.shard_seeds, self.seeds) - first) * self.samples

    def retry_index(self, shard: int) -> int:
        """Return the index in `retries` of an extra shard."""
        return shard - (self.shards - len(self.retries))


def open_work(folder: Path, make: Callable[[], Work]) -> Work:
    """Read work.json, or write what `make` returns; one process at a time."""
    path = folder / "work.json"
    with locked(folder / "work.lock"):
        if not path.exists():
            write_atomic(path, make().model_dump_json())
        work = Work.model_validate_json(path.read_bytes())
        work = _move_taken_up(folder, work)
    sweep(folder)
    return work


def open_seed_work(
    folder: Path, source: seeds.PinnedSource, shard_seeds: int, samples: int
) -> tuple[Work, seeds.Cursor]:
    """Open work.json for `samples` samples per seed. Return it and a cursor over the seeds."""

    def make() -> Work:
        survey = seeds.survey(source, shard_seeds)
        return Work(
            seeds=survey.seeds, shard_seeds=survey.stride, samples=samples, offsets=survey.offsets
        )

    work = open_work(folder, make)
    return work, seeds.Cursor(source, seeds.Survey(work.seeds, work.shard_seeds, work.offsets))


def retry_errors(job: Job) -> None:
    """Let the next run retry all failures. Call it only while no other process uses the folder.

    An unfinished shard drops its failures. Finished shards are never changed, so their failures go
    to extra shards.
    """
    folder = job.folder
    path = folder / "work.json"
    if not path.exists():
        return
    (folder / "manifest.json").unlink(missing_ok=True)
    work = _move_taken_up(folder, Work.model_validate_json(path.read_bytes()))
    paths = failure_files(folder)
    sealed = [file for file in paths if sealed_path(folder, int(file.stem)).exists()]
    places = [(failed.number, failed.index) for file in sealed for failed in read_failures(file)]
    size = work.shard_seeds * work.samples
    shards = [places[first : first + size] for first in range(0, len(places), size)]
    update = {
        "retries": work.retries + shards,
        "taken_up": [int(file.stem) for file in sealed],
    }
    write_atomic(path, work.model_copy(update=update).model_dump_json())
    for file in paths:
        archive_file(file, folder / "errors" / "retried")


def _move_taken_up(folder: Path, work: Work) -> Work:
    """Archive the error files of `taken_up` shards if a crash came before that.

    Otherwise the same failures would be counted and retried twice.
    """
    if not work.taken_up:
        return work
    for number in work.taken_up:
        archive_file(errors_path(folder, number), folder / "errors" / "retried")
    work = work.model_copy(update={"taken_up": []})
    write_atomic(folder / "work.json", work.model_dump_json())
    return work


def failure_files(folder: Path) -> list[Path]:
    """Return the error files of all shards, in order."""
    return sorted((folder / "errors").glob("[0-9]*.jsonl"))


def errors_path(folder: Path, shard: int) -> Path:
    """Return the path of a shard's error file."""
    return folder / "errors" / f"{shard:05d}.jsonl"


@dataclass(frozen=True)
class Item(Generic[S]):
    """One sample to make. Its source is a seed (generate) or an existing sample (score).

    `number` is the position of the source, from 0. `index` says which of the source's samples this
    is.
    """

    id: str
    source: S
    number: int
    index: int


class Worker(Generic[S, T]):
    """The shards of one folder that this process works on.

    `items` are the missing samples of these shards, by id.

    Args:
        take: returns the sources with the numbers `first` to `last` - 1.
        make_id: makes the id of a sample from its source and index.
    """

    def __init__(
        self,
        folder: Path,
        work: Work,
        record: type[T],
        take: Callable[[int, int], Sequence[S]],
        make_id: Callable[[S, int], str],
    ):
        self.folder = folder
        self.work = work
        self.record = record
        self.items: dict[str, Item[S]] = {}
        self._take = take
        self._make_id = make_id
        # samples in extra shards; if `verify --repair` reopens the original shard, it must not make
        # them again
        self._retried = {place for shard in work.retries for place in shard}

    def unsealed(self) -> list[int]:
        """Return the numbers of the unfinished shards."""
        names = set(os.listdir(self.folder))
        return [
            number
            for number in range(self.work.shards)
            if sealed_path(self.folder, number).name not in names
        ]

    def others_hold_the_rest(self) -> bool:
        """Return True if other processes hold all unfinished shards."""
        for number in self.unsealed():
            shard = Shard(self.folder, number, self.record)
            if shard.claim():
                shard.release()
                return False
        return True

    def count_stored(self) -> int:
        """Count the samples on disk, without reading finished shards."""
        sealed = set(range(self.work.shards)) - set(self.unsealed())
        count = sum(self.work.size(number) for number in sealed)
        # retried samples are missing in their sealed shards, and their error files are archived
        count -= sum(map(len, self.work.retries))
        for path in failure_files(self.folder):
            if int(path.stem) in sealed:
                count -= len(read_failures(path))
        for path in self.folder.glob("*.journal.jsonl"):
            count += path.read_bytes().count(b"\n")
        return count

    def claim(self, header: bytes) -> Iterator[Shard[T]]:
        """Claim the shards that no other process holds, one after the other."""
        for number in self.unsealed():
            shard = Shard(self.folder, number, self.record)
            if shard.claim():
                items = {item.id: item for item in self._items(number)}
                shard.recover(list(items), header)
                self.items |= {identifier: items[identifier] for identifier in shard.missing}
                yield shard

    def _items(self, shard: int) -> list[Item[S]]:
        """Return the samples of a shard, without those that a later shard retries."""
        work = self.work
        first = shard * work.shard_seeds
        if first >= work.seeds:
            return self._retried_items(work.retry_index(shard))
        items = []
        sources = self._take(first, min(first + work.shard_seeds, work.seeds))
        for number, source in enumerate(sources, start=first):
            for index in range(work.samples):
                if (number, index) not in self._retried:
                    items.append(Item(self._make_id(source, index), source, number, index))
        return items

    def _retried_items(self, retry: int) -> list[Item[S]]:
        places, *later_shards = self.work.retries[retry:]
        later = {place for shard in later_shards for place in shard}
        items = []
        for number, index in places:
            if (number, index) not in later:
                source = self._take(number, number + 1)[0]
                items.append(Item(self._make_id(source, index), source, number, index))
        return items
