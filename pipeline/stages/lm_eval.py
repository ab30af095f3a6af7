"""The lm_eval stage: lm-eval tasks (EleutherAI's harness) on teacher, base student and every arm.

They show what a student has forgotten outside its task; the run's folder is called forgotten.
`pipeline evaluate` runs the stage where evaluate.lm_eval is set. The harness loads each model with
transformers, in a process of its own (pipeline/evaluation/lm_eval_process.py). A task
says where its data comes from: for most tasks, the Hugging Face hub.
"""

import importlib.util
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, LmEval
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
    """Return the models to measure. A teacher on a server cannot be measured."""
    teacher = [TEACHER] if config.teacher.backend == "vllm" else []
    return [*teacher, BASE, *config.train.arms] if config.evaluate.lm_eval else []


def sections(config: Config, part: str) -> list[str]:
    return ["evaluate.lm_eval", *(["teacher.model", "teacher.revision"] if part == TEACHER else [])]


def reads(config: Config, part: str) -> list[str]:
    return [] if part == TEACHER else [trained(part)]


def files(config: Config, part: str) -> list[Path]:
    """Return the files of custom tasks, and all files beside them."""
    settings = config.evaluate.lm_eval
    if settings is None or not settings.include_path:
        return []
    paths = sorted(Path(settings.include_path).rglob("*"))
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def identities(config: Config, part: str) -> Mapping[str, str]:
    if part == TEACHER:
        return {"teacher": resolve.identity(config.teacher.model, config.teacher.revision)}
    return source.identities(config) if part == BASE else {}


def run(job: Job) -> dict[str, Any]:
    """Have the harness measure one model.

    Raises PipelineError if the harness is not installed or fails.
    """
    settings = job.config.evaluate.lm_eval
    assert settings is not None
    check_installed("lm_eval")
    log.info(f"{NAME} {job.part}: {', '.join(settings.tasks)}; lm-eval's output: {job.engine_log}")
    result = _measure(job, settings)
    if "figures" not in result:
        raise PipelineError(
            f"{NAME} {job.part}: lm-eval: {result['error']}; its output is in {job.engine_log}"
        )
    write_json(job.folder / optional_figures.FILE, result["figures"])
    return {"tasks": len(result["figures"])}


def _measure(job: Job, settings: LmEval) -> dict[str, Any]:
    """Run the harness in a process of its own. Return its {"figures"}, or {"error"}."""
    path, revision = _model(job)
    task = {
        "model": path,
        "revision": revision,
        "tasks": settings.tasks,
        "limit": settings.limit,
        "examples": settings.examples,
        "include_path": settings.include_path,
        "batch_size": settings.batch_size,
    }
    command = [sys.executable, "-m", "pipeline.evaluation.lm_eval_process"]
    with tempfile.TemporaryDirectory() as folder:
        task_file, result_file = Path(folder, "job.json"), Path(folder, "result.json")
        write_json(task_file, task)
        code = run_child([*command, str(task_file), str(result_file), str(job.engine_log)])
        if result_file.exists():
            result: dict[str, Any] = read_json(result_file)
            return result
    return {"error": f"its process ended with code {code}"}


def check_installed(package: str) -> None:
    """Raise PipelineError if the package of the harness is not installed."""
    if importlib.util.find_spec(package) is None:
        raise PipelineError(
            f"{NAME}: evaluate.lm_eval needs lm-eval, and {package} is not installed; "
            "pip install 'pipeline[lm-eval]', or remove evaluate.lm_eval"
        )


def _model(job: Job) -> tuple[str, str | None]:
    """Return (folder or hub id, revision) of the model of this part."""
    if job.part == TEACHER:
        return resolve.model_path(job.config.teacher.model), job.config.teacher.revision
    return source.saved_model(trained_model(job.run_dir, job.part))
