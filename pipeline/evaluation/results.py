"""The figures that decide: each model's score with its interval, KD against SFT on the same rows, and what each model costs."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Arm, Config
from pipeline.records import Scored
from pipeline.scoring import bootstrap, bootstrap_repeats, normalise

Measured = Mapping[str, tuple[Sequence[Scored], Mapping[str, Any]]]  # per model: its answers, what they cost
FAKE = "made by the fake backend: these figures test the machinery and measure nothing"


def results(config: Config, measured: Measured) -> dict[str, Any]:
    """Everything that results.json holds. `measured` has the teacher first."""
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
            **({"macro_f1": _macro_f1(answers, config.task.labels)} if config.task.labels else {}),
            **cost,
        }
    arms = config.train.arms
    groups = repeats(arms)
    runs = {group: _runs(measured, names) for group, names in groups.items()}
    kds, sfts = ([group for group, names in groups.items() if arms[names[0]].method == method] for method in ("kd", "sft"))
    return {
        "metric": config.task.metric,
        "held_out": len(teacher),
        "models": models,
        "repeats": {group: _repeated(names, runs[group], teacher_mean) for group, names in groups.items() if len(names) > 1},
        "gate": _against(config, measured),
        "differences": {f"{kd} - {sft}": dataclasses.asdict(bootstrap_repeats(runs[kd], runs[sft])) for kd in kds for sft in sfts},
        "note": FAKE if any(str(cost["engine"]).startswith("fake") for _, cost in measured.values()) else None,
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


def table(found: Mapping[str, Any]) -> str:
    """The results as the terminal shows them."""
    head = ("model", f"{found['metric']} [95 %]", "retained", "parameters", "on disk", "tokens/s", "answers/s")
    rows = [head, *(_row(name, model) for name, model in found["models"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines += [_repeats_line(name, group) for name, group in found["repeats"].items()]
    over = f"paired, {found['held_out']} held-out seeds" + (", over repeats" if found["repeats"] else "")
    lines += [f"{name}: {signed(interval)}, {over}" for name, interval in found["differences"].items()]
    if found["note"]:
        lines.append(f"({found['note']})")
    return "\n".join(lines)


def _row(name: str, model: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        {"base": "base (untouched)"}.get(name, name),
        shown(model["score"]),
        f"{model['retained']:.1%}" if model["retained"] is not None else "-",
        f"{model['parameters'] / 1e6:,.1f}M" if model["parameters"] else "-",
        f"{model['nbytes'] / 1e6:,.0f} MB" if model["nbytes"] else "-",
        f"{model['tokens_per_s']:,.0f}" if model["tokens_per_s"] else "-",
        f"{model['answers_per_s']:,.1f}" if model["answers_per_s"] else "-",
    )


def shown(interval: Mapping[str, float]) -> str:
    """0.920 [0.890, 0.950]"""
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def signed(interval: Mapping[str, float]) -> str:
    """-0.017 [-0.043, +0.007]"""
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


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
    return float(np.mean([normalise(answer.score.answer or "") == said[answer.seed_id] != "" for answer in answers]))


def _groups(answers: Sequence[Scored]) -> dict[str, Any]:
    """Score by group with its interval, and how far the best and the worst are apart; None where seeds have no groups."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        if answer.group is not None:
            values.setdefault(answer.group, []).append(answer.score.value)
    groups = {name: {**dataclasses.asdict(bootstrap(found)), "held_out": len(found)} for name, found in sorted(values.items())}
    means = [group["mean"] for group in groups.values()]
    return {"groups": groups, "gap": max(means) - min(means) if means else None}


def _macro_f1(answers: Sequence[Scored], labels: Sequence[str]) -> float:
    """The mean over labels of 2 right / (said + meant), 0 for one that is neither; unreadable answers are said to be none."""
    said = [normalise(answer.score.answer or "") for answer in answers]
    meant = [normalise(answer.target or "") for answer in answers]
    found = []
    for label in map(normalise, labels):
        right = sum(a == b == label for a, b in zip(said, meant, strict=True))
        either = said.count(label) + meant.count(label)
        found.append(2 * right / either if either else 0.0)
    return float(np.mean(found))


def _values(answers: Sequence[Scored]) -> dict[str, float]:
    return {answer.seed_id: answer.score.value for answer in answers}


def _runs(measured: Measured, names: Sequence[str]) -> NDArray[np.float64]:
    """(R, I): the value of every held-out seed, in the first model's order, in each repeat."""
    order = [answer.seed_id for answer in next(iter(measured.values()))[0]]
    values = [_values(measured[name][0]) for name in names]
    return np.array([[value[seed] for seed in order] for value in values], np.float64)


def _repeated(names: Sequence[str], runs: NDArray[np.float64], teacher_mean: float) -> dict[str, Any]:
    score = bootstrap_repeats(runs)
    return {
        "arms": list(names),
        "score": dataclasses.asdict(score),
        "each": runs.mean(1).tolist(),
        "retained": score.mean / teacher_mean if teacher_mean else None,
    }


def _repeats_line(name: str, group: Mapping[str, Any]) -> str:
    each = group["each"]
    kept = f", {group['retained']:.1%} retained" if group["retained"] is not None else ""
    return f"{name}, mean of {len(each)} repeats: {shown(group['score'])}, from {min(each):.3f} to {max(each):.3f}{kept}"
