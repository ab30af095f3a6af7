"""forgotten: tasks of lm-eval (EleutherAI's harness) on teacher, untouched student and every arm, for what was lost outside the task.

Runs behind `pipeline evaluate`, where evaluate.lm_eval is set. The harness loads each model by transformers, in a process of its own
(pipeline/evaluation/lm_eval_process.py), and takes its tasks' data from wherever they say, which for most of them is the Hugging Face hub.
"""

import importlib.util
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.evaluation import optional_figures
from pipeline.execution.contract import Job
from pipeline.execution.paths import BASE, TEACHER, trained, trained_model
from pipeline.execution.signals import run_child
from pipeline.models import resolve
from pipeline.storage.files import read_json, write_json
from pipeline.students import source

log = logging.getLogger(__name__)

NAME = "forgotten"
NOTES = frozenset[str]()
DISPOSABLE = frozenset[str]()
SHARED = False


def parts(config: Config) -> list[str]:
    """A teacher that is not loaded here cannot be asked."""
    teacher = [TEACHER] if config.teacher.backend == "vllm" else []
    return [*teacher, BASE, *config.train.arms] if config.evaluate.lm_eval else []


def sections(config: Config, part: str) -> list[str]:
    return ["evaluate.lm_eval", *(["teacher.model", "teacher.revision"] if part == TEACHER else [])]


def reads(config: Config, part: str) -> list[str]:
    return [] if part == TEACHER else [trained(part)]


def files(config: Config, part: str) -> list[Path]:
    """The tasks of one's own, and whatever lies beside them."""
    own = config.evaluate.lm_eval.include_path if config.evaluate.lm_eval else None
    return (
        [
            path
            for path in sorted(Path(own).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        if own
        else []
    )


def identities(config: Config, part: str) -> Mapping[str, str]:
    if part == TEACHER:
        return {"teacher": resolve.identity(config.teacher.model, config.teacher.revision)}
    return source.identities(config) if part == BASE else {}


def run(job: Job) -> dict[str, Any]:
    """Have the harness measure one model. Raises PipelineError if it is not installed or cannot do it."""
    settings = job.config.evaluate.lm_eval
    assert settings is not None
    check_installed("lm_eval")
    path, revision = _model(job)
    log.info(
        f"{NAME} {job.part}: {', '.join(settings.tasks)}; the harness's own words go to {job.engine_log}"
    )
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "job.json"), Path(folder, "result.json")
        what = {"tasks": settings.tasks, "limit": settings.limit, "examples": settings.examples}
        how = {"include_path": settings.include_path, "batch_size": settings.batch_size}
        write_json(asked, {"model": path, "revision": revision, **what, **how})
        code = run_child(
            [
                sys.executable,
                "-m",
                "pipeline.evaluation.lm_eval_process",
                str(asked),
                str(found),
                str(job.engine_log),
            ]
        )
        result = read_json(found) if found.exists() else {}
    if "figures" not in result:
        why = result.get("error", f"its process ended with code {code}")
        raise PipelineError(
            f"{NAME} {job.part}: lm-eval: {why}; its own words are in {job.engine_log}"
        )
    write_json(job.folder / optional_figures.FILE, result["figures"])
    return {"tasks": len(result["figures"])}


def summary(config: Config) -> str:
    return f"{NAME}: {', '.join(parts(config))}"


def check_installed(package: str) -> None:
    """Raise PipelineError if the harness is not there."""
    if importlib.util.find_spec(package) is None:
        raise PipelineError(
            f"{NAME}: evaluate.lm_eval needs lm-eval, and {package} is not installed; pip install 'pipeline[lm-eval]', or leave it out"
        )


def _model(job: Job) -> tuple[str, str | None]:
    if job.part == TEACHER:
        return resolve.model_path(job.config.teacher.model), job.config.teacher.revision
    return source.saved_model(trained_model(job.run_dir, job.part))
