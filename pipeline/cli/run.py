"""Run stages one after another, each in its own process, and report at the end."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.exits import exit_process, print_error
from pipeline.cli.output import echo
from pipeline.errors import DONE, DONE_WITH_ERRORS, GATE, STOPPED
from pipeline.execution import signals

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.execution.contract import Stage

STAGES = ("generate", "filter", "score", "train", "evaluate")
# stages that evaluate runs after all models have answered, if their config sections are set
MEASURES = ("fidelity", "memorisation", "lm_eval")


def load(config: Path, overrides: tuple[str, ...]) -> "Config":
    """Load a config. The import is inside, so that `pipeline --help` need not import pydantic."""
    from pipeline.config import loading

    return loading.load(config, overrides)


def stage_modules(names: tuple[str, ...] = STAGES) -> "dict[str, Any]":
    """Import stages, by name."""
    return {name: importlib.import_module(f"pipeline.stages.{name}") for name in names}


def _with_measures(module: "Stage") -> "list[Stage]":
    """Return the stage; for evaluate, also the measuring stages that run after it."""
    measures = stage_modules(MEASURES).values() if module.NAME == "evaluate" else ()
    return [module, *measures]


def is_done(module: "Stage", settings: "Config") -> bool:
    """Return True if the stage is done, and for evaluate its measuring stages too."""
    from pipeline.execution import runner

    run_dir = Path(settings.run_dir)
    stages = [stage for stage in _with_measures(module) if stage.parts(settings)]
    # ask runner.is_done only about started stages: it fails if an earlier stage is not finished
    started = all(any((run_dir / stage.NAME).glob("**/begun.json")) for stage in stages)
    return started and all(runner.is_done(stage, settings) for stage in stages)


def run_child(name: str, config: Path, *arguments: str) -> int:
    """Run one stage in its own process. If it fails, exit with its code, else return the code."""
    code = signals.run_child([sys.executable, "-m", "pipeline", name, str(config), *arguments])
    if code < 0:
        print_error(
            f"{name}: its process was ended by signal {-code} (is memory short?); "
            "the same command continues from here"
        )
        exit_process(STOPPED - code)
    if code not in (DONE, DONE_WITH_ERRORS):
        exit_process(code)
    return code


def run_stage(
    name: str,
    config: Path,
    overrides: tuple[str, ...],
    redo: bool,
    only: tuple[str, ...] = (),
    retry_errors: bool = False,
) -> int:
    """Run one stage and its measuring stages. Return the exit code."""
    from pipeline.execution import runner
    from pipeline.inference import work_queue

    settings = load(config, overrides)
    module = stage_modules()[name]
    archive = runner.archive if redo else None
    prepare = work_queue.retry_errors if retry_errors else getattr(module, "reopen", None)
    prepare = archive or prepare
    worked = runner.execute(module, settings, only or None, prepare)
    finished = not only or runner.is_done(module, settings)
    for measure in _with_measures(module)[1:] if finished else ():
        measured = [part for part in measure.parts(settings) if not only or part in only]
        worked |= bool(measured) and runner.execute(measure, settings, measured, archive)
    if not worked:
        echo(f"{name}: done already")
    if not finished:
        return DONE
    runner.finish(module, settings)
    echo(module.summary(settings))
    code = exit_code(module, settings)
    if name in ("filter", "evaluate"):
        _run_on("advise", settings)
    if name == "evaluate":
        write_report(settings)
    return code


def write_report(settings: "Config") -> None:
    """Write the report."""
    _run_on("report", settings)


def _run_on(command: str, settings: "Config") -> None:
    """Run a command on the run in its own process, so that its errors do not change the code."""
    sys.stdout.flush()
    signals.run_child([sys.executable, "-m", "pipeline", command, settings.run_dir])


def worst(codes: list[int]) -> int:
    """Return the worst exit code; a student that misses its gate is worse than failed requests."""
    return GATE if GATE in codes else max(codes)


def _gate(settings: "Config") -> int:
    """Print which thresholds the student misses. Return the exit code of a finished evaluate."""
    from pipeline.evaluation import gate
    from pipeline.evaluation.results_model import Results

    results = Results.read(Path(settings.run_dir) / "evaluate" / "results.json")
    failed = gate.failed(settings, results)
    for line in failed:
        echo(line, err=True)
    return GATE if failed else DONE


def exit_code(module: "Stage", settings: "Config") -> int:
    """Return the exit code of a finished stage."""
    from pipeline.execution.manifest import read_manifest

    if module.NAME == "evaluate":
        return _gate(settings)

    run_dir = Path(settings.run_dir)
    failed = [
        read_manifest(run_dir, f"{module.NAME}/{part}")["counts"].get("failed", 0)
        for part in module.parts(settings)
    ]
    return DONE_WITH_ERRORS if any(failed) else DONE
