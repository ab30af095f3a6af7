"""The arguments of TRL's trainer, made from the config."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers.integrations import get_available_reporting_integrations
from trl import SFTConfig

from pipeline.config import Train
from pipeline.errors import PipelineError
from pipeline.models.weights import cpu_has_bfloat16
from pipeline.training.trl_hooks import use_one_gpu


def arguments(settings: Train, folder: Path, seed: int) -> SFTConfig:
    """Return the trainer's arguments for the arm in `folder`.

    `settings` are those of `schedule.filled`. Raises PipelineError for an unknown tracker in
    train.report_to.
    """
    assert settings.epochs
    assert settings.batch_size
    assert settings.learning_rate
    unknown = sorted(set(settings.report_to) - set(get_available_reporting_integrations()))
    if unknown:
        raise PipelineError(
            f"train.report_to: {unknown[0]} is not installed or not known to transformers; "
            "install it, or take it out"
        )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "tensorboard")
    # it warns of file systems with coarse modification times
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    gpu = torch.cuda.is_available()
    backend = "nccl" if gpu else "gloo"
    config = SFTConfig(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_length=None,
        bf16=arithmetic(settings) == torch.bfloat16,
        gradient_checkpointing=settings.gradient_checkpointing,
        train_sampling_strategy="group_by_length" if is_grouped(settings) else "random",
        seed=seed,
        data_seed=seed,
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it hides NaN, and waits for the device at every step
        report_to=settings.report_to or "none",
        use_cpu=not gpu,
        ddp_backend=backend if torch.distributed.is_initialized() else None,
        ddp_find_unused_parameters=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=gpu,
        disable_tqdm=True,
        **_evaluation(settings),
    )
    use_one_gpu(config)
    return config


def arithmetic(settings: Train) -> torch.dtype:
    """Return the number format of a forward pass; weights stay in float32."""
    fast = torch.cuda.is_available() or cpu_has_bfloat16()
    if settings.dtype == "bfloat16" or (settings.dtype == "auto" and fast):
        return torch.bfloat16
    return torch.float32


def is_grouped(settings: Train) -> bool:
    """Return True if a batch has rows of similar length."""
    if settings.group_by_length is None:
        return not settings.packing
    return settings.group_by_length


def best_metric(settings: Train) -> str:
    """Return the name under which the trainer logs the metric of early stopping."""
    return f"eval_{settings.best_by}"


def _evaluation(settings: Train) -> dict[str, Any]:
    if not settings.holdout:
        return {}
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": settings.eval_steps}
    if settings.patience:
        options["metric_for_best_model"] = best_metric(settings)
        options["greater_is_better"] = settings.best_by == "score"
    return options
