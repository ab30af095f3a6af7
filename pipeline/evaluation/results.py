"""The figures that decide: each model's score with its interval, KD against SFT on the same rows, and what each model costs."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Arm, Config
from pipeline.evaluation import fidelity, metrics, significance
from pipeline.evaluation.bootstrap import bootstrap, bootstrap_repeats
from pipeline.evaluation.calibration import calibration
from pipeline.evaluation.fidelity import Readings
from pipeline.evaluation.latency import priced
from pipeline.evaluation.optional_figures import stored
from pipeline.execution.paths import BASE, TEACHER
from pipeline.records import Scored
from pipeline.storage.files import read_json
from pipeline.storage.shards import read_records
from pipeline.verifiers.scorers import normalise

Measured = Mapping[
    str, tuple[Sequence[Scored], Mapping[str, Any]]
]  # per model: its answers, what they cost
FAKE = "made by the fake backend: these figures test the machinery and measure nothing"


def measured(config: Config, names: Sequence[str]) -> Measured:
    """What `evaluate` has of these models."""
    folders = {name: Path(config.run_dir) / "evaluate" / name for name in names}
    return {
        name: (list(read_records(folder, Scored)), read_json(folder / "cost.json"))
        for name, folder in folders.items()
    }


def results(config: Config, measured: Measured, faithful: Readings | None = None) -> dict[str, Any]:
    """Everything that results.json holds. `measured` has the teacher first; `faithful` is what `fidelity.readings` finds."""
    faithful = faithful or {}
    teacher = _values(measured["teacher"][0])
    teacher_mean = sum(teacher.values()) / len(teacher)
    models = {}
    for name, (answers, cost) in measured.items():
        score = bootstrap(list(_values(answers).values()))
        models[name] = {
            "method": config.train.arms[name].method if name in config.train.arms else None,
            "score": dataclasses.asdict(score),
            "retained": score.mean / teacher_mean if teacher_mean else None,
            "unreadable": sum(answer.score.answer is None for answer in answers),
            "agreement": _agreement(answers, measured["teacher"][0]),
            **_groups(answers),
            **(
                {"macro_f1": metrics.macro_f1(answers, config.task.labels)}
                if config.task.labels
                else {}
            ),
            "metrics": {
                metric: dataclasses.asdict(interval)
                for metric, interval in metrics.further(config, answers).items()
            },
            "calibration": calibration(answers, config.task.metric),
            "fidelity": fidelity.figures(faithful[name]) if name in faithful else None,
            **cost,
            **stored(config, name),
            "load": priced(cost.get("load"), config.evaluate.price_per_hour),
        }
    groups = repeats(config.train.arms)
    runs = {group: _runs(measured, names) for group, names in groups.items()}
    return {
        "metric": config.task.metric,
        "held_out": len(teacher),
        "models": models,
        "repeats": {
            group: _repeated(names, runs[group], teacher_mean)
            for group, names in groups.items()
            if len(names) > 1
        },
        "gate": _against(config, measured),
        "differences": _differences(config, measured, faithful),
        "note": FAKE
        if any(str(cost["engine"]).startswith("fake") for _, cost in measured.values())
        else None,
    }


def repeats(arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """The arms that differ in nothing but their seed, under the first one's name; without its number where that leaves names apart."""
    alike: dict[str, list[str]] = {}
    for name, arm in arms.items():
        alike.setdefault(arm.model_copy(update={"seed": None}).model_dump_json(), []).append(name)
    found: dict[str, list[str]] = {}
    for names in alike.values():
        bare = re.sub(r"[-_]?\d+$", "", names[0]) if len(names) > 1 else ""
        found[bare if bare and bare not in (*found, *arms) else names[0]] = names
    return found


def _differences(config: Config, measured: Measured, faithful: Readings) -> dict[str, Any]:
    """By "one - other": every group of arms minus the sft ones, the untouched student and the teacher, with `significance.p_value`;
    under `kl` the same of their divergence from the teacher, where both have one."""
    groups = {
        **repeats(config.train.arms),
        **{name: [name] for name in (BASE, TEACHER) if name in measured},
    }
    found: dict[str, Any] = {}
    for one, other in _pairs(config):
        if one in groups and other in groups:
            found[f"{one} - {other}"] = _difference(
                _runs(measured, groups[one]), _runs(measured, groups[other])
            )
            nats = [
                fidelity.nats(faithful, groups[one] + groups[other], names)
                for names in (groups[one], groups[other])
            ]
            if all(len(side) for side in nats):
                found[f"{one} - {other}"]["kl"] = _difference(*nats)
    return found


def _pairs(config: Config) -> Iterator[tuple[str, str]]:
    arms, groups = config.train.arms, repeats(config.train.arms)
    kds, sfts = (
        [group for group, names in groups.items() if arms[names[0]].method == method]
        for method in ("kd", "sft")
    )
    yield from ((kd, sft) for kd in kds for sft in sfts)
    yield from ((later, sft) for number, sft in enumerate(sfts) for later in sfts[number + 1 :])
    yield from ((group, other) for other in (BASE, TEACHER) for group in groups)


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
    return {
        **dataclasses.asdict(bootstrap_repeats(one, other)),
        "p": significance.p_value(one, other),
    }


def _against(config: Config, measured: Measured) -> dict[str, float] | None:
    """The judged arm minus the model that it has to be better than."""
    gate = config.evaluate.gate
    names = (gate.arm or next(iter(config.train.arms)), gate.over) if gate and gate.over else ()
    if not names or not set(names) <= set(measured):
        return None
    one, other = (_runs(measured, [str(name)]) for name in names)
    return dataclasses.asdict(bootstrap_repeats(one, other))


def _agreement(answers: Sequence[Scored], teacher: Sequence[Scored]) -> float:
    """The share of held-out seeds to which a model's answer is the teacher's, right or wrong."""
    said = {answer.seed_id: normalise(answer.score.answer or "") for answer in teacher}
    return float(
        np.mean(
            [
                normalise(answer.score.answer or "") == said[answer.seed_id] != ""
                for answer in answers
            ]
        )
    )


def _groups(answers: Sequence[Scored]) -> dict[str, Any]:
    """Score by group with its interval, and how far the best and the worst are apart; None where seeds have no groups."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        if answer.group is not None:
            values.setdefault(answer.group, []).append(answer.score.value)
    groups = {
        name: {**dataclasses.asdict(bootstrap(found)), "held_out": len(found)}
        for name, found in sorted(values.items())
    }
    means = [group["mean"] for group in groups.values()]
    return {"groups": groups, "gap": max(means) - min(means) if means else None}


def _values(answers: Sequence[Scored]) -> dict[str, float]:
    return {answer.seed_id: answer.score.value for answer in answers}


def _runs(measured: Measured, names: Sequence[str]) -> NDArray[np.float64]:
    """(R, I): the value of every held-out seed, in the first model's order, in each repeat."""
    order = [answer.seed_id for answer in next(iter(measured.values()))[0]]
    values = [_values(measured[name][0]) for name in names]
    return np.array([[value[seed] for seed in order] for value in values], np.float64)


def _repeated(
    names: Sequence[str], runs: NDArray[np.float64], teacher_mean: float
) -> dict[str, Any]:
    score = bootstrap_repeats(runs)
    return {
        "arms": list(names),
        "score": dataclasses.asdict(score),
        "each": runs.mean(1).tolist(),
        "retained": score.mean / teacher_mean if teacher_mean else None,
    }
