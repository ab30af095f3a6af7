"""Time of one optimiser step: our SFT and KD against TRL's own fused loss, on the same rows and weights, in one process.

    .venv/bin/python benchmarks/train_step.py runs/quickstart

Takes a finished run of the quickstart, whose rows and untouched student it uses. Rounds go A B C A B C …; a ratio is taken round by round.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pipeline import prompts
from pipeline.config import Arm
from pipeline.encode import Encoder
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Sample
from pipeline.stages.train import student_path
from pipeline.store import read_json, read_records
from pipeline.topk import TopKFolder

ROUNDS, BATCH = 12, 16


def main(run_dir: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    from pipeline.batches import Collator, Frames, dataset
    from pipeline.trainer import DistillTrainer

    path = student_path(run_dir, "init")
    tokenizer, model = Tokenizer(path), load_weights(path, None, torch.float32)
    config = read_json(run_dir / "train" / "kd" / "begun.json")["config"]
    samples = list(read_records(run_dir / "filter" / "kept", Sample))[: ROUNDS * BATCH]
    encoder = Encoder(tokenizer, prompts.load(config["train"]["prompt"]), ids_fit=True)
    examples = [row for sample in samples for row in encoder.sample(sample)]
    frames = Frames(TopKFolder(run_dir / "generate"), examples)
    rows = list(dataset(examples))
    pad = tokenizer.hf.pad_token_id
    args = SFTConfig(
        output_dir="/tmp/train_step",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=torch.cuda.is_available(),
    )
    common: dict[str, Any] = {
        "model": model,
        "args": args,
        "train_dataset": dataset(examples).select_columns(["input_ids", "labels"]),
        "processing_class": tokenizer.hf,
    }
    sides = {
        "TRL sft": (SFTTrainer(**common), Collator(pad, None)),
        "sft": (DistillTrainer(arm=Arm(method="sft"), **common), Collator(pad, None)),
        "kd": (DistillTrainer(arm=Arm(), **common), Collator(pad, frames)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for first in range(0, len(rows), BATCH):
        for name, (trainer, collate) in sides.items():
            seconds[name].append(step(trainer, collate, rows[first : first + BATCH]))
    tokens = sum(len(row["input_ids"]) for row in rows)
    scored = sum(label != -100 for row in rows for label in row["labels"])
    rounds = len(seconds["kd"]) - 1
    print(f"{torch.get_num_threads()} threads, {tokens:,} tokens of which {scored:,} are scored, {rounds} rounds after one warm-up")
    for name, times in seconds.items():
        ratios = sorted(mine / theirs for mine, theirs in zip(times[1:], seconds["TRL sft"][1:], strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{name:>8}: {statistics.median(times[1:]):.3f} s a step, {statistics.median(ratios):.2f} x TRL sft ({spread})")


def step(trainer: Any, collate: Any, rows: list[dict[str, Any]]) -> float:
    """Collation, forward and backward of one batch."""
    began = time.perf_counter()
    inputs = trainer._prepare_inputs(collate([dict(row) for row in rows]))
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, inputs).backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
