"""The cache of measures: RUN/measured holds one column for each measure and shard.

Missing columns are computed by several processes, one per core by default (filter.workers).
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
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
from pipeline.storage.files import read_json, read_object, write_json
from pipeline.storage.shards import read_lines
from pipeline.storage.topk import TopKFolder

log = logging.getLogger(__name__)

ORDER_FILE = "filters.json"
FEW = 2000  # for this many samples, starting processes takes longer than any measure but slow ones


@dataclass(frozen=True)
class Shard:
    """One sealed shard of samples. `content` is a hash of its file."""

    path: Path
    records: int
    content: str


class MeasureCache:
    """Cached columns of the samples of a finished stage."""

    def __init__(self, run_dir: Path, folder: str = "generate"):
        self.folder = run_dir / folder
        self.cache = run_dir / "measured"
        self.shards = list_shards(self.folder)

    @property
    def samples(self) -> int:
        """The number of samples in all shards."""
        return sum(shard.records for shard in self.shards)

    def fill(self, measures: Iterable[Measure], workers: int) -> None:
        """Compute the columns that are missing in the cache, with at most `workers` processes."""
        wanted = list(dict.fromkeys(measures))
        tasks: list[Task] = []
        for shard in self.shards:
            paths = [(measure, self._path(measure.name, shard)) for measure in wanted]
            missing = [(measure, path) for measure, path in paths if not path.exists()]
            if missing:
                tasks.append((shard, missing))
        if not tasks:
            return
        samples = sum(shard.records for shard, _ in tasks)
        progress = Progress("filter", self.samples, done=self.samples - samples)
        if samples <= FEW and not any(measure.slow for measure in wanted):
            workers = 1
        workers = min(workers, len(tasks))
        is_risky = any(measure.slow and measure.lost is not None for measure in wanted)
        apart = workers > 1 or is_risky
        for shard in _run_in_processes(tasks, workers) if apart else map(_measure, tasks):
            progress.add(shard.records)
            progress.show()
        progress.show(last=True)

    def column(self, measure: Measure) -> Column:
        """Return all rows of a measure that is in the cache."""
        paths = [self._path(measure.name, shard) for shard in self.shards]
        return columns.join_columns([columns.load_column(path) for path in paths])

    def value(self, measure: str, row: int) -> Any:
        """Return one row of a measure, by its name; None if it is not in the cache."""
        for shard in self.shards:
            if row < shard.records:
                column = self.shard_column(measure, shard)
                value = None if column is None else column[row]
                return value.item() if isinstance(value, np.generic) else value
            row -= shard.records
        raise IndexError(row)

    def shard_column(self, measure: str, shard: Shard) -> Column | None:
        """Return one shard's rows of a measure, by its name; None if they are not in the cache."""
        path = self._path(measure, shard)
        return columns.load_column(path) if path.exists() else None

    def _path(self, measure: str, shard: Shard) -> Path:
        shard_name = shard.path.name.removesuffix(".jsonl.gz")
        return self.cache / measure / f"{shard_name}-{shard.content}.npz"


def write_order(folder: Path, filters: Iterable[tuple[str, Iterable[Measure]]]) -> None:
    """Write filters.json: the filters that ran, in order, each with its measures."""
    order = []
    for name, measures in filters:
        order.append([name, [measure.name for measure in measures]])
    write_json(folder / ORDER_FILE, order)


def read_order(folder: Path) -> list[tuple[str, list[str]]]:
    """Return the filters that ran, in order, with their measures; empty if none has run."""
    path = folder / ORDER_FILE
    return [(name, measures) for name, measures in read_json(path)] if path.exists() else []


def worker_count(settings: Filter) -> int:
    """Return how many processes compute measures."""
    return settings.workers or len(os.sched_getaffinity(0))


def columns_of_run(
    run_dir: Path, folder: str, measures: Sequence[Measure], settings: Filter
) -> list[Any]:
    """Return columns of another run's samples; what is missing is computed in that run's cache."""
    if not (run_dir / folder / "manifest.json").exists():
        raise PipelineError(
            f"{run_dir}: its {folder} stage is not finished, but a filter needs its samples; "
            "finish that stage first"
        )
    measured = MeasureCache(run_dir, folder)
    measured.fill(measures, worker_count(settings))
    return [measured.column(measure) for measure in measures]


Task = tuple[Shard, list[tuple[Measure, Path]]]


def list_shards(folder: Path) -> list[Shard]:
    """Return the shards of a finished stage, in order."""
    files = read_object(folder / "manifest.json", "files")["files"]
    names = [name for name in files if name.endswith(".jsonl.gz") and "/" not in name]
    names.sort(key=lambda name: int(name.split(".")[0]))
    shards = []
    for name in names:
        entry = files[name]
        shards.append(Shard(folder / name, entry["records"], entry["sha256"][:16]))
    return shards


def _measure(task: Task) -> Shard:
    shard, measures = task
    batch = Batch(_samples(shard), _frames(shard.path.parent))
    for measure, path in measures:
        columns.save_column(path, measure(batch))
    return shard


def _samples(shard: Shard) -> list[Sample]:
    lines = enumerate(read_lines(shard.path), start=1)
    return [Sample.from_line(line, f"{shard.path}:{number}") for number, line in lines]


def _frames(folder: Path) -> TopKFolder:
    """Return the frames of a finished folder; one that was made anew since is opened anew."""
    return _opened(folder, (folder / "manifest.json").stat().st_mtime_ns)


@lru_cache(1)
def _opened(folder: Path, finished: int) -> TopKFolder:
    return TopKFolder(folder)


def _run_in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Shard]:
    """Run the tasks in worker processes, in any order. The workers end when this process does.

    If a worker is killed, the rest is measured by one process at a time, so that a sample at which
    every process dies costs that sample alone.
    """
    remaining = {task[0].path: task for task in tasks}
    try:
        for shard in _run_together(tasks, workers):
            del remaining[shard.path]
            yield shard
    except BrokenProcessPool:
        log.warning(
            "filter: one of its processes was killed, perhaps for lack of memory; "
            "the rest is measured by one process at a time"
        )
    for task in remaining.values():
        yield _measure_alone(task)


def _measure_alone(task: Task) -> Shard:
    """Measure a shard in a new process. If the process dies, measure parts of the shard."""
    shard, measures = task
    for measure, path in measures:
        try:
            _in_process(_measure, (shard, [(measure, path)]))
        except BrokenProcessPool:
            columns.save_column(path, _rows_by_parts(shard, measure, 0, shard.records))
    return shard


def _rows_by_parts(shard: Shard, measure: Measure, begin: int, end: int) -> list[Any]:
    """Measure samples `begin` to `end` - 1. If the process dies, measure each half by itself."""
    try:
        return list(_in_process(_measure_part, shard, measure, begin, end))
    except BrokenProcessPool:
        if end - begin > 1:
            middle = (begin + end) // 2
            first = _rows_by_parts(shard, measure, begin, middle)
            return first + _rows_by_parts(shard, measure, middle, end)
    if measure.lost is None:
        raise PipelineError(
            f"{shard.path}:{end}: the process that measures this sample is killed each time, by "
            f"{measure.name}; free memory, or remove the sample's example"
        )
    return [measure.lost]


def _measure_part(shard: Shard, measure: Measure, begin: int, end: int) -> Column:
    return measure(Batch(_samples(shard)[begin:end], _frames(shard.path.parent)))


def _in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own. Raises BrokenProcessPool if the process dies."""
    with _pool(1) as pool:
        return pool.submit(function, *arguments).result()


def _pool(workers: int) -> ProcessPoolExecutor:
    # not fork: it would copy locks that other threads hold, and nobody would release the copies
    context = multiprocessing.get_context("spawn")
    arguments = (list(sys.path),)
    return ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=arguments)


def _run_together(tasks: Sequence[Task], workers: int) -> Iterator[Shard]:
    """Run the tasks in some processes. Raises BrokenProcessPool if one is killed."""
    pool = _pool(workers)
    waiting = iter(tasks)
    running: set[Future[Shard]] = set()
    try:
        while True:
            batch = islice(waiting, 2 * workers - len(running))
            running |= {pool.submit(_measure, task) for task in batch}
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _start_worker(path: list[str]) -> None:
    """Prepare a worker: ignore Ctrl-C, which the parent handles, and end when the parent ends."""
    sys.path[:] = path
    console.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
