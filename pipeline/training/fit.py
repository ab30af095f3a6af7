"""Train one arm in this process."""

import json
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Train
from pipeline.data import prompts
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import Diverged, PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.paths import INIT, frames
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.storage.files import read_json, sync_folder, write_atomic, write_json
from pipeline.storage.soft_labels import SoftLabels
from pipeline.storage.topk import TopKFolder
from pipeline.students import build, lora, source
from pipeline.training import distributed
from pipeline.training.dataset import Rows, load, training_seed

log = logging.getLogger(__name__)

ANSWERED = 200  # held-out seeds, at most, that a student answers at every look where their score chooses its weights


def train_arm(job: Job) -> dict[str, Any]:
    """Train one arm to its end and save it. Where several processes do so together, each calls this and the first one writes."""
    import torch
    import transformers

    from pipeline.training import trl_arguments

    start, revision = source.saved_model(job.run_dir / job.stage / INIT)
    tokenizer = Tokenizer(start, revision)
    rows = load(
        job.config, job.part, tokenizer, load_config(start, revision).get_text_config().vocab_size
    )
    checkpoint = last_checkpoint(job.folder / "checkpoints")
    _say(
        job,
        f"{len(rows.train):,} rows, from {start}"
        + ("" if rows.same else "; another tokenizer, so the text is tokenised anew"),
    )
    if rows.passed_over:
        _say(
            job,
            f"{rows.passed_over:,} samples drawn that cannot be learned from (too long, or without an answer) gave way to others",
        )
    _say(job, *_before(job, checkpoint))

    transformers.set_seed(training_seed(job.config, job.part))
    model = build.load_student(
        job.config, start, revision, torch.float32, trl_arguments.arithmetic(job.config.train)
    )
    trainer = _trainer(job, model, tokenizer, rows)
    try:
        if checkpoint and _is_out_of_patience(job, checkpoint):  # killed before its model was saved
            trainer.state = transformers.TrainerState.load_from_json(
                str(checkpoint / "trainer_state.json")
            )
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _take_best(job, trainer)
        trainer.check_weights()
    except Diverged as stop:
        raise _stopped(job, trainer.state.log_history, stop.step, stop.what) from None
    if distributed.rank() > 0:
        return {}
    _save(job, trainer, tokenizer, start, revision)
    return _count(job, rows, trainer)


def _trainer(job: Job, model: Any, tokenizer: Tokenizer, rows: Rows) -> Any:
    from transformers import PrinterCallback

    from pipeline.training import collation, model_checks, trl_arguments
    from pipeline.training.callbacks import Guard, IdleWarning, Reporter
    from pipeline.training.trainer import DistillTrainer

    settings, arm, label = job.config.train, job.config.train.arms[job.part], f"train {job.part}"
    folder, vocabulary = (
        TopKFolder(frames(job.config)) if arm.method == "kd" else None,
        Vocabulary.read(tokenizer.name),
    )
    soft = SoftLabels.read(job.run_dir / "filter" / "kept") if arm.soft_labels else None
    collators = [
        collation.Collator(
            tokenizer.pad_id,
            collation.Frames(folder, examples, vocabulary, soft) if folder else None,
            packed,
        )
        for examples, packed in ((rows.train, settings.packing), (rows.held_out, False))
    ]
    held_out = _held_out(job, tokenizer, rows, collators[1]) if rows.held_out else None
    guard = Guard(
        settings.warmup,
        steady=arm.method == "sft" or (arm.alpha_end is None and arm.temperature_end is None),
    )
    trainer = DistillTrainer(
        arm=arm,
        guard=guard,
        held_out=held_out,
        model=model,
        args=trl_arguments.arguments(
            settings, arm, job.folder, training_seed(job.config, job.part)
        ),
        train_dataset=collation.dataset(
            rows.train, settings.max_length if settings.packing else None
        ),
        eval_dataset=held_out.rows if held_out else None,
        data_collator=collators[0],
        processing_class=tokenizer.hf,
        callbacks=[
            *(Reporter(label), IdleWarning(label, arm), guard),
            *_patience(settings),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.packing:
        model_checks.check_packing(trainer.model)
    return trainer


def _held_out(job: Job, tokenizer: Tokenizer, rows: Rows, collate: Any) -> Any:
    from pipeline.training.collation import dataset
    from pipeline.training.validation import Examiner, HeldOut

    config, settings = job.config, job.config.train
    prompt = prompts.load(settings.prompt).in_form(settings.arms[job.part].form)
    scored = (
        [seed for seed in rows.seeds if seed.target is not None][:ANSWERED]
        if settings.best_by == "score"
        else []
    )
    if settings.best_by == "score" and not scored:
        raise PipelineError(
            f"train {job.part}: train.best_by: score needs ground truth, and none of its {len(rows.seeds):,} held-out seeds has any; "
            "use best_by: loss, raise train.holdout, or give the seeds targets"
        )
    return HeldOut(
        label=f"train {job.part}",
        rows=dataset(rows.held_out),
        collate=collate,
        batch_size=settings.batch_size,
        examiner=Examiner(
            tokenizer, prompt, config.task, config.evaluate.max_tokens, settings.batch_size
        ),
        asked=scored or rows.seeds[: settings.show],
        scored=bool(scored),
        samples=job.folder / "samples.jsonl",
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the trainer's state comes last."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_json(path / "trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True


def _save(job: Job, trainer: Any, tokenizer: Tokenizer, start: str, revision: str | None) -> None:
    """The finished model, in the number format of its start, whole or not at all."""
    dtype = load_config(start, revision).dtype
    partial = job.folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    lora.merged(trainer.accelerator.unwrap_model(trainer.model)).to(dtype).save_pretrained(partial)
    tokenizer.save(partial)
    if vocabulary := Vocabulary.read(start):
        vocabulary.write(partial)
    shutil.rmtree(job.folder / "model", ignore_errors=True)
    partial.rename(job.folder / "model")
    sync_folder(job.folder)
    write_json(job.folder / "student.json", {"model": None, "revision": None})


def _take_best(job: Job, trainer: Any) -> None:
    """With patience, the best weights instead of the last ones."""
    best = trainer.state.best_global_step
    if not best:
        return
    folder = job.folder / "checkpoints" / f"checkpoint-{best}"
    if not folder.is_dir():
        raise PipelineError(
            f"train {job.part}: {folder} had the best weights and is gone; put it back, or train again with --redo"
        )
    trainer.state.best_model_checkpoint = str(folder)
    trainer._load_best_model()


def _is_out_of_patience(job: Job, checkpoint: Path) -> bool:
    patience = _patience(job.config.train)
    return bool(patience) and patience[0].is_used_up(
        read_json(checkpoint / "trainer_state.json")["log_history"]
    )


def _patience(settings: Train) -> list[Any]:
    from pipeline.training.callbacks import Patience
    from pipeline.training.trl_arguments import best_metric

    return (
        [Patience(best_metric(settings), settings.best_by == "score", settings.patience)]
        if settings.patience
        else []
    )


def _stopped(job: Job, history: list[dict[str, Any]], step: int, what: str) -> PipelineError:
    """Keep the history of an arm that cannot go on, and say what can be done."""
    if distributed.rank() == 0:
        _write_history(job, [*history, {"step": step, "stopped": what}])
    checkpoint = last_checkpoint(job.folder / "checkpoints")
    begins = (
        f"the last good checkpoint is {checkpoint}, from which"
        if checkpoint
        else "there is no checkpoint yet, so from the beginning"
    )
    return PipelineError(
        f"train {job.part}: step {step}: {what}; lower train.learning_rate or raise train.warmup, and begin "
        f"again with --redo. {begins[0].upper() + begins[1:]} the same command would go on, into the same trouble"
    )


def _before(job: Job, checkpoint: Path | None) -> list[str]:
    """What to say about work that is there already."""
    path = job.folder / "history.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.exists() else {}
    stopped = (
        [f"stopped at step {last['step']} the last time: {last['stopped']}"]
        if "stopped" in last
        else []
    )
    return stopped + ([f"going on from {checkpoint.name}"] if checkpoint else [])


def _say(job: Job, *lines: str) -> None:
    for line in lines if distributed.rank() == 0 else ():
        log.info(f"train {job.part}: {line}")


def _write_history(job: Job, history: Sequence[dict[str, Any]]) -> None:
    plain = [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in entry.items()
        }
        for entry in history
    ]
    write_atomic(job.folder / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in plain))


def _count(job: Job, rows: Rows, trainer: Any) -> dict[str, Any]:
    """Rows, steps, the last logged losses, and the held-out ones of the saved weights; the whole history goes to history.jsonl."""
    history, best = trainer.state.log_history, trainer.state.best_global_step
    _write_history(job, history)
    last = [entry for entry in history if "loss" in entry][-1]
    looks = [
        entry for entry in history if "eval_loss" in entry and (not best or entry["step"] == best)
    ]
    names = {"eval_loss": "held_out_loss", "eval_score": "held_out_score"}
    steps = max(entry["step"] for entry in history)
    return {
        "rows": len(rows.train),
        **(
            {"passed_over": rows.passed_over}
            if job.config.train.arms[job.part].selection == "random"
            else {}
        ),
        "steps": steps,
        **{
            name: round(float(last[name]), 6)
            for name in ("loss", "loss_ce", "loss_kd", "kd_gradient_share")
            if name in last
        },
        **({"held_out": len(rows.held_out), "saved_step": best or steps} if rows.held_out else {}),
        **{
            name: round(float(look[key]), 6)
            for look in looks[-1:]
            for key, name in names.items()
            if key in look
        },
        "loading_share": round(trainer.loading_share, 4),
    }
