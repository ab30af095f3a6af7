"""Figures of the optional stages memorisation and lm_eval, for results.json and the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.config import Config
from pipeline.evaluation.results_model import LmEval, Memorisation, Results, TaskMetric
from pipeline.storage.files import read_json

FILE = "figures.json"


def memorisation(config: Config, name: str) -> Memorisation | None:
    """Return a model's memorisation figures; None if the stage is off or not finished."""
    figures = _read(config, "memorisation", name) if config.evaluate.memorisation else None
    return None if figures is None else Memorisation.model_validate(figures)


def lm_eval(config: Config, name: str) -> LmEval | None:
    """Return a model's lm-eval figures; None if the stage is off or not finished."""
    figures = _read(config, "forgotten", name) if config.evaluate.lm_eval else None
    return None if figures is None else TypeAdapter(LmEval).validate_python(figures)


def lines(results: Results) -> Iterator[str]:
    """Yield the lines with the figures of both stages that the terminal prints."""
    for name, model in results.models.items():
        if model.memorisation:
            yield f"{name}: {'; '.join(_memorised(model.memorisation))}"
        for task, metrics in (model.lm_eval or {}).items():
            values = ", ".join(_metric(metric, value) for metric, value in metrics.items())
            yield f"{name}: {task}: {values}"


def _read(config: Config, stage: str, name: str) -> Any:
    path = Path(config.run_dir) / stage / name / FILE
    return read_json(path) if path.exists() else None


def _memorised(figures: Memorisation) -> Iterator[str]:
    trained, unseen = figures.trained, figures.unseen
    if figures.difference is not None:
        yield (
            f"{trained.verbatim:.1%} of {trained.rows} training rows come back word for word "
            f"({figures.tokens} tokens or more), {unseen.verbatim:.1%} of {unseen.rows} unseen ones"
        )
    if figures.canaries:
        bits = [canary.exposure for canary in figures.canaries]
        mean = sum(bits) / len(bits)
        yield f"exposure of {len(bits)} canaries {mean:.1f} bits (1.4 by chance)"


def _metric(name: str, metric: TaskMetric) -> str:
    error = f" ± {metric.stderr:.3f}" if metric.stderr is not None else ""
    return f"{name} {metric.value:.3f}{error}"
