"""ablate: what curation is worth, and whether more data would help, by students trained on it and on less or other data.

RUN/ablate is a run folder of its own: it shares RUN/generate and RUN/filter by links, and its arms are repeats of one arm of the config on
the kept samples, on as many drawn at random from all, and on shares of the kept ones. Every arm makes as many optimiser steps, so that sets
differ in their samples and not in how long was trained on them. Repeat n has training seed n, which also draws its samples.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.ablation.plan import SHARED, Plan
from pipeline.ablation.results import report, results
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.execution.progress import clock
from pipeline.stages import evaluate, train
from pipeline.storage.locks import Lock

log = logging.getLogger(__name__)

Do = Callable[
    [str, str], object
]  # runs one arm of a stage, in a process of its own: ("train", "curated-0")


def run(planned: Plan, do: Do, redo: bool = False) -> bool:
    """Train and evaluate every arm that is not there yet. Returns whether there was one. Says how long the rest will take.

    With `redo` what is there is set aside first. Raises PipelineError if another process does the same. An arm's checkpoints are dropped
    when it has been evaluated: a dozen students would fill a disk with them.
    """
    folder = planned.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / "lock")
    if not lock.take():
        raise PipelineError(
            f"{folder}: process {lock.holder} is at work here; wait for it, or end it"
        )
    try:
        if redo:
            _archive(planned)
        _link(folder)
        left = [name for name in planned.arms if not _is_done(planned, name)]
        _make(planned, left, do)
    finally:
        lock.release()
    return bool(left)


def write(planned: Plan) -> str:
    """Write results.json, and return what to print."""
    figures = results(planned)
    path = planned.folder / "results.json"
    figures.write(path)
    return f"{report(figures)}\n{path}"


def _make(planned: Plan, left: Sequence[str], do: Do) -> None:
    arms = len(planned.arms)
    if left:
        log.info(f"ablate: {arms} students of {planned.method_of}, {arms - len(left)} of them done")
    for remaining, name in zip(reversed(range(len(left))), left, strict=True):
        do(train.NAME, name)
        do(evaluate.NAME, name)
        shutil.rmtree(planned.folder / train.NAME / name / "checkpoints", ignore_errors=True)
        if remaining:
            time_left = clock(remaining * _seconds(planned))
            log.info(f"ablate: {name} done, {arms - remaining} of {arms}; about {time_left} left")


def _archive(planned: Plan) -> None:
    folder = planned.folder
    for name in SHARED:
        (folder / name).unlink(missing_ok=True)
    runner.archive_folder(folder.parent, folder)


def _link(folder: Path) -> None:
    """Let a run folder below the run have what the run has. Relative, so that a run can be moved."""
    for name in SHARED:
        link = folder / name
        if link.is_symlink():
            continue
        try:
            link.symlink_to(Path("..") / name)
        except OSError as error:
            raise PipelineError(
                f"{link}: cannot be made a symbolic link ({error.strerror}); use a run_dir on another file system"
            ) from None


def _is_done(planned: Plan, name: str) -> bool:
    return all(runner.is_done(module, planned.config, [name]) for module in (train, evaluate))


def _seconds(planned: Plan) -> float:
    """What an arm takes, on average of those that are done; all make as many steps."""
    seconds = [
        sum(
            manifest.read_manifest(planned.folder, f"{module.NAME}/{name}")["seconds"]
            for module in (train, evaluate)
        )
        for name in planned.arms
        if (planned.folder / evaluate.NAME / name / "manifest.json").exists()
    ]
    return float(np.mean(seconds))
