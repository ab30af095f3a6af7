"""train: a student by SFT, or by distillation from the stored logprobs; every arm from the same start on the same rows."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import adapters, prompts, seeds, students
from pipeline.config import Config, Student, Train
from pipeline.encode import Encoder, Example, check_frames, check_lengths
from pipeline.errors import PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.records import Sample, Seed
from pipeline.scoring import SCORERS
from pipeline.stage import Job, read_manifest
from pipeline.store import read_records, sync_folder, write_atomic, write_json
from pipeline.topk import TopKFolder
from pipeline.vocabulary import Vocabulary

NAME = "train"
SHARED = False
INIT = "init"
_ROWS = {"filter": "filter/kept", "score": "score"}  # where the samples are, and where their frames
_FRAMES = {"filter": "generate", "score": "score"}


def parts(config: Config) -> list[str]:
    return [INIT, *config.train.arms]


def sections(config: Config, part: str) -> list[str]:
    if part == INIT:
        of_data = ["task.seeds", "train.prompt", "train.rows"] if students.reads_seeds(config) else []
        return [*(f"student.{name}" for name in Student.model_fields if name != "lora"), "train.seed", *of_data]
    arm = config.train.arms[part]
    seeds_too = ["task.seeds"] if arm.text == "truth" else []
    judged = ["task.metric", "task.labels"] if arm.corrected else []
    settings = [f"train.{name}" for name in Train.model_fields if name != "arms"]
    return [*settings, f"train.arms.{part}", "student.lora", *seeds_too, *judged]


def reads(config: Config, part: str) -> list[str]:
    rows = ["generate", "filter"] if config.train.rows == "filter" else ["score"]
    if part == INIT:
        return rows if config.student.trim_vocabulary else []
    return [*(rows if config.train.arms[part].text == "teacher" else []), f"{NAME}/{INIT}"]


def files(config: Config, part: str) -> list[Path]:
    counted = _seeds_count(config, part)
    source = [Path(config.task.seeds.path)] if config.task.seeds.path and counted else []
    return [*([Path(config.train.prompt)] if counted or part != INIT else []), *source]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {**(seeds.identities(config.task.seeds) if _seeds_count(config, part) else {}), **students.identities(config)}


def _seeds_count(config: Config, part: str) -> bool:
    """Whether a part depends on the seeds as they are, and not only on what was made of them."""
    return students.reads_seeds(config) if part == INIT else config.train.arms[part].text == "truth"


def run(job: Job) -> dict[str, Any]:
    if job.part == INIT:
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
        lines.append(f"train {part}: {counts['rows']:,} rows, {counts['steps']:,} steps, loss {counts['loss']:.3f}{shares}")
    return "\n".join(lines)


def _init(job: Job) -> dict[str, Any]:
    rows = job.config.train.rows
    start = students.build(job.config, job.folder / "model", job.run_dir / _ROWS[rows], job.run_dir / _FRAMES[rows])
    revision = students.source(job.config)[1] if start.model else None
    write_json(job.folder / "student.json", {"model": start.model, "revision": revision})
    return start.counts


def _arm(job: Job) -> dict[str, Any]:
    import torch
    import transformers

    start, revision = students.made(job.run_dir / NAME / INIT)
    tokenizer = Tokenizer(start, revision)
    examples, same = _examples(job, tokenizer, load_config(start, revision).get_text_config().vocab_size)
    print(
        f"train {job.part}: {len(examples):,} rows, from {start}" + ("" if same else "; another tokenizer, so the text is tokenised anew"),
        flush=True,
    )

    transformers.set_seed(_seed(job))
    model = students.load_student(job.config, start, revision, torch.float32)
    trainer = _trainer(job, model, tokenizer, examples)
    checkpoint = _last_checkpoint(job.folder / "checkpoints")
    if checkpoint:
        print(f"train {job.part}: going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save(job, trainer, tokenizer, start, revision)
    return _count(job, len(examples), trainer.state.log_history)


def _examples(job: Job, tokenizer: Tokenizer, vocab_size: int) -> tuple[list[Example], bool]:
    """The rows, and whether the teacher's ids are the student's."""
    config, arm = job.config, job.config.train.arms[job.part]
    same = arm.text == "truth" or students.check_vocabulary(config, job.part, tokenizer)
    vocabulary = Vocabulary.read(tokenizer.name)
    encoder = Encoder(tokenizer, prompts.load(config.train.prompt), same, arm.form, arm.rationale_weight, vocabulary)
    taught: list[Example] = []
    examples: list[Example] = []
    for source in islice(_sources(job), arm.limit):
        if isinstance(source, Seed):
            examples += encoder.truth(source)
        else:
            taught += (rows := encoder.sample(source))
            examples += rows
    if not examples:
        raise PipelineError(
            f"train {job.part}: there is no row to learn from; see what filter dropped, or whether the seeds have ground truth"
        )
    check_lengths(examples, config.train.max_length)
    if arm.method == "kd":
        check_frames(taught, _frames(job), tokenizer, vocab_size, vocabulary)
    return examples, same


def _sources(job: Job) -> Iterator[Sample | Seed]:
    """What is learned from: samples, or seeds whose ground truth is."""
    config, arm = job.config, job.config.train.arms[job.part]
    if arm.text == "truth":
        yield from (seed for seed in seeds.load(config.task.seeds) if seed.target is not None)
        return
    score = SCORERS[config.task.metric]
    for sample in read_records(job.run_dir / _ROWS[config.train.rows], Sample):
        target = sample.seed.target
        wrong = arm.corrected and target is not None and score(sample.answer, target, config.task.labels).value < 1.0
        yield sample.seed if wrong else sample


def _frames(job: Job) -> Path:
    return job.run_dir / _FRAMES[job.config.train.rows]


def _trainer(job: Job, model: Any, tokenizer: Tokenizer, examples: list[Example]) -> Any:
    import torch
    from transformers import PrinterCallback
    from transformers.integrations import get_available_reporting_integrations
    from trl import SFTConfig

    from pipeline import batches
    from pipeline.callbacks import IdleWarning, Reporter
    from pipeline.trainer import DistillTrainer

    settings, arm = job.config.train, job.config.train.arms[job.part]
    bf16 = settings.dtype == "bfloat16" or (settings.dtype == "auto" and torch.cuda.is_available())
    pad = tokenizer.hf.pad_token_id if tokenizer.hf.pad_token_id is not None else tokenizer.hf.eos_token_id
    unknown = sorted(set(settings.report_to) - set(get_available_reporting_integrations()))
    if unknown:
        raise PipelineError(f"train.report_to: {unknown[0]} is not installed or not known to transformers; install it, or take it out")
    if settings.packing and getattr(model, "_is_stateful", False):
        raise PipelineError(f"train.packing: a {type(model).__name__} carries its state from sample to sample; set packing: false")
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.folder / "tensorboard")
    args = SFTConfig(
        output_dir=str(job.folder / "checkpoints"),
        num_train_epochs=arm.epochs or settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=arm.learning_rate or settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_length=None,
        bf16=bf16,
        gradient_checkpointing=settings.gradient_checkpointing,
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        seed=_seed(job),
        data_seed=_seed(job),
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.log_steps,
        logging_first_step=True,
        report_to=settings.report_to or "none",
        use_cpu=not torch.cuda.is_available(),
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
    )
    frames = batches.Frames(TopKFolder(_frames(job)), examples, Vocabulary.read(tokenizer.name)) if arm.method == "kd" else None
    trainer = DistillTrainer(
        arm=arm,
        model=model,
        args=args,
        train_dataset=batches.dataset(examples, settings.max_length if settings.packing else None),
        data_collator=batches.Collator(pad, frames, settings.packing),
        processing_class=tokenizer.hf,
        callbacks=[Reporter(f"train {job.part}"), IdleWarning(f"train {job.part}")],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _seed(job: Job) -> int:
    arm = job.config.train.arms[job.part]
    return job.config.train.seed if arm.seed is None else arm.seed


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


def _count(job: Job, rows: int, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows, steps and the last logged losses; the whole history goes to history.jsonl."""
    write_atomic(job.folder / "history.jsonl", "".join(json.dumps(entry) + "\n" for entry in history))
    last = [entry for entry in history if "loss" in entry][-1]
    steps = max(entry["step"] for entry in history)
    return {
        "rows": rows,
        "steps": steps,
        **{name: round(float(last[name]), 6) for name in ("loss", "loss_ce", "loss_kd", "kd_gradient_share") if name in last},
    }
