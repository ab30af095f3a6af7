"""The figures that decide: each model's score with its interval, KD against SFT on the same rows, and what each model costs."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Arm, Config
from pipeline.records import Scored
from pipeline.scoring import bootstrap, bootstrap_repeats

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
    lines += [f"{name}: {_signed(interval)}, {over}" for name, interval in found["differences"].items()]
    if found["note"]:
        lines.append(f"({found['note']})")
    return "\n".join(lines)


def _row(name: str, model: Mapping[str, Any]) -> tuple[str, ...]:
    score = model["score"]
    return (
        {"base": "base (untouched)"}.get(name, name),
        f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]",
        f"{model['retained']:.1%}" if model["retained"] is not None else "-",
        f"{model['parameters'] / 1e6:,.1f}M" if model["parameters"] else "-",
        f"{model['nbytes'] / 1e6:,.0f} MB" if model["nbytes"] else "-",
        f"{model['tokens_per_s']:,.0f}" if model["tokens_per_s"] else "-",
        f"{model['answers_per_s']:,.1f}" if model["answers_per_s"] else "-",
    )


def _signed(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


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
    score, each = group["score"], group["each"]
    kept = f", {group['retained']:.1%} retained" if group["retained"] is not None else ""
    interval = f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{name}, mean of {len(each)} repeats: {interval}, from {min(each):.3f} to {max(each):.3f}{kept}"
