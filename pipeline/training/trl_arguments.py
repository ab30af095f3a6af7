"""What TRL's trainer is told, from the config."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import get_available_reporting_integrations
from trl import SFTConfig

from pipeline.config import Arm, Train
from pipeline.errors import PipelineError


def arguments(settings: Train, arm: Arm, folder: Path, seed: int) -> SFTConfig:
    """The trainer's arguments for an arm whose folder this is. Raises PipelineError for a tracker that is not there."""
    unknown = sorted(set(settings.report_to) - set(get_available_reporting_integrations()))
    if unknown:
        raise PipelineError(
            f"train.report_to: {unknown[0]} is not installed or not known to transformers; install it, or take it out"
        )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    logging.getLogger("transformers.trainer_utils").setLevel(
        logging.ERROR
    )  # it finds fault with file systems whose times are coarse
    gpu = torch.cuda.is_available()
    made = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=arm.epochs or settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=arm.learning_rate or settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_length=None,
        bf16=arithmetic(settings) == torch.bfloat16,
        gradient_checkpointing=settings.gradient_checkpointing,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        seed=seed,
        data_seed=seed,
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it hides what must be seen, and waits for the device at every step
        report_to=settings.report_to or "none",
        use_cpu=not gpu,
        ddp_backend=("nccl" if gpu else "gloo") if torch.distributed.is_initialized() else None,
        ddp_find_unused_parameters=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=gpu,
        disable_tqdm=True,
        **_looks(settings),
    )
    made._n_gpu = min(
        made.n_gpu, 1
    )  # several GPUs are several processes here, never threads of one
    return made


def arithmetic(settings: Train) -> torch.dtype:
    """The number format that a forward pass computes in; weights stay in float32."""
    return (
        torch.bfloat16
        if settings.dtype == "bfloat16" or (settings.dtype == "auto" and torch.cuda.is_available())
        else torch.float32
    )


def best_metric(settings: Train) -> str:
    """The name under which the trainer logs what patience watches."""
    return f"eval_{settings.best_by}"


def _looks(settings: Train) -> dict[str, Any]:
    if not settings.holdout:
        return {}
    best = (
        {
            "metric_for_best_model": best_metric(settings),
            "greater_is_better": settings.best_by == "score",
        }
        if settings.patience
        else {}
    )
    return {"eval_strategy": "steps", "eval_steps": settings.eval_steps, **best}
