"""Measures of all samples of a run, by as many processes as there are cores, each found once: RUN/measured keeps them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Filter
from pipeline.errors import PipelineError
from pipeline.execution import console
from pipeline.execution.progress import Progress
from pipeline.filters import measures as columns
from pipeline.filters.measures import Batch, Column, Measure
from pipeline.records import Sample
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_lines
from pipeline.storage.topk import TopKFolder

FEW = 2000  # samples that are measured sooner than a process is started, if the measure is not slow


@dataclass(frozen=True)
class Shard:
    """One sealed shard of samples; `content` tells it from one that was made again."""

    path: Path
    records: int
    content: str


class MeasureCache:
    """The columns of a finished folder of samples, by measure."""

    def __init__(self, run_dir: Path, folder: str = "generate"):
        self.folder = run_dir / folder
        self.cache = run_dir / "measured"
        self.shards = shards(self.folder)

    @property
    def samples(self) -> int:
        return sum(shard.records for shard in self.shards)

    def fill(self, measures: Iterable[Measure], workers: int) -> None:
        """Measure what is not in the cache. The same values come from any number of workers."""
        wanted = list(dict.fromkeys(measures))
        todo = [
            (shard, lacking)
            for shard in self.shards
            if (lacking := [m for m in wanted if not self._path(m, shard).exists()])
        ]
        if not todo:
            return
        samples = sum(shard.records for shard, _ in todo)
        progress = Progress("filter", self.samples, done=self.samples - samples)
        tasks = [
            (shard, [(measure, self._path(measure, shard)) for measure in lacking])
            for shard, lacking in todo
        ]
        workers = (
            min(workers, len(tasks))
            if samples > FEW or any(measure.slow for measure in wanted)
            else 1
        )
        for shard in _in_processes(tasks, workers) if workers > 1 else _here(tasks):
            progress.add(shard.records)
            progress.show()
        progress.show(last=True)

    def column(self, measure: Measure) -> Column:
        """All rows of one measure that has been found."""
        return columns.join_columns(
            [columns.load_column(self._path(measure, shard)) for shard in self.shards]
        )

    def value(self, measure: str, row: int) -> Any:
        """What one row of a measure, by its name, holds; None if it is not in the cache."""
        for shard in self.shards:
            if row < shard.records:
                found = self.shard_column(measure, shard)
                value = None if found is None else found[row]
                return value.item() if isinstance(value, np.generic) else value
            row -= shard.records
        raise IndexError(row)

    def shard_column(self, measure: str, shard: Shard) -> Column | None:
        """One shard's rows of a measure, by its name; None if they are not in the cache."""
        path = self._path_of(measure, shard)
        return columns.load_column(path) if path.exists() else None

    def _path(self, measure: Measure, shard: Shard) -> Path:
        return self._path_of(measure.name, shard)

    def _path_of(self, measure: str, shard: Shard) -> Path:
        return (
            self.cache
            / measure
            / f"{shard.path.name.removesuffix('.jsonl.gz')}-{shard.content}.npz"
        )


def worker_count(settings: Filter) -> int:
    """How many processes measure."""
    return settings.workers or len(os.sched_getaffinity(0))


def columns_of_run(
    run_dir: Path, folder: str, measures: Sequence[Measure], settings: Filter
) -> list[Any]:
    """Columns of another run's samples, measured there if they are not yet."""
    if not (run_dir / folder / "manifest.json").exists():
        raise PipelineError(
            f"{run_dir}: its {folder} is not finished, and a filter of another run needs it; run it to the end"
        )
    measured = MeasureCache(run_dir, folder)
    measured.fill(measures, worker_count(settings))
    return [measured.column(measure) for measure in measures]


Task = tuple[Shard, list[tuple[Measure, Path]]]


def shards(folder: Path) -> list[Shard]:
    """The shards of a finished stage, in order, empty ones left out."""
    files = read_json(folder / "manifest.json")["files"]
    names = sorted(
        (name for name in files if name.endswith(".jsonl.gz") and "/" not in name),
        key=lambda name: int(name.split(".")[0]),
    )
    return [
        Shard(folder / name, files[name]["records"], files[name]["sha256"][:16]) for name in names
    ]


def _measure(task: Task) -> Shard:
    shard, measures = task
    samples = [
        Sample.from_line(line, f"{shard.path}:{number}")
        for number, line in enumerate(read_lines(shard.path), start=1)
    ]
    batch = Batch(samples, _frames(shard.path.parent))
    for measure, path in measures:
        columns.save_column(path, measure(batch))
    return shard


@lru_cache(1)
def _frames(folder: Path) -> TopKFolder:
    return TopKFolder(folder)


def _here(tasks: Iterable[Task]) -> Iterator[Shard]:
    for task in tasks:
        yield _measure(task)


def _in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Shard]:
    """Run tasks elsewhere, in no order. Processes end with this one, however it ends."""
    context = multiprocessing.get_context(
        "spawn"
    )  # a fork would copy the locks of whatever threads are at work
    pool = ProcessPoolExecutor(workers, context, initializer=_settle, initargs=(list(sys.path),))
    waiting = iter(tasks)
    running: set[Future[Shard]] = set()
    try:
        while True:
            running |= {
                pool.submit(_measure, task)
                for _, task in zip(range(2 * workers - len(running)), waiting, strict=False)
            }
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenProcessPool:
        raise PipelineError(
            "filter: one of its processes was ended (is memory short?); the same command continues from here, filter.workers=1 needs least"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _settle(path: list[str]) -> None:
    """Signals are the parent's to hear, and its end, however it comes, is the end of its processes."""
    sys.path[:] = path
    console.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
