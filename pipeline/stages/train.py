"""The train stage: the first weights, then every arm from them, on the same rows.

An arm is trained by SFT, or by distillation from the stored logprobs.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, Student, Train
from pipeline.config.white_box import TERMS
from pipeline.data import licences, seeds
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.paths import INIT, frames, learnable
from pipeline.models import resolve
from pipeline.storage.files import read_json, write_json
from pipeline.students import build
from pipeline.students import source as student_source
from pipeline.training import distributed
from pipeline.training.checkpoints import last_checkpoint
from pipeline.training.fit import train_arm
from pipeline.training.healing import text as healing_text
from pipeline.verifiers import verify

log = logging.getLogger(__name__)

NAME = "train"
NOTES = frozenset({"history.jsonl", "samples.jsonl", "checkpoints", "tensorboard"})
DISPOSABLE = frozenset({"tensorboard"})
SHARED = False
HEALING = ("batch_size", "accumulate", "max_length", "dtype", "seed")  # settings of train
SLOW_LOADING = 0.05  # share of the training time


def parts(config: Config) -> list[str]:
    return [INIT, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    if part == INIT:
        return _init_sections(config)
    arm = config.train.arms[part]
    settings = [
        f"train.{name}"
        for name in Train.model_fields
        if name != "arms" and getattr(arm, name, None) is None
    ]
    settings += [f"train.arms.{part}", "student.lora"]
    if arm.text == "truth":
        settings.append("task.seeds")
    if _checks_answers(config, part):
        settings += ["task.metric", "task.labels", "task.verifier"]
    if config.train.best_by == "score":
        settings.append("evaluate.max_tokens")
    return settings


def _init_sections(config: Config) -> list[str]:
    settings = [f"student.{name}" for name in Student.model_fields if name != "lora"]
    if config.student.model == "random":
        settings.append("train.seed")
    if student_source.reads_seeds(config):
        settings += ["task.seeds", "train.prompt", "train.rows"]
    if config.student.heal:
        settings += [f"train.{name}" for name in HEALING]
    return settings


def reads(config: Config, part: str) -> list[str]:
    rows = ["generate", "filter"] if config.train.rows == "filter" else ["score"]
    if part != INIT:
        learned = rows if config.train.arms[part].text == "teacher" else []
        return [*learned, f"{NAME}/{INIT}"]
    trimmed = rows[:1] if _draws_from_all(config) else rows
    parts = trimmed if config.student.trim_vocabulary else []
    heal = config.student.heal
    healed = ["generate"] if heal and heal.text == "samples" else []
    return list(dict.fromkeys([*healed, *parts]))


def files(config: Config, part: str) -> list[Path]:
    reads_seeds = _reads_seeds(config, part)
    prompt = [Path(config.train.prompt)] if reads_seeds or part != INIT else []
    source = seeds.files(config.task.seeds) if reads_seeds else []
    schema = verify.files(config.task) if _checks_answers(config, part) else []
    # the teacher's prompts for other text are generate's copies, which its manifest lists
    is_read = _reads_seeds(config, part) and _is_white_box(config, part)
    teacher = [Path(path) for path in config.generate.prompt] if is_read else []
    healing = healing_text.files(config) if part == INIT else []
    return [*prompt, *teacher, *source, *schema, *healing]


def identities(config: Config, part: str) -> Mapping[str, str]:
    source = seeds.identities(config.task.seeds) if _reads_seeds(config, part) else {}
    teacher = resolve.identities(config.teacher) if _is_white_box(config, part) else {}
    return {**source, **student_source.identities(config), **teacher}


def _is_white_box(config: Config, part: str) -> bool:
    return part != INIT and bool(config.train.arms[part].white_box)


def _draws_from_all(config: Config) -> bool:
    """Return True if some arm also learns from rejected samples.

    A trimmed vocabulary must then contain their tokens.
    """
    return any(arm.selection == "random" for arm in config.train.arms.values())


def _checks_answers(config: Config, part: str) -> bool:
    """Return True if a part compares answers with the ground truth."""
    return part != INIT and (config.train.arms[part].corrected or config.train.best_by == "score")


def _reads_seeds(config: Config, part: str) -> bool:
    """Return whether a part reads the seeds themselves, and not only samples made of them."""
    if part == INIT:
        return student_source.reads_seeds(config)
    return config.train.arms[part].text == "truth"


def run(job: Job) -> dict[str, Any]:
    """Make the first weights of all arms, or train one arm."""
    # again, since generate did: a licence may have been declared later
    terms = licences.check_declared(job.config.licences)
    finish(job.config)  # the arms before this one: a student's checkpoints are ten times its size
    if job.part == INIT:
        log.info("\n".join(terms.lines))
        return _init(job)
    return _arm(job)


def finish(config: Config) -> None:
    """Delete the checkpoints of finished arms: nothing continues from them.

    An arm's own run cannot do it, since its manifest is written after that.
    """
    if config.train.keep_checkpoints:
        return
    for arm in config.train.arms:
        folder = Path(config.run_dir) / NAME / arm
        if (folder / "manifest.json").exists():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def student_path(run_dir: Path, part: str) -> str:
    """Return the folder of a finished part's model, or a hub id if it was not changed."""
    return student_source.saved_model(run_dir / NAME / part)[0]


def summary(config: Config) -> str:
    """Return a line for each arm: rows, steps, losses."""
    lines = []
    for part in config.train.arms:
        counts = read_manifest(Path(config.run_dir), f"{NAME}/{part}")["counts"]
        lines.append(f"train {part}: {_summary_line(counts)}")
    return "\n".join(lines)


def _summary_line(counts: Mapping[str, Any]) -> str:
    line = f"{counts['rows']:,} rows, {counts['steps']:,} steps, loss {counts['loss']:.3f}"
    losses = {name: counts.get(f"loss_{name}") for name in ("ce", "kd", *TERMS)}
    terms = [f"{name} {loss:.3f}" for name, loss in losses.items() if loss is not None]
    if terms:
        line += f" ({', '.join(terms)})"
    if "kd_gradient_share" in counts:
        line += f", kd {counts['kd_gradient_share']:.0%} of the gradient"
    if "held_out_loss" in counts:
        line += f", held-out loss {counts['held_out_loss']:.3f}"
    if "held_out_score" in counts:
        line += f", held-out score {counts['held_out_score']:.3f}"
    if counts.get("saved_step", counts["steps"]) != counts["steps"]:
        line += f" at step {counts['saved_step']:,}"
    loading = counts.get("loading_share", 0.0)
    if loading > SLOW_LOADING:
        line += f"; {loading:.0%} of the time was spent reading rows"
    return line


def _init(job: Job) -> dict[str, Any]:
    rows = learnable(job.config, _draws_from_all(job.config))
    if job.config.student.heal:
        from pipeline.training.healing import fit

        start = build.Start(None, fit.heal(job, rows, frames(job.config)))
    else:
        start = build.build(job.config, job.folder / "model", rows, frames(job.config))
    revision = student_source.source(job.config)[1] if start.model else None
    write_json(job.folder / "student.json", {"model": start.model, "revision": revision})
    return start.counts


def _arm(job: Job) -> dict[str, Any]:
    """Train an arm, here or in several worker processes; this one keeps lock and manifest."""
    processes = _processes(job)
    if processes == 1:
        distributed.clear_environment()
        return train_arm(job)
    task = {
        "config": job.config.model_dump(mode="json"),
        "part": job.part,
        "folder": str(job.folder),
    }
    counts: dict[str, Any] = distributed.run_workers(
        "pipeline.training.worker", task, processes, f"train {job.part}"
    )
    return counts | {"processes": processes}


def _processes(job: Job) -> int:
    """Return how many processes train the arm: by the config, else one a GPU.

    Raises PipelineError where a started arm had another number: its batches would be others.
    """
    import torch

    processes = job.config.train.processes or max(torch.cuda.device_count(), 1)
    path = job.folder / "work.json"
    before = processes
    if path.exists() and last_checkpoint(job.folder / "checkpoints"):
        before = read_json(path)["processes"]
    if before != processes:
        raise PipelineError(
            f"train {job.part}: was started with {before} processes, and here would be "
            f"{processes}, whose batches are others; continue where there are {before} GPUs, "
            "or start again with --redo"
        )
    write_json(path, {"processes": processes})
    return processes
