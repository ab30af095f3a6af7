"""Load the teacher of a white-box arm: checks, and what it costs, before any weights."""

import logging
from collections.abc import Sequence
from typing import Any

from pipeline.data.encoding import Example
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.paths import INIT
from pipeline.models import resolve
from pipeline.models.weights import load_config, load_weights
from pipeline.students import white_box
from pipeline.students.checks import meta_model
from pipeline.training import distributed

log = logging.getLogger(__name__)

GIB = 2**30


def plan(job: Job, student_config: Any) -> white_box.Plan | None:
    """Return the layers that an arm compares with the teacher's; None without white-box terms.

    `student_config`: the configuration of the student. Raises PipelineError for a layer that a
    model does not have, and for a model whose layers are not found.
    """
    arm = job.config.train.arms[job.part]
    if not arm.white_box:
        return None
    models = student_config, _teacher_config(job)
    white_box.check_modules(arm, job.part, models)
    kept = read_manifest(job.run_dir, f"{job.stage}/{INIT}")["counts"].get("layers")
    layers = student_config.get_text_config().num_hidden_layers
    origin = white_box.origin(job.config, kept, layers)
    return white_box.plan(arm, job.part, models, origin)


def load(job: Job, plan: white_box.Plan, student_config: Any, rows: Sequence[Example]) -> Any:
    """Load the teacher, frozen, in the number format of a forward pass. Log what it costs first."""
    import torch

    from pipeline.training.live_teacher import LiveTeacher
    from pipeline.training.trl_arguments import arithmetic

    settings = job.config.train
    dtype = arithmetic(settings)
    models = meta_model(student_config), meta_model(_teacher_config(job))
    if distributed.rank() == 0:
        nbytes = sum(weight.numel() for weight in models[1].parameters()) * dtype.itemsize
        times = _times(models, rows, passes=4 if settings.gradient_checkpointing else 3)
        terms = ", ".join(settings.arms[job.part].white_box)
        log.info(
            f"train {job.part}: the teacher {job.config.teacher.model} reads every row too, for "
            f"{terms}: {nbytes / GIB:.2f} GiB of weights in each process, and a step takes about "
            f"{times:.1f} times as long"
        )
    teacher = job.config.teacher
    weights = load_weights(resolve.model_path(teacher.model), teacher.revision, dtype)
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return LiveTeacher(settings.arms[job.part], plan, weights.to(device))


def _teacher_config(job: Job) -> Any:
    teacher = job.config.teacher
    return load_config(resolve.model_path(teacher.model), teacher.revision)


def _times(models: tuple[Any, Any], rows: Sequence[Example], passes: int) -> float:
    """Return the time of a step over that without the teacher, from weights times tokens.

    passes: forward passes whose time the student's forward and backward pass take.
    """
    student = _multiplied(models[0], head=True) * sum(len(row.input_ids) for row in rows) * passes
    read = [row for row in rows if row.teacher_prompt]
    tokens = sum(len(row.teacher_prompt) + len(row.teacher_ids) for row in read)
    return 1.0 + _multiplied(models[1], head=False) * tokens / max(student, 1)


def _multiplied(model: Any, head: bool) -> int:
    """Count the weights that every token is multiplied with: all layers', maybe the lm_head's."""
    body = sum(weight.numel() for weight in model.base_model.layers.parameters())
    return body + (model.get_output_embeddings().weight.numel() if head else 0)
