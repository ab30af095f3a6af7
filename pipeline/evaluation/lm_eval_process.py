"""Run lm-eval on one model: python -m pipeline.evaluation.lm_eval_process JOB RESULT LOG.

Only pipeline/stages/lm_eval.py starts it. It is a separate process because lm-eval changes global
settings of torch and random generators, and does not free the models that it has loaded.
"""

import os
import sys
from pathlib import Path
from typing import Any

from pipeline.storage.files import read_json, write_json

BOOTSTRAPS = 1000  # resamples for the standard error of a metric that has no formula for it


def main(job: Path, result: Path, log: Path) -> int:
    """Write {"figures": …} or {"error": …} to `result`, and lm-eval's output to `log`."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        write_json(result, {"figures": figures(measure(read_json(job))["results"])})
    except Exception as error:  # a custom task's code may raise any exception
        write_json(result, {"error": (str(error).strip() or type(error).__name__).splitlines()[0]})
        raise
    return 0


def measure(job: dict[str, Any]) -> Any:
    """Return the results of lm-eval's simple_evaluate."""
    import torch
    from lm_eval import simple_evaluate

    return simple_evaluate(
        "hf",
        model_args={
            "pretrained": job["model"],
            "revision": job["revision"] or "main",
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "trust_remote_code": False,
            "batch_size": job["batch_size"],
        },
        tasks=job["tasks"],
        num_fewshot=job["examples"],
        limit=job["limit"],
        log_samples=False,
        bootstrap_iters=BOOTSTRAPS,
        task_manager=_manager(job["tasks"], job["include_path"]),
    )


def _manager(tasks: list[str], include_path: str | None) -> Any:
    """Return lm-eval's task index; read its thousands of own tasks only if they are needed."""
    from lm_eval.tasks import TaskManager

    if include_path:
        custom = TaskManager(include_path=include_path, include_defaults=False)
        if set(tasks) <= set(custom.all_tasks):
            return custom
    return TaskManager(include_path=include_path)


def figures(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return {task: {metric: {value, stderr}}}.

    lm-eval returns {task: {"metric,filter": value, "metric_stderr,filter": value}}. The metric's
    name keeps its filter unless the filter is "none". stderr is None if lm-eval gives none.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for task, values in results.items():
        tasks[task] = {}
        for key, value in values.items():
            metric, comma, filter_ = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                error = values.get(f"{metric}_stderr,{filter_}")
                tasks[task][metric if filter_ == "none" else key] = {
                    "value": float(value),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                }
    return tasks


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
