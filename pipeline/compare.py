"""The figures that decide: each model's score with its interval, KD against SFT on the same rows, and what each model costs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import Config
from pipeline.records import Scored
from pipeline.scoring import Interval, bootstrap

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
    pairs = [(kd, sft) for kd in arms for sft in arms if arms[kd].method == "kd" and arms[sft].method == "sft"]
    return {
        "metric": config.task.metric,
        "held_out": len(teacher),
        "models": models,
        "differences": {f"{kd} - {sft}": dataclasses.asdict(_paired(measured, kd, sft)) for kd, sft in pairs},
        "note": FAKE if any(str(cost["engine"]).startswith("fake") for _, cost in measured.values()) else None,
    }


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
    lines += [f"{name}: {_signed(interval)}, paired, {found['held_out']} held-out seeds" for name, interval in found["differences"].items()]
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


def _paired(measured: Measured, one: str, other: str) -> Interval:
    first, second = _values(measured[one][0]), _values(measured[other][0])
    return bootstrap([first[seed] - second[seed] for seed in first])
