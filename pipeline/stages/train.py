"""train: a student by SFT, or by distillation from the stored logprobs; every arm from the same start on the same rows."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import adapters, launch, students
from pipeline.config import Config, Student, Train
from pipeline.data import licences, prompts, seeds
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.paths import INIT, frames, learnable
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.rows import Rows, load, training_seed
from pipeline.storage.files import read_json, sync_folder, write_atomic, write_json
from pipeline.storage.soft_labels import SoftLabels
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import verify

NAME = "train"
SHARED = False
ANSWERED = 200  # held-out seeds, at most, that a student answers at every look where their score chooses its weights
SLOW_LOADING = 0.05  # of the time of training


def parts(config: Config) -> list[str]:
    return [INIT, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    if part == INIT:
        of_data = ["task.seeds", "train.prompt", "train.rows"] if students.reads_seeds(config) else []
        drawn = ["train.seed"] if config.student.model == "random" else []
        return [*(f"student.{name}" for name in Student.model_fields if name != "lora"), *drawn, *of_data]
    arm = config.train.arms[part]
    seeds_too = ["task.seeds"] if arm.text == "truth" else []
    judged = ["task.metric", "task.labels", "task.verifier"] if _judges(config, part) else []
    judged += ["evaluate.max_tokens"] if config.train.best_by == "score" else []
    settings = [f"train.{name}" for name in Train.model_fields if name != "arms" and getattr(arm, name, None) is None]
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
    return {**(seeds.identities(config.task.seeds) if _seeds_count(config, part) else {}), **students.identities(config)}


def _draws(config: Config) -> bool:
    """Whether some arm learns from samples that were not kept, whose tokens a trimmed vocabulary must have too."""
    return any(arm.selection == "random" for arm in config.train.arms.values())


def _judges(config: Config, part: str) -> bool:
    """Whether a part holds answers against the ground truth."""
    return part != INIT and (config.train.arms[part].corrected or config.train.best_by == "score")


def _seeds_count(config: Config, part: str) -> bool:
    """Whether a part depends on the seeds as they are, and not only on what was made of them."""
    return students.reads_seeds(config) if part == INIT else config.train.arms[part].text == "truth"


def run(job: Job) -> dict[str, Any]:
    terms = licences.of(job.config.licences)  # those that were declared after generate count, too
    if job.part == INIT:
        print("\n".join(terms.lines), flush=True)
        return _init(job)
    return _arm(job)


def student_path(run_dir: Path, part: str) -> str:
    """Where the model of a finished part is: a folder, or a hub id for an untouched one."""
    return students.made(run_dir / NAME / part)[0]


def summary(config: Config) -> str:
    lines = []
    for part in config.train.arms:
        counts = read_manifest(Path(config.run_dir), f"{NAME}/{part}")["counts"]
        shares = f" (ce {counts['loss_ce']:.3f}, kd {counts['loss_kd']:.3f})" if "loss_kd" in counts else ""
        shares += f", kd {counts['kd_gradient_share']:.0%} of the gradient" if "kd_gradient_share" in counts else ""
        shares += f", held-out loss {counts['held_out_loss']:.3f}" if "held_out_loss" in counts else ""
        shares += f", held-out score {counts['held_out_score']:.3f}" if "held_out_score" in counts else ""
        shares += f" at step {counts['saved_step']:,}" if counts.get("saved_step", counts["steps"]) != counts["steps"] else ""
        slow = counts.get("loading_share", 0.0)
        shares += f"; {slow:.0%} of the time went into reading rows" if slow > SLOW_LOADING else ""
        lines.append(f"train {part}: {counts['rows']:,} rows, {counts['steps']:,} steps, loss {counts['loss']:.3f}{shares}")
    return "\n".join(lines)


def _init(job: Job) -> dict[str, Any]:
    start = students.build(job.config, job.folder / "model", learnable(job, _draws(job.config)), frames(job))
    revision = students.source(job.config)[1] if start.model else None
    write_json(job.folder / "student.json", {"model": start.model, "revision": revision})
    return start.counts


def _arm(job: Job) -> dict[str, Any]:
    """The arm, by as many processes as the config or the machine says; this one keeps lock and manifest."""
    processes = _processes(job)
    if processes == 1:
        launch.alone()
        return learn(job)
    task = {"config": job.config.model_dump(mode="json"), "part": job.part, "folder": str(job.folder)}
    counts: dict[str, Any] = launch.together("pipeline.worker", task, processes, f"train {job.part}")
    return counts | {"processes": processes}


def learn(job: Job) -> dict[str, Any]:
    """Train one arm to its end and save it. Where several processes do so together, each calls this and the first one writes."""
    import torch
    import transformers

    from pipeline import arguments
    from pipeline.callbacks import Diverged

    start, revision = students.made(job.run_dir / NAME / INIT)
    tokenizer = Tokenizer(start, revision)
    rows = load(job, tokenizer, load_config(start, revision).get_text_config().vocab_size)
    checkpoint = _last_checkpoint(job.folder / "checkpoints")
    _say(job, f"{len(rows.train):,} rows, from {start}" + ("" if rows.same else "; another tokenizer, so the text is tokenised anew"))
    if rows.passed_over:
        _say(job, f"{rows.passed_over:,} samples drawn that cannot be learned from (too long, or without an answer) gave way to others")
    _say(job, *_before(job, checkpoint))

    transformers.set_seed(training_seed(job))
    model = students.load_student(job.config, start, revision, torch.float32, arguments.arithmetic(job.config.train))
    trainer = _trainer(job, model, tokenizer, rows)
    try:
        if checkpoint and _is_out_of_patience(job, checkpoint):  # killed before its model was saved
            trainer.state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _take_best(job, trainer)
        trainer.check_weights()
    except Diverged as stop:
        raise _stopped(job, trainer.state.log_history, stop.step, stop.what) from None
    if launch.rank() > 0:
        return {}
    _save(job, trainer, tokenizer, start, revision)
    return _count(job, rows, trainer)


def _processes(job: Job) -> int:
    """How many are to train. Raises PipelineError where a begun arm had another number: its batches would be others."""
    import torch

    processes = job.config.train.processes or max(torch.cuda.device_count(), 1)
    known = job.folder / "work.json"
    before = read_json(known)["processes"] if known.exists() and _last_checkpoint(job.folder / "checkpoints") else processes
    if before != processes:
        raise PipelineError(
            f"train {job.part}: was begun by {before} processes, and here would be {processes}, whose batches are others; "
            f"go on where there are {before} GPUs, or begin again with --redo"
        )
    write_json(known, {"processes": processes})
    return processes


def _trainer(job: Job, model: Any, tokenizer: Tokenizer, rows: Rows) -> Any:
    from transformers import PrinterCallback

    from pipeline import arguments, batches, probe
    from pipeline.callbacks import Guard, IdleWarning, Reporter
    from pipeline.trainer import DistillTrainer

    settings, arm, label = job.config.train, job.config.train.arms[job.part], f"train {job.part}"
    folder, vocabulary = TopKFolder(frames(job)) if arm.method == "kd" else None, Vocabulary.read(tokenizer.name)
    soft = SoftLabels.read(job.run_dir / "filter" / "kept") if arm.soft_labels else None
    collators = [
        batches.Collator(tokenizer.pad_id, batches.Frames(folder, examples, vocabulary, soft) if folder else None, packed)
        for examples, packed in ((rows.train, settings.packing), (rows.held_out, False))
    ]
    held_out = _held_out(job, tokenizer, rows, collators[1]) if rows.held_out else None
    guard = Guard(settings.warmup, steady=arm.method == "sft" or (arm.alpha_end is None and arm.temperature_end is None))
    trainer = DistillTrainer(
        arm=arm,
        guard=guard,
        held_out=held_out,
        model=model,
        args=arguments.arguments(settings, arm, job.folder, training_seed(job)),
        train_dataset=batches.dataset(rows.train, settings.max_length if settings.packing else None),
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
        probe.check_packing(trainer.model)
    return trainer


def _held_out(job: Job, tokenizer: Tokenizer, rows: Rows, collate: Any) -> Any:
    from pipeline.answers import Examiner
    from pipeline.batches import dataset
    from pipeline.heldout import HeldOut

    config, settings = job.config, job.config.train
    prompt = prompts.load(settings.prompt).in_form(settings.arms[job.part].form)
    scored = [seed for seed in rows.seeds if seed.target is not None][:ANSWERED] if settings.best_by == "score" else []
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
        examiner=Examiner(tokenizer, prompt, config.task, config.evaluate.max_tokens, settings.batch_size),
        asked=scored or rows.seeds[: settings.show],
        scored=bool(scored),
        samples=job.folder / "samples.jsonl",
    )


def _last_checkpoint(folder: Path) -> Path | None:
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
    adapters.merged(trainer.accelerator.unwrap_model(trainer.model)).to(dtype).save_pretrained(partial)
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
        raise PipelineError(f"train {job.part}: {folder} had the best weights and is gone; put it back, or train again with --redo")
    trainer.state.best_model_checkpoint = str(folder)
    trainer._load_best_model()


def _is_out_of_patience(job: Job, checkpoint: Path) -> bool:
    patience = _patience(job.config.train)
    return bool(patience) and patience[0].is_used_up(read_json(checkpoint / "trainer_state.json")["log_history"])


def _patience(settings: Train) -> list[Any]:
    from pipeline.arguments import best_metric
    from pipeline.callbacks import Patience

    return [Patience(best_metric(settings), settings.best_by == "score", settings.patience)] if settings.patience else []


def _stopped(job: Job, history: list[dict[str, Any]], step: int, what: str) -> PipelineError:
    """Keep the history of an arm that cannot go on, and say what can be done."""
    if launch.rank() == 0:
        _write_history(job, [*history, {"step": step, "stopped": what}])
    checkpoint = _last_checkpoint(job.folder / "checkpoints")
    begins = f"the last good checkpoint is {checkpoint}, from which" if checkpoint else "there is no checkpoint yet, so from the beginning"
    return PipelineError(
        f"train {job.part}: step {step}: {what}; lower train.learning_rate or raise train.warmup, and begin "
        f"again with --redo. {begins[0].upper() + begins[1:]} the same command would go on, into the same trouble"
    )


def _before(job: Job, checkpoint: Path | None) -> list[str]:
    """What to say about work that is there already."""
    path = job.folder / "history.jsonl"
    last = json.loads(path.read_text().splitlines()[-1]) if path.exists() else {}
    stopped = [f"stopped at step {last['step']} the last time: {last['stopped']}"] if "stopped" in last else []
    return stopped + ([f"going on from {checkpoint.name}"] if checkpoint else [])


def _say(job: Job, *lines: str) -> None:
    for line in lines if launch.rank() == 0 else ():
        print(f"train {job.part}: {line}", flush=True)


def _write_history(job: Job, history: Sequence[dict[str, Any]]) -> None:
    plain = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.items()}
        for entry in history
    ]
    write_atomic(job.folder / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in plain))


def _count(job: Job, rows: Rows, trainer: Any) -> dict[str, Any]:
    """Rows, steps, the last logged losses, and the held-out ones of the saved weights; the whole history goes to history.jsonl."""
    history, best = trainer.state.log_history, trainer.state.best_global_step
    _write_history(job, history)
    last = [entry for entry in history if "loss" in entry][-1]
    looks = [entry for entry in history if "eval_loss" in entry and (not best or entry["step"] == best)]
    names = {"eval_loss": "held_out_loss", "eval_score": "held_out_score"}
    steps = max(entry["step"] for entry in history)
    return {
        "rows": len(rows.train),
        **({"passed_over": rows.passed_over} if job.config.train.arms[job.part].selection == "random" else {}),
        "steps": steps,
        **{name: round(float(last[name]), 6) for name in ("loss", "loss_ce", "loss_kd", "kd_gradient_share") if name in last},
        **({"held_out": len(rows.held_out), "saved_step": best or steps} if rows.held_out else {}),
        **{name: round(float(look[key]), 6) for look in looks[-1:] for key, name in names.items() if key in look},
        "loading_share": round(trainer.loading_share, 4),
    }
