"""lm-eval on one model: python -m pipeline.evaluation.lm_eval_process JOB RESULT LOG. Started by the stage `forgotten` only.

A process of its own, since the harness changes settings of torch and of the random generators, and keeps what it has loaded.
"""

import os
import sys
from pathlib import Path
from typing import Any

from pipeline.storage.files import read_json, write_json

BOOTSTRAPS = 1000  # of metrics that have no formula for their standard error


def main(job: Path, result: Path, log: Path) -> int:
    """Write {"figures"} or {"error"} to `result`. What the harness prints goes to `log`."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        write_json(result, {"figures": figures(measure(read_json(job))["results"])})
    except Exception as error:  # whatever a task of somebody else's raises
        write_json(result, {"error": (str(error).strip() or type(error).__name__).splitlines()[0]})
        raise
    return 0


def measure(job: dict[str, Any]) -> Any:
    """What lm-eval finds."""
    import torch
    from lm_eval import simple_evaluate

    place = {
        "pretrained": job["model"],
        "revision": job["revision"] or "main",
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    return simple_evaluate(
        "hf",
        model_args={**place, "trust_remote_code": False, "batch_size": job["batch_size"]},
        tasks=job["tasks"],
        num_fewshot=job["examples"],
        limit=job["limit"],
        log_samples=False,
        bootstrap_iters=BOOTSTRAPS,
        task_manager=_manager(job["tasks"], job["include_path"]),
    )


def _manager(tasks: list[str], include_path: str | None) -> Any:
    """Where the tasks are looked up. The harness's own thousands are read only where one of them is asked for."""
    from lm_eval.tasks import TaskManager

    if include_path:
        own = TaskManager(include_path=include_path, include_defaults=False)
        if set(tasks) <= set(own.all_tasks):
            return own
    return TaskManager(include_path=include_path)


def figures(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{task: {metric: {value, stderr}}} of the harness's {task: {"metric,filter": value, "metric_stderr,filter": value}}. A metric's name
    has its filter where that is not "none"; stderr is None where there is none."""
    found: dict[str, dict[str, Any]] = {}
    for task, values in results.items():
        found[task] = {}
        for key, value in values.items():
            metric, comma, used = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                error = values.get(f"{metric}_stderr,{used}")
                name = metric if used == "none" else key
                found[task][name] = {
                    "value": float(value),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                }
    return found


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
