"""Collect the facts of a run from its files."""

from pathlib import Path

from pipeline.ablation.results import conclusions
from pipeline.ablation.results_model import AblationResults
from pipeline.advice import text
from pipeline.evaluation.format import shown
from pipeline.evaluation.results_model import Results
from pipeline.inspection import run_folder
from pipeline.inspection.run_folder import Tree
from pipeline.report import conclusion, run_summary, tables
from pipeline.report.facts import Ablation, Estimate, Facts, Tip


def gather(run_dir: Path) -> Facts:
    """Return everything that the report says. Raises PipelineError if no stage was started."""
    run = run_folder.read(run_dir)
    missing = tuple(run_summary.missing(run))
    path = run_dir / "evaluate" / "results.json"
    if path.exists():
        results = Results.read(path)
        verdict = conclusion.verdict(results, _gated(run.config), run.config["train"])
    else:
        results = Results(metric=run.config["task"]["metric"], held_out=0, models={})
        verdict = conclusion.unfinished(len(run.wanted) - len(missing), len(run.wanted))
    return Facts(
        run=run_dir.resolve().name,
        task=_task(run.config),
        arms=tuple(dict.fromkeys([*run.arms, *results.models])),
        verdict=verdict,
        missing=missing,
        advice=_advice(run_dir),
        note=results.note or "",
        quality=tables.quality(results),
        closeness=tables.closeness(results),
        cost=tables.cost(results),
        metric=results.metric,
        held_out=results.held_out,
        flow=tuple(run_summary.flow(run, results.held_out)),
        waterfall=run_summary.waterfall(run),
        panels=tuple(run_summary.panels(run)),
        costs=tuple(tables.costs(results)),
        differences=tuple(tables.differences(results)),
        groups=tuple(tables.groups(results)),
        gaps=tuple(tables.gaps(results)),
        reliability=tuple(tables.reliability(results)),
        memorisation=tables.memorisation(results),
        canaries=tables.canaries(results),
        lm_eval=tables.lm_eval(results),
        ablation=_ablation(run_dir / "ablate" / "results.json"),
        settings=run_summary.settings(run, str(run_dir)),
    )


def _gated(config: Tree) -> str | None:
    """Return the arm that the gate checks; None without a gate."""
    gate = config["evaluate"].get("gate")
    return (gate.get("arm") or next(iter(config["train"]["arms"]))) if gate else None


def _advice(run_dir: Path) -> tuple[Tip, ...]:
    """Return what `pipeline advise` wrote the last time."""
    return tuple(
        Tip(text.sentence(advice), advice.command or "") for advice in text.stored(run_dir)
    )


def _task(config: Tree) -> str:
    """Return a line that names the file of examples and the teacher."""
    source = config["task"]["seeds"].get("path") or config["task"]["seeds"].get("dataset")
    return f"seeds of {source}, taught by {config['teacher']['model']}"


def _ablation(path: Path) -> Ablation | None:
    if not path.exists():
        return None
    results = AblationResults.read(path)
    sets = []
    for name, trained in results.sets.items():
        rows = round(sum(trained.rows) / len(trained.rows))
        sets.append(Estimate(name, trained.score, f"{shown(trained.score)}, {rows:,} rows"))
    note = (
        f"{results.arm}, {results.repeats} training seeds each, "
        f"{results.held_out:,} held-out examples. {results.note or ''}"
    )
    return Ablation(tuple(sets), tuple(map(str.strip, conclusions(results))), note.strip())
