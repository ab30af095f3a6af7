"""Train one arm in this process and save it."""

import json
import logging
import math
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Train
from pipeline.config.white_box import TERMS
from pipeline.data import prompts
from pipeline.data.encoding import Example
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import Diverged, PipelineError, Stopped
from pipeline.execution import signals
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.paths import INIT, frames
from pipeline.models import saving
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.storage.files import read_json, sync_folder, write_atomic, write_json
from pipeline.storage.soft_labels import SoftLabels
from pipeline.storage.topk import TopKFolder
from pipeline.students import build, lora, source
from pipeline.training import beside, distributed, schedule
from pipeline.training.checkpoints import damaged, last_checkpoint
from pipeline.training.dataset import Rows, load, training_seed
from pipeline.verifiers.verify import CLOSED

log = logging.getLogger(__name__)

MAX_SCORED = 200  # held-out inputs per evaluation whose answers choose the best weights
# names in the trainer's log
LOGGED = ("loss", "loss_ce", "loss_kd", *(f"loss_{term}" for term in TERMS), "kd_gradient_share")
HELD_OUT = {"eval_loss": "held_out_loss", "eval_score": "held_out_score"}  # in log and manifest


def train_arm(job: Job) -> dict[str, Any]:
    """Train one arm to its end and save it; returns the counts of its manifest.

    Each of several processes calls this, and the first one writes.
    """
    import torch
    import transformers

    from pipeline.training import trl_arguments

    start, revision = source.saved_model(job.run_dir / job.stage / INIT)
    tokenizer = Tokenizer(start, revision)
    student_config = load_config(start, revision)
    plan = beside.plan(job, student_config)
    vocab_size = student_config.get_text_config().vocab_size
    rows = load(job.config, job.part, tokenizer, vocab_size)
    checkpoint = last_checkpoint(job.folder / "checkpoints")
    _announce(job, rows, start, checkpoint)

    teacher = beside.load(job, plan, student_config, rows.train) if plan else None
    transformers.set_seed(training_seed(job.config, job.part))
    model = build.load_student(
        job.config, start, revision, torch.float32, trl_arguments.arithmetic(job.config.train)
    )
    if teacher:
        teacher.prepare(model, training_seed(job.config, job.part))
        if checkpoint:
            teacher.load(model, checkpoint)
    trainer = _trainer(job, model, tokenizer, rows, teacher)
    try:
        if checkpoint and _is_out_of_patience(job, checkpoint):  # killed before its model was saved
            state = str(checkpoint / "trainer_state.json")
            trainer.state = transformers.TrainerState.load_from_json(state)
        else:
            _train(job, trainer, checkpoint)
        _load_best(job, trainer)
        trainer.check_weights()
    except Diverged as error:
        raise _diverged(job, trainer.state.log_history, error.step, error.what) from None
    if distributed.rank() > 0:
        return {}
    _save(job, trainer, tokenizer, start, revision)
    _write_history(job, trainer.state.log_history)
    return _counts(job, rows, trainer)


def _train(job: Job, trainer: Any, checkpoint: Path | None) -> None:
    """Train to the end. Raises Stopped after a signal, with a checkpoint of the step in hand."""
    from pipeline.training.callbacks import SaveAndStop

    with signals.deferred() as received:
        trainer.add_callback(SaveAndStop(f"train {job.part}", received))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if distributed.any_process(bool(received)):
        raise Stopped((*received, signal.SIGTERM)[0])


def _announce(job: Job, rows: Rows, start: str, checkpoint: Path | None) -> None:
    """Log what is trained, and what an earlier run left. Only the first process does."""
    if distributed.rank() > 0:
        return
    label = f"train {job.part}"
    retokenised = "" if rows.same_tokenizer else "; another tokenizer, so the text is retokenised"
    log.info(f"{label}: {len(rows.train):,} rows, from {start}{retokenised}")
    if rows.passed_over:
        log.info(
            f"{label}: {rows.passed_over:,} drawn samples were replaced, because they cannot be "
            "learned from (too long, or without an answer)"
        )
    if rows.long:
        log.warning(f"{label}: {rows.long}")
    history = job.folder / "history.jsonl"
    last = json.loads(history.read_text().splitlines()[-1]) if history.exists() else {}
    if "stopped" in last:
        log.info(f"{label}: stopped at step {last['step']} the last time: {last['stopped']}")
    if checkpoint:
        log.info(f"{label}: continues from {checkpoint.name}")


def _trainer(job: Job, model: Any, tokenizer: Tokenizer, rows: Rows, teacher: Any) -> Any:
    from transformers import PrinterCallback

    from pipeline.training import collation, model_checks, trl_arguments
    from pipeline.training.callbacks import Guard, IdleWarning, Reporter
    from pipeline.training.teacher_rows import TeacherRows
    from pipeline.training.trainer import DistillTrainer

    arm = job.config.train.arms[job.part]
    label = f"train {job.part}"
    folder = TopKFolder(frames(job.config)) if arm.method == "kd" else None
    vocabulary = Vocabulary.read(tokenizer.name)
    soft = soft_labels(job)
    learns_answers = arm.alpha == "answer" and job.config.task.metric in CLOSED

    def collator(
        examples: Sequence[Example], packed: bool, read: TeacherRows | None = None
    ) -> collation.Collator:
        stored = None
        if folder:
            stored = collation.Frames(folder, examples, vocabulary, soft, learns_answers)
        return collation.Collator(tokenizer.pad_id, stored, packed, read)

    read = TeacherRows(rows.train, tokenizer.pad_id) if teacher else None
    pack_to = job.config.train.max_length if job.config.train.packing else None
    train_rows = collation.dataset(rows.train, pack_to)
    settings = _scheduled(job, len(train_rows), model)
    held_out = None
    if rows.held_out:
        collate = collator(rows.held_out, packed=False)
        held_out = _held_out(job, settings, tokenizer, rows, collate)
    is_steady = arm.alpha_end is None and arm.temperature_end is None
    guard = Guard(settings.warmup, steady=arm.method == "sft" or is_steady)
    trainer = DistillTrainer(
        arm=arm,
        guard=guard,
        held_out=held_out,
        teacher=teacher,
        model=model,
        args=trl_arguments.arguments(settings, job.folder, training_seed(job.config, job.part)),
        train_dataset=train_rows,
        eval_dataset=held_out.rows if held_out else None,
        data_collator=collator(rows.train, settings.packing, read),
        processing_class=tokenizer.hf,
        callbacks=[Reporter(label), IdleWarning(label, arm), guard, *_patience(settings)],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.packing:
        model_checks.check_packing(trainer.model)
    return trainer


def soft_labels(job: Job) -> SoftLabels | None:
    """Return the soft labels that a kd arm learns; None without.

    If the config leaves it open, they are learned where the filter found a strong bias.
    """
    arm = job.config.train.arms[job.part]
    wanted = arm.soft_labels
    if wanted is None and arm.method == "kd" and arm.selection == "kept":
        note = read_manifest(job.run_dir, "filter")["counts"].get("calibration", {})
        wanted = job.config.train.rows == "filter" and bool(note.get("is_strong"))
        if wanted and distributed.rank() == 0:
            log.info(
                f"train {job.part}: learns soft labels, since the teacher's prompt favours some "
                f"labels (calibration changes {note['changed']:.0%} of them)"
            )
    return SoftLabels.read(job.run_dir / "filter" / "kept") if wanted else None


def _scheduled(job: Job, rows: int, model: Any) -> Train:
    """Return the settings with the batch size, epochs and learning rate of this arm, and log them.

    `rows` are those of the training set, after packing.
    """
    train = job.config.train
    width = lora.plain(model).config.get_text_config().hidden_size
    is_lora = job.config.student.lora is not None
    settings = schedule.filled(train, train.arms[job.part], rows, width, is_lora)
    if distributed.rank() == 0:
        log.info(
            f"train {job.part}: {settings.epochs:g} epochs of {rows:,} rows in batches of "
            f"{settings.batch_size}, learning rate {settings.learning_rate:.2g}"
        )
    return settings


def _held_out(job: Job, settings: Train, tokenizer: Tokenizer, rows: Rows, collate: Any) -> Any:
    from pipeline.training.collation import dataset
    from pipeline.training.validation import Examiner, HeldOut

    config = job.config
    assert settings.batch_size
    prompt = prompts.load(settings.prompt).in_form(settings.arms[job.part].form)
    is_scored = settings.best_by == "score"
    answered = rows.seeds[: settings.show]
    if is_scored:
        answered = [seed for seed in rows.seeds if seed.target is not None][:MAX_SCORED]
    if is_scored and not answered:
        raise PipelineError(
            f"train {job.part}: train.best_by: score needs ground truth, and none of its "
            f"{len(rows.seeds):,} held-out seeds has any; use best_by: loss, raise train.holdout, "
            "or give the seeds targets"
        )
    return HeldOut(
        label=f"train {job.part}",
        rows=dataset(rows.held_out),
        collate=collate,
        batch_size=settings.batch_size,
        examiner=Examiner(
            tokenizer, prompt, config.task, config.evaluate.max_tokens, settings.batch_size
        ),
        answered=answered,
        scored=is_scored,
        samples=job.folder / "samples.jsonl",
    )


def _save(job: Job, trainer: Any, tokenizer: Tokenizer, start: str, revision: str | None) -> None:
    """Save the model in the number format of its start, completely or not at all."""
    dtype = load_config(start, revision).dtype
    partial = job.folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model = lora.merged(trainer.accelerator.unwrap_model(trainer.model)).to(dtype)
    saving.save(model, partial, tokenizer.end_ids)
    tokenizer.save(partial)
    if vocabulary := Vocabulary.read(start):
        vocabulary.write(partial)
    shutil.rmtree(job.folder / "model", ignore_errors=True)
    partial.rename(job.folder / "model")
    sync_folder(job.folder)
    write_json(job.folder / "student.json", {"model": None, "revision": None})


def _load_best(job: Job, trainer: Any) -> None:
    """With early stopping, load the best weights in place of the last ones."""
    best = trainer.state.best_global_step
    if not best:
        return
    folder = job.folder / "checkpoints" / f"checkpoint-{best}"
    if not folder.is_dir():
        raise PipelineError(
            f"train {job.part}: {folder} had the best weights and is gone; put it back, or train "
            "again with --redo"
        )
    if damage := next(damaged(folder), None):
        raise PipelineError(
            f"train {job.part}: {folder} had the best weights, and {damage}; train again with "
            "--redo"
        )
    trainer.load_checkpoint_weights(folder)


def _is_out_of_patience(job: Job, checkpoint: Path) -> bool:
    history = read_json(checkpoint / "trainer_state.json")["log_history"]
    return any(callback.is_used_up(history) for callback in _patience(job.config.train))


def _patience(settings: Train) -> list[Any]:
    """Return the callback of early stopping, none without it."""
    from pipeline.training.callbacks import Patience
    from pipeline.training.trl_arguments import best_metric

    if not settings.patience:
        return []
    return [Patience(best_metric(settings), settings.best_by == "score", settings.patience)]


def _diverged(job: Job, history: list[dict[str, Any]], step: int, what: str) -> PipelineError:
    """Keep the history of an arm that diverged, and return the error that says what to do."""
    if distributed.rank() == 0:
        _write_history(job, [*history, {"step": step, "stopped": what}])
    checkpoint = last_checkpoint(job.folder / "checkpoints")
    begins = "There is no checkpoint yet, so from the beginning"
    if checkpoint:
        begins = f"The last good checkpoint is {checkpoint}, from which"
    return PipelineError(
        f"train {job.part}: step {step}: {what}; lower train.learning_rate or raise train.warmup, "
        f"and start again with --redo. {begins} the same command would continue, into the same "
        "trouble"
    )


def _write_history(job: Job, history: Sequence[dict[str, Any]]) -> None:
    lines = []
    for entry in history:
        finite = {name: value if _is_finite(value) else None for name, value in entry.items()}
        lines.append(json.dumps(finite) + "\n")
    write_atomic(job.folder / "history.jsonl", "".join(lines))


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _counts(job: Job, rows: Rows, trainer: Any) -> dict[str, Any]:
    """Return rows, steps, the last logged losses, and the held-out ones of the saved weights."""
    history = trainer.state.log_history
    best = trainer.state.best_global_step
    last = [entry for entry in history if "loss" in entry][-1]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    if best:
        evaluations = [entry for entry in evaluations if entry["step"] == best]
    counts: dict[str, Any] = {"rows": len(rows.train)}
    if job.config.train.arms[job.part].selection == "random":
        counts["passed_over"] = rows.passed_over
    if rows.too_long:
        counts["too_long"] = rows.too_long
    counts["steps"] = max(entry["step"] for entry in history)
    arguments = trainer.args
    counts |= {
        "batch_size": arguments.per_device_train_batch_size,
        "epochs": arguments.num_train_epochs,
        "learning_rate": arguments.learning_rate,
    }
    counts |= {name: round(float(last[name]), 6) for name in LOGGED if name in last}
    if rows.held_out:
        counts |= {"held_out": len(rows.held_out), "saved_step": best or counts["steps"]}
    if evaluations:
        saved = evaluations[-1]
        counts |= {
            name: round(float(saved[key]), 6) for key, name in HELD_OUT.items() if key in saved
        }
    return counts | {"loading_share": round(trainer.loading_share, 4)}
