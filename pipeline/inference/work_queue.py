"""What a stage that asks the teacher has to do, shard by shard, so that a worker holds no more of it than it works on.

work.json is made once a run, when the seeds have been read through: how many there are, where each shard's begin, and later what is to
be tried again. Shards are numbered: first those of the seeds in their order, then those of what --retry-errors took up.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from pipeline.execution.contract import Job
from pipeline.records import Identified
from pipeline.storage.files import write_atomic
from pipeline.storage.journal import Shard, archive_file, read_failures, sealed_path, sweep
from pipeline.storage.locks import locked

S = TypeVar("S")
T = TypeVar("T", bound=Identified)


class Work(BaseModel):
    """The content of work.json.

    `retries`: for each extra shard (number of the seed, index) of what it holds. `taken_up`: the shards whose failures these are, until
    their files have been moved.
    """

    seeds: int
    shard_seeds: int
    samples: int  # a seed
    offsets: tuple[int, ...] = ()
    retries: list[list[tuple[int, int]]] = []
    taken_up: list[int] = []

    @property
    def shards(self) -> int:
        return -(-self.seeds // self.shard_seeds) + len(self.retries)

    @property
    def total(self) -> int:
        return self.seeds * self.samples

    def size(self, shard: int) -> int:
        """Samples of a shard."""
        first = shard * self.shard_seeds
        if first >= self.seeds:
            return len(self.retries[self.retry(shard)])
        return (min(first + self.shard_seeds, self.seeds) - first) * self.samples

    def retry(self, shard: int) -> int:
        """Which of `retries` a shard is."""
        return shard - (self.shards - len(self.retries))


def open_work(folder: Path, make: Callable[[], Work]) -> Work:
    """Read work.json, or write what `make` finds; one process at a time."""
    path = folder / "work.json"
    with locked(folder / "work.lock"):
        if not path.exists():
            write_atomic(path, make().model_dump_json())
        work = Work.model_validate_json(path.read_bytes())
        work = _move_taken_up(folder, work)
    sweep(folder)
    return work


def retry_errors(job: Job) -> None:
    """Have what failed asked again by the next run. Only while no other process works in the folder.

    An unfinished shard forgets its failures; those of finished ones, which are never touched again, go to extra shards.
    """
    folder = job.folder
    path = folder / "work.json"
    if not path.exists():
        return
    (folder / "manifest.json").unlink(missing_ok=True)
    work = _move_taken_up(folder, Work.model_validate_json(path.read_bytes()))
    paths = failure_files(folder)
    sealed = [file for file in paths if sealed_path(folder, int(file.stem)).exists()]
    again = [(failed.number, failed.index) for file in sealed for failed in read_failures(file)]
    size = work.shard_seeds * work.samples
    write_atomic(
        path,
        work.model_copy(
            update={
                "retries": work.retries
                + [again[first : first + size] for first in range(0, len(again), size)],
                "taken_up": [int(file.stem) for file in sealed],
            }
        ).model_dump_json(),
    )
    for file in paths:
        archive_file(file, folder / "errors" / "retried")


def _move_taken_up(folder: Path, work: Work) -> Work:
    """Finish what a crash may have kept from being moved, so that later failures of these shards are not taken for it."""
    if not work.taken_up:
        return work
    for number in work.taken_up:
        archive_file(errors_path(folder, number), folder / "errors" / "retried")
    work = work.model_copy(update={"taken_up": []})
    write_atomic(folder / "work.json", work.model_dump_json())
    return work


def failure_files(folder: Path) -> list[Path]:
    return sorted((folder / "errors").glob("[0-9]*.jsonl"))


def errors_path(folder: Path, shard: int) -> Path:
    return folder / "errors" / f"{shard:05d}.jsonl"


@dataclass(frozen=True)
class Item(Generic[S]):
    """One sample to be made: its id, what it is made from (a seed, or a sample to be scored), where that stands, and its index."""

    id: str
    source: S
    number: int
    index: int


class Worker(Generic[S, T]):
    """One process's part in a folder of shards. `items` are what is missing in the shards that it holds, by sample id.

    Args:
        take: (first, last) -> the sources with these numbers, last left out.
        name: (source, index) -> id of a sample.
    """

    def __init__(
        self,
        folder: Path,
        work: Work,
        record: type[T],
        take: Callable[[int, int], Sequence[S]],
        name: Callable[[S, int], str],
    ):
        self.folder, self.work, self.record = folder, work, record
        self.items: dict[str, Item[S]] = {}
        self._take, self._name = take, name
        self._elsewhere = {
            place for shard in work.retries for place in shard
        }  # a shard that is repaired must not have them too

    def unsealed(self) -> list[int]:
        """Numbers of the shards that are not finished."""
        names = set(os.listdir(self.folder))
        return [
            number
            for number in range(self.work.shards)
            if sealed_path(self.folder, number).name not in names
        ]

    def others_hold_the_rest(self) -> bool:
        """Whether other processes have all that is left."""
        for number in self.unsealed():
            shard = Shard(self.folder, number, self.record)
            if shard.claim():
                shard.release()
                return False
        return True

    def count_stored(self) -> int:
        """Samples that are on disk, finished shards not read."""
        sealed = set(range(self.work.shards)) - set(self.unsealed())
        failed = sum(
            len(read_failures(path))
            for path in failure_files(self.folder)
            if int(path.stem) in sealed
        )
        taken_up = sum(map(len, self.work.retries))
        whole = sum(self.work.size(number) for number in sealed) - failed - taken_up
        return whole + sum(
            path.read_bytes().count(b"\n") for path in self.folder.glob("*.journal.jsonl")
        )

    def claim(self, header: bytes) -> Iterator[Shard[T]]:
        """Take the free shards one after the other; those that others hold are passed over."""
        for number in self.unsealed():
            shard = Shard(self.folder, number, self.record)
            if shard.claim():
                items = {item.id: item for item in self._items(number)}
                shard.recover(list(items), header)
                self.items |= {identifier: items[identifier] for identifier in shard.missing}
                yield shard

    def _items(self, shard: int) -> list[Item[S]]:
        work = self.work
        first = shard * work.shard_seeds
        if first < work.seeds:
            sources = self._take(first, min(first + work.shard_seeds, work.seeds))
            places = [
                (number, index)
                for number in range(first, first + len(sources))
                for index in range(work.samples)
            ]
            places = [place for place in places if place not in self._elsewhere]
            return [self._item(sources[number - first], number, index) for number, index in places]
        own = work.retry(shard)
        later = {place for places in work.retries[own + 1 :] for place in places}
        places = [place for place in work.retries[own] if place not in later]
        return [
            self._item(self._take(number, number + 1)[0], number, index) for number, index in places
        ]

    def _item(self, source: S, number: int, index: int) -> Item[S]:
        return Item(self._name(source, index), source, number, index)
