"""How far a run has come: its parts, the flow with its counts, what is missing, learning curves, settings, times; from its files alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config import Config
from pipeline.inspection import status
from pipeline.report.facts import Curve, Missing, Panel, Settings, Step, Table, Waterfall
from pipeline.storage.files import read_json

Tree = Mapping[str, Any]
STAGES = ("generate", "filter", "score", "train", "evaluate")
PANELS = (  # title, unit, what is drawn, what to read off
    (
        "Loss",
        "",
        ("loss", "held out"),
        "The arm's own objective; dots: on seeds held out of training. KD and SFT are not on one scale; read the shape.",
    ),
    (
        "Share of KD",
        "%",
        ("of the loss", "of the gradient"),
        "What the teacher's probabilities give of loss and gradient; cross-entropy gives the rest. Near 0 they do nothing.",
    ),
    (
        "Held-out score",
        "",
        ("score",),
        "The student's own greedy answers to seeds held out of training.",
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


@dataclass(frozen=True)
class Run:
    """A run folder, with what its parts noted when they were begun and when they were finished, by "stage" or "stage/part"."""

    folder: Path
    begun: dict[str, Tree]
    done: dict[str, Tree]

    @property
    def config(self) -> Tree:
        """Of the part that was begun last."""
        return max(self.begun.values(), key=lambda one: str(one["begun"]))["config"]

    @property
    def arms(self) -> list[str]:
        """Those of the config, then those that were trained before it."""
        trained = [name.partition("/")[2] for name in self.begun if name.startswith("train/")]
        return [
            name
            for name in dict.fromkeys([*self.config["train"]["arms"], *trained])
            if name != "init"
        ]

    @property
    def wanted(self) -> list[str]:
        """The parts of a whole run."""
        score = ["score"] if self.config["train"]["rows"] == "score" else []
        evaluated = ["teacher", "base", *self.config["train"]["arms"]]
        trained = ["init", *self.config["train"]["arms"]]
        return [
            "generate",
            "filter",
            *score,
            *(f"train/{arm}" for arm in trained),
            *(f"evaluate/{model}" for model in evaluated),
        ]

    def counts(self, part: str) -> Tree:
        return self.done[part]["counts"] if part in self.done else {}


def read(folder: Path) -> Run:
    """Raises PipelineError if nothing was begun here."""
    parts = [
        path.parent for stage in STAGES for path in sorted((folder / stage).glob("**/begun.json"))
    ]
    if not parts:
        raise status.not_a_run(folder)
    names = {str(part.relative_to(folder)): part for part in parts}
    finished = {
        name: part / "manifest.json"
        for name, part in names.items()
        if (part / "manifest.json").exists()
    }
    begun = {name: read_json(part / "begun.json") for name, part in names.items()}
    return Run(
        folder,
        dict(sorted(begun.items(), key=lambda item: str(item[1]["begun"]))),
        {name: read_json(path) for name, path in finished.items()},
    )


def missing(run: Run) -> Iterator[Missing]:
    """What a whole run would have and this one has not."""
    for part in run.wanted:
        if part not in run.done:
            stage, _, name = part.partition("/")
            option = (
                f" --{'arm' if stage == 'train' else 'model'} {name}"
                if name and name != "init"
                else ""
            )
            state = (
                status.state(run.folder / part).partition(";")[0]
                if part in run.begun
                else "not begun"
            )
            yield Missing(part, state, f"pipeline {stage} CONFIG{option}")
    if not (run.folder / "evaluate" / "results.json").exists() and all(
        part in run.done for part in run.wanted
    ):
        yield Missing(
            "evaluate/results.json",
            "the answers are there, the figures are not",
            "pipeline evaluate CONFIG",
        )


def flow(run: Run, held_out: int) -> list[Step]:
    """From seeds to held-out seeds, as far as they are known."""
    work, made, chosen = (
        run.folder / "generate" / "work.json",
        run.counts("generate"),
        run.counts("filter"),
    )
    records, failed = (
        (made["samples"], made.get("failed", 0))
        if made
        else status.written(run.folder / "generate")
    )
    reasons = ", ".join(
        f"{number:,} {reason}" for reason, number in (made.get("failed_by_reason") or {}).items()
    )
    rows = {
        arm: run.counts(f"train/{arm}")["rows"] for arm in run.arms if f"train/{arm}" in run.done
    }
    generating = run.config["generate"]
    each = generating["samples"] * len(generating["prompt"])
    return [
        Step(
            "seeds",
            f"{read_json(work)['seeds']:,}" if work.exists() else "-",
            f"{each} sample{'s' * (each > 1)} each",
            work.exists(),
        ),
        Step(
            "samples by the teacher",
            f"{records:,}",
            f"{failed:,} requests failed{f': {reasons}' if reasons else ''}",
            bool(made),
        ),
        Step(
            "kept by the filters",
            f"{chosen['kept']:,}" if chosen else "-",
            f"{chosen['kept'] / chosen['samples']:.1%} of the samples"
            if chosen
            else "not filtered yet",
            bool(chosen),
        ),
        Step(
            "rows in training",
            _span(list(rows.values())),
            ", ".join(rows) or "no arm is trained yet",
            bool(rows),
        ),
        Step(
            "held-out seeds",
            f"{held_out:,}" if held_out else "-",
            "asked of every model" if held_out else "not evaluated yet",
            bool(held_out),
        ),
    ]


def waterfall(run: Run) -> Waterfall | None:
    counts = run.counts("filter")
    return (
        Waterfall(counts["samples"], tuple(counts["rejected"].items()), counts["kept"])
        if counts
        else None
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=None), max(numbers, default=None)
    return "-" if low is None else f"{low:,}" if low == high else f"{low:,} to {high:,}"


def panels(run: Run) -> Iterator[Panel]:
    """Learning curves, a panel a measure; only what was logged."""
    logs = {arm: found for arm in run.arms if (found := _history(run.folder / "train" / arm))}
    for title, unit, measures, caption in PANELS:
        curves = [
            Curve(arm, name, points, name == "held out")
            for arm, log in logs.items()
            for name in measures
            if (points := _points(log, name))
        ]
        if curves:
            yield Panel(title, caption, tuple(curves), unit)


def _history(folder: Path) -> list[dict[str, Any]]:
    """What was logged: of an arm that is being trained, up to its last checkpoint."""
    path = folder / "history.jsonl"
    if path.exists():
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    states = sorted(
        folder.glob("checkpoints/checkpoint-*/trainer_state.json"),
        key=lambda one: int(one.parent.name.rpartition("-")[2]),
    )
    return list(read_json(states[-1])["log_history"]) if states else []


def _points(log: Sequence[Tree], name: str) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(entry["step"]), value)
        for entry in log
        if "step" in entry and (value := _value(entry, name)) is not None
    )


def _value(entry: Tree, name: str) -> float | None:
    if name == "of the loss":
        whole = entry.get("loss_ce", 0.0) + entry.get("loss_kd", 0.0)
        return (
            entry["loss_kd"] / whole if "loss_kd" in entry and "loss" in entry and whole else None
        )
    return entry.get(LOGGED[name])


def settings(run: Run, shown_as: str) -> Settings:
    """What was run. `shown_as` is the run folder's name in commands."""
    tree = run.config
    versions: dict[str, str] = {
        name: str(one) for begun in run.begun.values() for name, one in begun["versions"].items()
    }
    return Settings(
        Table(
            ("setting", "value"),
            tuple(
                (key, json.dumps(value, ensure_ascii=False))
                for key, value in flat(_changed(tree)).items()
            ),
        ),
        yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100),
        Table(("what", "version"), tuple(versions.items())),
        Table(("part", "begun", "seconds"), tuple(_time(run, part) for part in run.begun)),
        (
            f"pipeline run {shown_as}/report/config.yaml run_dir={shown_as}-again",
            f"pipeline diff {shown_as} {shown_as}-again",
            f"pipeline report {shown_as}",
        ),
    )


def _time(run: Run, part: str) -> tuple[str, str, str]:
    begun = datetime.fromisoformat(run.begun[part]["begun"]).strftime("%Y-%m-%d %H:%M UTC")
    return part, begun, f"{run.done[part]['seconds']:,.1f}" if part in run.done else "not finished"


def _changed(tree: Tree) -> Tree:
    """Settings that are not their defaults; all of them where this version no longer knows one."""
    try:
        return Config.model_validate(tree).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return tree


def flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= (
            flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return found
