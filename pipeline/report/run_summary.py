"""Describe the state of a run: missing parts, counts, learning curves, settings, times."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config
from pipeline.inspection import status
from pipeline.inspection.run_folder import Run, Tree, history
from pipeline.report.facts import Curve, Missing, Panel, Settings, Step, Table, Waterfall
from pipeline.storage.files import read_json

PANELS = (  # title, unit, curves, caption
    (
        "Loss",
        "",
        ("loss", "held out"),
        "The arm's own objective. Dots are on examples held out of training. The losses of KD and "
        "SFT have different scales, so compare their shapes.",
    ),
    (
        "Share of KD",
        "%",
        ("of the loss", "of the gradient"),
        "How much of loss and gradient comes from the teacher's probabilities; the rest is "
        "cross-entropy. Near 0 they have no effect.",
    ),
    (
        "Held-out score",
        "",
        ("score",),
        "The student's own greedy answers to examples held out of training.",
    ),
    ("Learning rate", "", ("learning rate",), "The size of the steps, as scheduled."),
)
LOGGED = {
    "loss": "loss",
    "held out": "eval_loss",
    "of the gradient": "kd_gradient_share",
    "score": "eval_score",
    "learning rate": "learning_rate",
}


def missing(run: Run) -> Iterator[Missing]:
    """Yield the parts that are not finished, with the commands that make them."""
    unfinished = [part for part in run.wanted if part not in run.done]
    for part in unfinished:
        stage, _, name = part.partition("/")
        option = ""
        if name and name != "init":
            option = f" --{'arm' if stage == 'train' else 'model'} {name}"
        state = "not started"
        if part in run.begun:
            state = status.state(run.folder / part).partition(";")[0]
        yield Missing(part, state, f"pipeline {stage} CONFIG{option}")
    if not unfinished and not (run.folder / "evaluate" / "results.json").exists():
        yield Missing(
            "evaluate/results.json",
            "the answers exist, the figures do not",
            "pipeline evaluate CONFIG",
        )


def flow(run: Run, held_out: int) -> list[Step]:
    """Return the steps from the teacher's inputs to the held-out examples, with their counts."""
    return [
        _inputs(run),
        _samples(run),
        _kept(run),
        _rows(run),
        Step(
            "held-out examples",
            f"{held_out:,}" if held_out else "-",
            "asked of every model" if held_out else "not evaluated yet",
            bool(held_out),
        ),
    ]


def _inputs(run: Run) -> Step:
    work = run.folder / "generate" / "work.json"
    count = f"{read_json(work)['seeds']:,}" if work.exists() else "-"
    settings = run.config["generate"]
    each = settings["samples"] * len(settings["prompt"])
    return Step("seeds", count, f"{each} sample{'s' * (each > 1)} each", work.exists())


def _samples(run: Run) -> Step:
    counts = run.counts("generate")
    if counts:
        samples, failed = counts["samples"], counts.get("failed", 0)
    else:
        samples, failed = status.written(run.folder / "generate")
    note = f"{failed:,} requests failed"
    if reasons := counts.get("failed_by_reason"):
        note += ": " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return Step("samples by the teacher", f"{samples:,}", note, bool(counts))


def _kept(run: Run) -> Step:
    counts = run.counts("filter")
    if not counts:
        return Step("kept by the filters", "-", "not filtered yet", False)
    share = f"{counts['kept'] / counts['samples']:.1%} of the samples"
    return Step("kept by the filters", f"{counts['kept']:,}", share, True)


def _rows(run: Run) -> Step:
    trained = [arm for arm in run.arms if f"train/{arm}" in run.done]
    if not trained:
        return Step("rows in training", "-", "no arm is trained yet", False)
    counts = [run.counts(f"train/{arm}")["rows"] for arm in trained]
    low, high = min(counts), max(counts)
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return Step("rows in training", span, ", ".join(trained), True)


def waterfall(run: Run) -> Waterfall | None:
    """Return how many samples each filter rejected; None if filter is not finished."""
    counts = run.counts("filter")
    if not counts:
        return None
    return Waterfall(counts["samples"], tuple(counts["rejected"].items()), counts["kept"])


def panels(run: Run) -> Iterator[Panel]:
    """Yield the learning curves that were logged, one panel per measure."""
    logs = {arm: history(run.folder / "train" / arm) for arm in run.arms}
    for title, unit, measures, caption in PANELS:
        curves = []
        for arm, log in logs.items():
            for name in measures:
                if points := _points(log, name):
                    curves.append(Curve(arm, name, points, name == "held out"))
        if curves:
            yield Panel(title, caption, tuple(curves), unit)


def _points(log: Sequence[Tree], name: str) -> tuple[tuple[float, float], ...]:
    """Return (step, value) of a curve."""
    values = [(entry["step"], _value(entry, name)) for entry in log if "step" in entry]
    return tuple((float(step), value) for step, value in values if value is not None)


def _value(entry: Tree, name: str) -> float | None:
    if name != "of the loss":
        return entry.get(LOGGED[name])
    if "loss_kd" not in entry or "loss" not in entry:
        return None
    total = entry.get("loss_ce", 0.0) + entry["loss_kd"]
    return entry["loss_kd"] / total if total else None


def settings(run: Run, folder: str) -> Settings:
    """Return settings, versions, times and commands; the commands name the run `folder`."""
    changed = _flat(_changed(run.config))
    rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in changed.items()]
    versions: dict[str, str] = {}
    for part in run.begun.values():
        versions |= {name: str(version) for name, version in part["versions"].items()}
    return Settings(
        changed=Table(("setting", "value"), tuple(rows)),
        config=yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True, width=100),
        versions=Table(("what", "version"), tuple(versions.items())),
        times=Table(("part", "started", "seconds"), tuple(_time(run, part) for part in run.begun)),
        commands=(
            f"pipeline run {folder}/report/config.yaml run_dir={folder}-again",
            f"pipeline diff {folder} {folder}-again",
            f"pipeline report {folder}",
        ),
    )


def _time(run: Run, part: str) -> tuple[str, str, str]:
    started = datetime.fromisoformat(run.begun[part]["begun"]).strftime("%Y-%m-%d %H:%M UTC")
    seconds = f"{run.done[part]['seconds']:,.1f}" if part in run.done else "not finished"
    return part, started, seconds


def _changed(tree: Tree) -> Tree:
    """Return the settings that differ from their defaults; all if this version cannot read them."""
    try:
        return Config.model_validate(tree).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return tree


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Return a nested dict as a flat dict with dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
