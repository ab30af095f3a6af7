"""The facts of a run, from its files."""

from pathlib import Path
from typing import Any

from pipeline.ablation import results as ablation_results
from pipeline.evaluation.format import shown
from pipeline.report import conclusion, run_summary, tables
from pipeline.report.facts import Ablation, Estimate, Facts
from pipeline.storage.files import read_json


def gather(run_dir: Path) -> Facts:
    """Everything that the report says. Raises PipelineError if nothing was begun in `run_dir`."""
    run = run_summary.read(run_dir)
    found = _read(run_dir / "evaluate" / "results.json")
    results = found or {"metric": run.config["task"]["metric"], "held_out": 0, "models": {}}
    missing = tuple(run_summary.missing(run))
    rows, canaries = tables.memorisation(results)
    return Facts(
        run=run_dir.resolve().name,
        task=_task(run.config),
        arms=tuple(dict.fromkeys([*run.arms, *results["models"]])),
        verdict=conclusion.verdict(results, _judged(run.config))
        if found
        else conclusion.unfinished(len(run.wanted) - len(missing), len(run.wanted)),
        missing=missing,
        note=results.get("note") or "",
        quality=tables.quality(results),
        closeness=tables.closeness(results),
        cost=tables.cost(results),
        metric=results["metric"],
        held_out=results["held_out"],
        flow=tuple(run_summary.flow(run, results["held_out"])),
        waterfall=run_summary.waterfall(run),
        panels=tuple(run_summary.panels(run)),
        costs=tuple(tables.costs(results)),
        differences=tuple(tables.differences(results)),
        groups=tuple(tables.groups(results)),
        gaps=tuple(tables.gaps(results)),
        reliability=tuple(tables.reliability(results)),
        memorisation=rows,
        canaries=canaries,
        elsewhere=tables.elsewhere(results),
        ablation=_ablation(_read(run_dir / "ablate" / "results.json")),
        settings=run_summary.settings(run, str(run_dir)),
    )


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _judged(config: run_summary.Tree) -> str | None:
    gate = config["evaluate"].get("gate")
    return (gate.get("arm") or next(iter(config["train"]["arms"]))) if gate else None


def _task(config: run_summary.Tree) -> str:
    """Which data, and who teaches whom."""
    source = config["task"]["seeds"].get("path") or config["task"]["seeds"].get("dataset")
    return f"seeds of {source}, taught by {config['teacher']['model']}"


def _ablation(found: Any) -> Ablation | None:
    if not found:
        return None
    sets = [
        Estimate(
            name,
            tables.of(one["score"]),
            f"{shown(one['score'])}, {round(sum(one['rows']) / len(one['rows'])):,} rows",
        )
        for name, one in found["sets"].items()
    ]
    about = f"{found['arm']}, {found['repeats']} training seeds each, {found['held_out']:,} held-out seeds"
    return Ablation(
        tuple(sets),
        tuple(line.strip() for said in ablation_results.said(found) for line in said.split("\n")),
        f"{about}. {found['note'] or ''}".strip(),
    )
