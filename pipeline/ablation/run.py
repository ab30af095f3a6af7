"""ablate: train students on curated, random and smaller sets of rows, and compare their scores.

RUN/ablate is itself a run folder. It links to RUN/generate and RUN/filter. Its arms are repeats of
one arm of the config: on the kept samples, on an equal number drawn at random from all samples, and
on shares of the kept ones. Every arm makes the same number of optimiser steps. So the arms differ
in their samples, not in the amount of training. Repeat n has random seed n, which also decides
which samples are drawn.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.ablation.plan import SHARED, Plan
from pipeline.ablation.results import report, results
from pipeline.errors import PipelineError
from pipeline.execution import manifest, runner
from pipeline.execution.progress import format_duration
from pipeline.stages import evaluate, train
from pipeline.storage.locks import Lock

log = logging.getLogger(__name__)

RunArm = Callable[[str, str], object]  # runs one arm of a stage: ("train", "curated-0")


def run(plan: Plan, run_arm: RunArm, redo: bool = False) -> bool:
    """Train and evaluate every unfinished arm; return True if there was one.

    With `redo`, existing results are archived first. Raises PipelineError if another process runs
    the same ablation.
    """
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / "lock")
    if not lock.take():
        raise PipelineError(
            f"{folder}: process {lock.holder} is at work here; wait for it, or end it"
        )
    try:
        if redo:
            _archive(plan)
        _link(folder)
        remaining = [arm for arm in plan.arms if not _is_done(plan, arm)]
        _run_arms(plan, remaining, run_arm)
    finally:
        lock.release()
    return bool(remaining)


def write(plan: Plan) -> str:
    """Write results.json, and return the text to print."""
    figures = results(plan)
    path = plan.folder / "results.json"
    figures.write(path)
    return f"{report(figures)}\n{path}"


def _run_arms(plan: Plan, remaining: Sequence[str], run_arm: RunArm) -> None:
    total = len(plan.arms)
    finished = total - len(remaining)
    if remaining:
        log.info(f"ablate: {total} students of {plan.method_of}, {finished} of them done")
    for done, arm in enumerate(remaining, start=finished + 1):
        run_arm(train.NAME, arm)
        run_arm(evaluate.NAME, arm)
        train.finish(plan.config)
        if done < total:
            time = format_duration((total - done) * _seconds(plan))
            log.info(f"ablate: {arm} done, {done} of {total}; about {time} remaining")


def _archive(plan: Plan) -> None:
    for name in SHARED:
        (plan.folder / name).unlink(missing_ok=True)
    runner.archive_folder(plan.folder.parent, plan.folder)


def _link(folder: Path) -> None:
    """Link to the run's generate and filter; relative links survive a move of the run folder."""
    for name in SHARED:
        link = folder / name
        if link.is_symlink():
            continue
        try:
            link.symlink_to(Path("..") / name)
        except OSError as error:
            raise PipelineError(
                f"{link}: cannot be made a symbolic link ({error.strerror}); "
                "use a run_dir on another file system"
            ) from None


def _is_done(plan: Plan, arm: str) -> bool:
    return all(runner.is_done(stage, plan.config, [arm]) for stage in (train, evaluate))


def _seconds(plan: Plan) -> float:
    """Return the mean time of the finished arms, which estimates the time of the others."""
    times = []
    for arm in plan.arms:
        if (plan.folder / evaluate.NAME / arm / "manifest.json").exists():
            parts = [f"{stage.NAME}/{arm}" for stage in (train, evaluate)]
            times.append(
                sum(manifest.read_manifest(plan.folder, part)["seconds"] for part in parts)
            )
    return float(np.mean(times))
