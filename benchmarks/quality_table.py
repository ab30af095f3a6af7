"""The rows of `benchmarks.quality`: figures of finished runs beside their bars.

Dimension names: I held-out examples, R repeats of a model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_runs import LIMITS
from benchmarks.table import Row
from pipeline.advice.rules import outcome
from pipeline.evaluation.format import tested
from pipeline.evaluation.results import difference_of
from pipeline.evaluation.results_model import Difference, Results
from pipeline.evaluation.small_samples import POSITIVE, UNIT
from pipeline.execution.paths import BASE, TEACHER
from pipeline.records import Faithful, Scored
from pipeline.storage.files import read_object
from pipeline.storage.shards import read_records

MARGIN, NATS = 0.03, 0.15  # by which a student may miss its teacher: score, nats/token
REACHED, BETTER = 6 / 7, 3 / 7  # shares of the tasks
HEALED = 3  # tasks

Values = Mapping[str, float]  # by held-out example


@dataclass(frozen=True)
class Outcome:
    """Figures of a task's main run.

    Attributes:
        best: the best student, a mean over its training seeds.
        short: how far it is from its teacher, in points of the score; None for free text.
        kl: its divergence from the teacher in nats/token; None if it was not measured.
        methods: kd - sft; None if one of the two is missing.
    """

    best: str
    short: float | None
    kl: float | None
    methods: Difference | None

    @property
    def reached(self) -> bool:
        """True if the student is near enough to its teacher."""
        return self.kl <= NATS if self.kl is not None else (self.short or 0.0) >= -MARGIN


def outcome_of(run_dir: Path) -> Outcome:
    """Return the figures of a finished run."""
    results = Results.read(run_dir / "evaluate" / "results.json")
    nats = {name: _kl(results, name) for name in _students(results)}
    scores = {name: _score(results, name) for name in nats}
    measured = {name: value for name, value in nats.items() if value is not None}
    best = (
        min(measured, key=measured.__getitem__) if measured else max(scores, key=scores.__getitem__)
    )
    short = scores[best] - results.models[TEACHER].score.mean
    methods = (
        d for name, d in results.differences.items() if results.methods(name) == ("kd", "sft")
    )
    return Outcome(best, None if measured else short, measured.get(best), next(methods, None))


def _students(results: Results) -> list[str]:
    """Return the groups of repeats, and the arms that have none."""
    repeated = {arm for group in results.repeats.values() for arm in group.arms}
    single = [name for name in results.models if name not in {TEACHER, BASE, *repeated}]
    return [*results.repeats, *single]


def _arms(results: Results, name: str) -> list[str]:
    return results.repeats[name].arms if name in results.repeats else [name]


def _score(results: Results, name: str) -> float:
    return float(np.mean([results.models[arm].score.mean for arm in _arms(results, name)]))


def _kl(results: Results, name: str) -> float | None:
    """Return the mean KL of a student over its repeats; None if the fidelity was not measured."""
    figures = [results.models[arm].fidelity for arm in _arms(results, name)]
    nats = [figure.kl.mean for figure in figures if figure and figure.kl]
    return float(np.mean(nats)) if nats else None


def main_rows(runs: Mapping[str, Path]) -> Iterator[Row]:
    """Yield the rows of the main runs: near the teacher, KD against SFT, the advice."""
    outcomes = {task: outcome_of(run_dir) for task, run_dir in runs.items()}
    yield from _reached_rows(outcomes)
    yield from _method_rows(outcomes)
    yield from _advice_rows(runs, outcomes)
    for task, run_dir in runs.items():
        yield _equal_row(task, run_dir)
        yield _cost_row(task, run_dir)


def _reached_rows(outcomes: Mapping[str, Outcome]) -> Iterator[Row]:
    for task, found in outcomes.items():
        if found.kl is not None:
            figure = f"{found.best}: {found.kl:.3f} nats/token"
        else:
            figure = f"{found.best}: {found.short:+.3f}"
        yield Row(f"{task}: best student against its teacher", "", figure, found.reached)
    count, needed = sum(found.reached for found in outcomes.values()), _share(REACHED, outcomes)
    what = f"tasks with a student within {MARGIN} (free text: {NATS} nats/token)"
    yield Row(what, f">= {needed}", f"{count} of {len(outcomes)}", count >= needed)


def _method_rows(outcomes: Mapping[str, Outcome]) -> Iterator[Row]:
    found = []
    for task, figures in outcomes.items():
        if figures.methods is None:
            continue
        found.append(outcome(figures.methods))
        text = _tested(figures.methods)
        yield Row(f"{task}: kd - sft", "", f"{found[-1]}: {text}", found[-1] != "worse")
    needed = _share(BETTER, outcomes)
    figure = f"{found.count('better')} of {len(outcomes)}"
    met = found.count("better") >= needed
    yield Row("tasks where kd is significantly better than sft", f">= {needed}", figure, met)
    worse = found.count("worse")
    yield Row("tasks where kd is significantly worse than sft", "0", str(worse), worse == 0)


def _tested(difference: Difference) -> str:
    """Return the difference of KL if it was measured, else that of the score."""
    return f"{tested(difference.kl)} nats/token" if difference.kl else tested(difference)


def _advice_rows(runs: Mapping[str, Path], outcomes: Mapping[str, Outcome]) -> Iterator[Row]:
    """Yield what the adviser expected of each run, beside what was found."""
    right = 0
    for task, run_dir in runs.items():
        expected = _predicted(run_dir)
        found: dict[str, object] = {"reaches_teacher": outcomes[task].reached}
        if (methods := outcomes[task].methods) is not None:
            found["kd_against_sft"] = outcome(methods)
        wrong = [key for key, value in found.items() if expected.get(key) != value]
        right += not wrong
        figure = ", ".join(f"{key} {expected.get(key)} and was {found[key]}" for key in wrong)
        yield Row(f"{task}: the adviser's prediction", "", figure or "right", not wrong)
    figure = f"{right} of {len(runs)}"
    yield Row("tasks where the adviser was right", f"{len(runs)}", figure, right == len(runs))


def _predicted(run_dir: Path) -> dict[str, object]:
    """Return the prediction of RUN/advice.json; empty if there is none."""
    path = run_dir / "advice.json"
    return dict(read_object(path, "prediction")["prediction"]) if path.is_file() else {}


def _equal_row(task: str, run_dir: Path) -> Row:
    """Compare rows and optimiser steps of all arms of a run."""
    counts = [read_object(path, "counts")["counts"] for path in _trained(run_dir)]
    pairs = {(count["rows"], count["steps"]) for count in counts}
    figure = ", ".join(f"{rows:,} rows, {steps:,} steps" for rows, steps in sorted(pairs))
    return Row(f"{task}: rows and steps of all arms", "equal", figure, len(pairs) == 1)


def _trained(run_dir: Path) -> list[Path]:
    manifests = sorted((run_dir / "train").glob("*/manifest.json"))
    return [path for path in manifests if path.parent.name != "init"]


def _cost_row(task: str, run_dir: Path) -> Row:
    """Add up what training and evaluation took, of the processes that finished their parts."""
    train, evaluation = (
        [read_object(path, "seconds")["seconds"] for path in run_dir.glob(pattern)]
        for pattern in ("train/*/manifest.json", "evaluate/*/manifest.json")
    )
    figure = (
        f"train {sum(train) / 60:.0f} min; evaluate {sum(evaluation) / 60:.0f} min, "
        f"{len(evaluation)} models, one engine each"
    )
    return Row(f"{task}: time", "", figure, True)


def cut_rows(runs: Mapping[str, tuple[Path, Path]]) -> Iterator[Row]:
    """Yield the rows of the cut students: healed minus not healed, in the same total time."""
    better = 0
    for task, (healed, unhealed) in runs.items():
        difference = between(healed, unhealed)
        better += outcome(difference) == "better"
        text = _tested(difference)
        yield Row(f"{task}: cut to a half, healed - not", "", text, outcome(difference) == "better")
    needed = min(HEALED, len(runs))
    what = "tasks where a healed cut is significantly better"
    yield Row(what, f">= {needed}", f"{better} of {len(runs)}", better >= needed)


def between(first: Path, second: Path) -> Difference:
    """Return the difference of the students of two runs, paired by example, over all repeats.

    The difference of KL is added if both runs measured it.
    """
    scores = paired(*(_scores(run_dir) for run_dir in (first, second)))
    nats = paired(*(_nats(run_dir) for run_dir in (first, second)))
    difference = difference_of(scores, UNIT)
    if not nats[0].size:
        return difference
    return difference.model_copy(update={"kl": difference_of(nats, POSITIVE)})


def _scores(run_dir: Path) -> list[Values]:
    """Return the score of each held-out example, for every arm of a run."""
    folders = [run_dir / "evaluate" / path.parent.name for path in _trained(run_dir)]
    return [
        {answer.seed_id: answer.score.value for answer in read_records(folder, Scored)}
        for folder in folders
    ]


def _nats(run_dir: Path) -> list[Values]:
    """Return KL in nats/token of each held-out example that has tokens, for every arm."""
    folders = [run_dir / "fidelity" / path.parent.name for path in _trained(run_dir)]
    return [
        {record.id: record.nats / record.tokens for record in records if record.tokens}
        for records in (read_records(folder, Faithful) for folder in folders if folder.is_dir())
    ]


def paired(
    first: Sequence[Values], second: Sequence[Values]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two sides as (R, I), of the examples that all repeats of both have."""
    examples = sorted(set.intersection(*map(set, [*first, *second]))) if first and second else []
    sides = [[[run[name] for name in examples] for run in side] for side in (first, second)]
    return np.array(sides[0], np.float64), np.array(sides[1], np.float64)


def curve_rows(runs: Mapping[str, Path]) -> Iterator[Row]:
    """Yield kd and sft by the number of rows, and from where KD no longer pays."""
    for task, run_dir in runs.items():
        results = Results.read(run_dir / "evaluate" / "results.json")
        found = {}
        for limit, name in _at_limits(results):
            difference = results.differences[name]
            found[limit] = outcome(difference)
            yield Row(f"{task}, {limit:,} rows", "", _both(results, name, difference), True)
        pays = [limit for limit in found if found[limit] == "better"]
        figure = f"up to {max(pays):,} rows" if pays else "at none of these sizes"
        yield Row(f"{task}: kd is significantly better than sft", "", figure, True)


def _at_limits(results: Results) -> Iterator[tuple[int, str]]:
    """Yield each limit of the curve with the name of kd - sft, whose arms are named ARM-LIMIT."""
    for limit in LIMITS:
        for name in results.differences:
            sides = name.split(" - ")
            is_at_limit = all(side.endswith(f"-{limit}") for side in sides)
            if is_at_limit and results.methods(name) == ("kd", "sft"):
                yield limit, name


def _both(results: Results, name: str, difference: Difference) -> str:
    scores = ", ".join(f"{side} {_score(results, side):.3f}" for side in name.split(" - "))
    return f"{scores}: {_tested(difference)}"


def _share(share: float, tasks: Sized) -> int:
    """Return how many of these tasks must reach a bar that is set for seven."""
    return math.ceil(share * len(tasks) - 1e-9)
