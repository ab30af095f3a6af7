"""The facts of a run, from its files."""

from pathlib import Path
from typing import Any

from pipeline import ablation
from pipeline.evaluation.format import shown
from pipeline.report import comparison, course, verdict
from pipeline.report.facts import Ablation, Estimate, Facts
from pipeline.storage.files import read_json


def gather(run_dir: Path) -> Facts:
    """Everything that the report says. Raises PipelineError if nothing was begun in `run_dir`."""
    run = course.read(run_dir)
    found = _read(run_dir / "evaluate" / "results.json")
    results = found or {"metric": run.config["task"]["metric"], "held_out": 0, "models": {}}
    missing = tuple(course.missing(run))
    rows, canaries = comparison.memorisation(results)
    return Facts(
        run=run_dir.resolve().name,
        task=_task(run.config),
        arms=tuple(dict.fromkeys([*run.arms, *results["models"]])),
        verdict=verdict.verdict(results, _judged(run.config))
        if found
        else verdict.unfinished(len(run.wanted) - len(missing), len(run.wanted)),
        missing=missing,
        note=results.get("note") or "",
        quality=comparison.quality(results),
        closeness=comparison.closeness(results),
        cost=comparison.cost(results),
        metric=results["metric"],
        held_out=results["held_out"],
        flow=tuple(course.flow(run, results["held_out"])),
        waterfall=course.waterfall(run),
        panels=tuple(course.panels(run)),
        costs=tuple(comparison.costs(results)),
        differences=tuple(comparison.differences(results)),
        groups=tuple(comparison.groups(results)),
        gaps=tuple(comparison.gaps(results)),
        reliability=tuple(comparison.reliability(results)),
        memorisation=rows,
        canaries=canaries,
        elsewhere=comparison.elsewhere(results),
        ablation=_ablation(_read(run_dir / "ablate" / "results.json")),
        settings=course.settings(run, str(run_dir)),
    )


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _judged(config: course.Tree) -> str | None:
    gate = config["evaluate"].get("gate")
    return (gate.get("arm") or next(iter(config["train"]["arms"]))) if gate else None


def _task(config: course.Tree) -> str:
    """Which data, and who teaches whom."""
    source = config["task"]["seeds"].get("path") or config["task"]["seeds"].get("dataset")
    return f"seeds of {source}, taught by {config['teacher']['model']}"


def _ablation(found: Any) -> Ablation | None:
    if not found:
        return None
    sets = [
        Estimate(name, comparison.of(one["score"]), f"{shown(one['score'])}, {round(sum(one['rows']) / len(one['rows'])):,} rows")
        for name, one in found["sets"].items()
    ]
    about = f"{found['arm']}, {found['repeats']} training seeds each, {found['held_out']:,} held-out seeds"
    return Ablation(
        tuple(sets),
        tuple(line.strip() for said in ablation.said(found) for line in said.split("\n")),
        f"{about}. {found['note'] or ''}".strip(),
    )
