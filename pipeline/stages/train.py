"""train: a student by SFT, or by distillation from the stored logprobs; every arm from the same start on the same rows."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, Student, Train
from pipeline.data import licences, seeds
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.paths import INIT, frames, learnable
from pipeline.storage.files import read_json, write_json
from pipeline.students import build
from pipeline.students import source as student_source
from pipeline.training import distributed
from pipeline.training.fit import last_checkpoint, train_arm
from pipeline.verifiers import verify

log = logging.getLogger(__name__)

NAME = "train"
NOTES = frozenset({"history.jsonl", "samples.jsonl", "checkpoints", "tensorboard"})
DISPOSABLE = frozenset({"tensorboard"})
SHARED = False
SLOW_LOADING = 0.05  # of the time of training


def parts(config: Config) -> list[str]:
    return [INIT, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    if part == INIT:
        of_data = (
            ["task.seeds", "train.prompt", "train.rows"]
            if student_source.reads_seeds(config)
            else []
        )
        drawn = ["train.seed"] if config.student.model == "random" else []
        return [
            *(f"student.{name}" for name in Student.model_fields if name != "lora"),
            *drawn,
            *of_data,
        ]
    arm = config.train.arms[part]
    seeds_too = ["task.seeds"] if arm.text == "truth" else []
    judged = ["task.metric", "task.labels", "task.verifier"] if _judges(config, part) else []
    judged += ["evaluate.max_tokens"] if config.train.best_by == "score" else []
    settings = [
        f"train.{name}"
        for name in Train.model_fields
        if name != "arms" and getattr(arm, name, None) is None
    ]
    return [*settings, f"train.arms.{part}", "student.lora", *seeds_too, *judged]


def reads(config: Config, part: str) -> list[str]:
    rows = ["generate", "filter"] if config.train.rows == "filter" else ["score"]
    if part == INIT:
        return [] if not config.student.trim_vocabulary else rows[:1] if _draws(config) else rows
    return [*(rows if config.train.arms[part].text == "teacher" else []), f"{NAME}/{INIT}"]


def files(config: Config, part: str) -> list[Path]:
    counted = _seeds_count(config, part)
    source = [Path(config.task.seeds.path)] if config.task.seeds.path and counted else []
    schema = verify.files(config.task) if _judges(config, part) else []
    return [*([Path(config.train.prompt)] if counted or part != INIT else []), *source, *schema]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {
        **(seeds.identities(config.task.seeds) if _seeds_count(config, part) else {}),
        **student_source.identities(config),
    }


def _draws(config: Config) -> bool:
    """Whether some arm learns from samples that were not kept, whose tokens a trimmed vocabulary must have too."""
    return any(arm.selection == "random" for arm in config.train.arms.values())


def _judges(config: Config, part: str) -> bool:
    """Whether a part holds answers against the ground truth."""
    return part != INIT and (config.train.arms[part].corrected or config.train.best_by == "score")


def _seeds_count(config: Config, part: str) -> bool:
    """Whether a part depends on the seeds as they are, and not only on what was made of them."""
    return (
        student_source.reads_seeds(config)
        if part == INIT
        else config.train.arms[part].text == "truth"
    )


def run(job: Job) -> dict[str, Any]:
    # licences that were declared after generate count too
    terms = licences.check_declared(job.config.licences)
    if job.part == INIT:
        log.info("\n".join(terms.lines))
        return _init(job)
    return _arm(job)


def student_path(run_dir: Path, part: str) -> str:
    """Where the model of a finished part is: a folder, or a hub id for an untouched one."""
    return student_source.saved_model(run_dir / NAME / part)[0]


def summary(config: Config) -> str:
    lines = []
    for part in config.train.arms:
        counts = read_manifest(Path(config.run_dir), f"{NAME}/{part}")["counts"]
        shares = (
            f" (ce {counts['loss_ce']:.3f}, kd {counts['loss_kd']:.3f})"
            if "loss_kd" in counts
            else ""
        )
        shares += (
            f", kd {counts['kd_gradient_share']:.0%} of the gradient"
            if "kd_gradient_share" in counts
            else ""
        )
        shares += (
            f", held-out loss {counts['held_out_loss']:.3f}" if "held_out_loss" in counts else ""
        )
        shares += (
            f", held-out score {counts['held_out_score']:.3f}" if "held_out_score" in counts else ""
        )
        shares += (
            f" at step {counts['saved_step']:,}"
            if counts.get("saved_step", counts["steps"]) != counts["steps"]
            else ""
        )
        slow = counts.get("loading_share", 0.0)
        shares += f"; {slow:.0%} of the time went into reading rows" if slow > SLOW_LOADING else ""
        lines.append(
            f"train {part}: {counts['rows']:,} rows, {counts['steps']:,} steps, loss {counts['loss']:.3f}{shares}"
        )
    return "\n".join(lines)


def _init(job: Job) -> dict[str, Any]:
    start = build.build(
        job.config,
        job.folder / "model",
        learnable(job.config, _draws(job.config)),
        frames(job.config),
    )
    revision = student_source.source(job.config)[1] if start.model else None
    write_json(job.folder / "student.json", {"model": start.model, "revision": revision})
    return start.counts


def _arm(job: Job) -> dict[str, Any]:
    """The arm, by as many processes as the config or the machine says; this one keeps lock and manifest."""
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
    """How many are to train. Raises PipelineError where a begun arm had another number: its batches would be others."""
    import torch

    processes = job.config.train.processes or max(torch.cuda.device_count(), 1)
    known = job.folder / "work.json"
    before = (
        read_json(known)["processes"]
        if known.exists() and last_checkpoint(job.folder / "checkpoints")
        else processes
    )
    if before != processes:
        raise PipelineError(
            f"train {job.part}: was begun by {before} processes, and here would be {processes}, whose batches are others; "
            f"go on where there are {before} GPUs, or begin again with --redo"
        )
    write_json(known, {"processes": processes})
    return processes
