"""Compute results.json: each model's figures with intervals, and the differences between models."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Arm, Config
from pipeline.evaluation import baseline, fidelity, metrics, optional_figures, significance
from pipeline.evaluation.bootstrap import Interval, bootstrap, bootstrap_repeats
from pipeline.evaluation.calibration import calibration
from pipeline.evaluation.fidelity import Readings
from pipeline.evaluation.latency import priced
from pipeline.evaluation.results_model import (
    Baseline,
    Cost,
    Difference,
    GroupScore,
    ModelFigures,
    Repeats,
    Results,
)
from pipeline.evaluation.small_samples import POSITIVE, UNIT, Scale
from pipeline.execution.paths import BASE, TEACHER
from pipeline.records import Scored
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records
from pipeline.verifiers.scorers import normalise

Measured = Mapping[str, tuple[Sequence[Scored], Cost]]  # by model: its answers and their cost
FAKE = "made by the fake backend: these figures test the machinery and measure nothing"


def measured(config: Config, names: Sequence[str]) -> Measured:
    """Read the answers and costs of these models."""
    folders = {name: Path(config.run_dir) / "evaluate" / name for name in names}
    return {
        name: (
            list(read_records(folder, Scored)),
            Cost.model_validate(read_json(folder / "cost.json")),
        )
        for name, folder in folders.items()
    }


def results(config: Config, measured: Measured, readings: Readings | None = None) -> Results:
    """Compute all figures of results.json, except `verdicts`.

    The first model of `measured` is the teacher. `readings` are the records of the fidelity stage.
    `verdicts` stays None here, because pipeline.evaluation.gate computes it from these results.
    """
    readings = readings or {}
    teacher_mean = _mean(measured[TEACHER][0])
    models = {name: _model(config, measured, readings, name) for name in measured}
    repeated = {
        group: _repeated(names, _runs(measured, names), teacher_mean)
        for group, names in repeats(config.train.arms).items()
        if len(names) > 1
    }
    is_fake = any(str(model.engine).startswith("fake") for model in models.values())
    return Results(
        metric=config.task.metric,
        held_out=len(measured[TEACHER][0]),
        models=models,
        repeats=repeated,
        baseline=_baseline(config.task.metric, measured),
        gate=_gated(config, measured),
        differences=_differences(config, measured, readings),
        note=FAKE if is_fake else None,
        verdicts=None,
    )


def repeats(arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """Group the arms that differ only in their random seed.

    A group has the name of its first arm without the number at its end (kd1 -> kd). If an arm or
    another group has that name already, the number stays.
    """
    alike: dict[str, list[str]] = {}
    for name, arm in arms.items():
        alike.setdefault(arm.model_copy(update={"seed": None}).model_dump_json(), []).append(name)
    groups: dict[str, list[str]] = {}
    for names in alike.values():
        bare = re.sub(r"[-_]?\d+$", "", names[0]) if len(names) > 1 else ""
        groups[bare if bare and bare not in (*groups, *arms) else names[0]] = names
    return groups


def _model(config: Config, measured: Measured, readings: Readings, name: str) -> ModelFigures:
    answers, cost = measured[name]
    teacher = measured[TEACHER][0]
    teacher_mean = _mean(teacher)
    score = bootstrap([answer.score.value for answer in answers], scale=UNIT)
    groups = _groups(answers)
    means = [group.mean for group in groups.values()]
    labels = config.task.labels
    only_labels = {"macro_f1": metrics.macro_f1(answers, labels)} if labels else {}
    return ModelFigures(
        method=config.train.arms[name].method if name in config.train.arms else None,
        score=score,
        retained=score.mean / teacher_mean if teacher_mean else None,
        unreadable=sum(answer.score.answer is None for answer in answers),
        agreement=_agreement(answers, teacher),
        groups=groups,
        gap=max(means) - min(means) if means else None,
        **only_labels,
        metrics=metrics.further(config, answers),
        calibration=calibration(answers, config.task.metric),
        fidelity=fidelity.figures(readings[name]) if name in readings else None,
        top_answer=baseline.top_answer(config.task.metric, answers),
        **{**dict(cost), "load": priced(cost.load, config.evaluate.price_per_hour)},
        memorisation=optional_figures.memorisation(config, name),
        lm_eval=optional_figures.lm_eval(config, name),
    )


def _mean(answers: Sequence[Scored]) -> float:
    return sum(answer.score.value for answer in answers) / len(answers)


def _agreement(answers: Sequence[Scored], teacher: Sequence[Scored]) -> float:
    """Return the share of examples to which a model gives the teacher's answer, right or wrong."""
    wanted = {answer.seed_id: normalise(answer.score.answer or "") for answer in teacher}
    equal = [
        normalise(answer.score.answer or "") == wanted[answer.seed_id] != "" for answer in answers
    ]
    return float(np.mean(equal))


def _groups(answers: Sequence[Scored]) -> dict[str, GroupScore]:
    """Return the score of each group of examples, by name."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        if answer.group is not None:
            values.setdefault(answer.group, []).append(answer.score.value)
    return {
        name: GroupScore(**dict(bootstrap(scores, scale=UNIT)), held_out=len(scores))
        for name, scores in sorted(values.items())
    }


def _repeated(names: Sequence[str], runs: NDArray[np.float64], teacher_mean: float) -> Repeats:
    score = bootstrap_repeats(runs, scale=UNIT)
    return Repeats(
        arms=list(names),
        score=score,
        each=runs.mean(1).tolist(),
        retained=score.mean / teacher_mean if teacher_mean else None,
    )


def _baseline(metric: str, measured: Measured) -> Baseline | None:
    """Return the majority baseline, with each model's difference from it."""
    majority = baseline.baseline(metric, measured[TEACHER][0])
    if majority is None:
        return None
    answer, right = majority
    differences = {name: difference_of([_runs(measured, [name]), right], UNIT) for name in measured}
    score = bootstrap(right[0].tolist(), scale=UNIT)
    return Baseline(answer=answer, score=score, differences=differences)


def _gated(config: Config, measured: Measured) -> Interval | None:
    """Return the score of the gated arm minus that of the model `gate.over`; None without it."""
    gate = config.evaluate.gate
    if gate is None or gate.over is None:
        return None
    arm = gate.arm or next(iter(config.train.arms))
    if arm not in measured or gate.over not in measured:
        return None
    return bootstrap_repeats(_runs(measured, [arm]), _runs(measured, [gate.over]), scale=UNIT)


def _differences(config: Config, measured: Measured, readings: Readings) -> dict[str, Difference]:
    """Return the difference of each pair of groups, named "first - second".

    The difference of KL is added if the fidelity stage has measured both groups.
    """
    groups = repeats(config.train.arms)
    groups |= {name: [name] for name in (BASE, TEACHER) if name in measured}
    differences: dict[str, Difference] = {}
    for first, second in _pairs(config):
        if first not in groups or second not in groups:
            continue
        sides = groups[first], groups[second]
        difference = difference_of([_runs(measured, names) for names in sides], UNIT)
        nats = [fidelity.nats(readings, sides[0] + sides[1], names) for names in sides]
        if all(map(len, nats)):
            difference = difference.model_copy(update={"kl": difference_of(nats, POSITIVE)})
        differences[f"{first} - {second}"] = difference
    return differences


def _pairs(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the pairs: kd - sft, sft - sft, and each group - base and group - teacher."""
    arms, groups = config.train.arms, repeats(config.train.arms)
    kds, sfts = (
        [group for group, names in groups.items() if arms[names[0]].method == method]
        for method in ("kd", "sft")
    )
    yield from ((kd, sft) for kd in kds for sft in sfts)
    yield from ((later, sft) for number, sft in enumerate(sfts) for later in sfts[number + 1 :])
    yield from ((group, other) for other in (BASE, TEACHER) for group in groups)


def difference_of(sides: Sequence[NDArray[np.float64]], scale: Scale) -> Difference:
    """Return the first side minus the second, each (R, I), paired by example."""
    first, second = sides
    interval = bootstrap_repeats(first, second, scale=scale)
    return Difference(**dict(interval), p=significance.p_value(first, second))


def _runs(measured: Measured, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the scores (R, I) of these models; the examples are in the teacher's order."""
    order = [answer.seed_id for answer in next(iter(measured.values()))[0]]
    runs = []
    for name in names:
        values = {answer.seed_id: answer.score.value for answer in measured[name][0]}
        runs.append([values[example] for example in order])
    return np.array(runs, np.float64)
