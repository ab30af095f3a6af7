"""Measures time and memory of a training step: our SFT and KD against TRL's SFT and GKD.

    .venv/bin/python -m benchmarks.train_step RUN

RUN is a run of the packaged teacher with generate, filter and train/init finished. All sides take
its rows and its base student. TRL's SFT has its fused loss; its GKD has a live teacher. A step is
collation, forward and backward. Rounds go A B C D A B C D …, and each round gives a ratio.

The peak memory is that of a separate process for each side, over STEPS steps, with all weights that
it needs. GKD sees the same text off policy (lmbda 0), with forward KL (beta 0). Its teacher reads
the student's short prompt, which is less work than generating the stored logprobs.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.loss import status
from benchmarks.table import last_line, median
from pipeline.config import Arm, Config
from pipeline.data import prompts
from pipeline.data.encoding import IGNORED, Encoder
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.stages.train import student_path
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.training.collation import Collator, Frames, dataset

ROUNDS = 12
BATCH = 16
STEPS = 4
TRL_SFT = "TRL sft"
TRL_GKD = "TRL gkd"
SIDES = (TRL_SFT, "sft", "kd", TRL_GKD)
Step = Callable[[list[dict[str, Any]]], tuple[float, float]]  # rows -> seconds to collate, in all


class Sides:
    """The rows and the student of one run, and the step of each side on them."""

    def __init__(self, run_dir: Path):
        path = student_path(run_dir, "init")
        self.config = Config.model_validate(read_json(run_dir / "filter" / "begun.json")["config"])
        self.tokenizer = Tokenizer(path)
        self.student = load_weights(path, None, torch.float32)
        samples = list(Samples(run_dir / "filter" / "kept"))[: ROUNDS * BATCH]
        encoder = Encoder(
            self.tokenizer, prompts.load(self.config.train.prompt), same_tokenizer=True
        )
        examples = [row for sample in samples for row in encoder.encode_sample(sample)]
        self.frames = Frames(TopKFolder(run_dir / "generate"), examples)
        self.dataset = dataset(examples)
        self.batches = [
            list(self.dataset.select(range(start, start + BATCH)))
            for start in range(0, len(examples) - BATCH + 1, BATCH)
        ]

    def step_of(self, name: str) -> Step:
        """Return the step of one side."""
        collate = Collator(self.tokenizer.pad_id, self.frames if name == "kd" else None)
        trainer = self._trainer(name)

        def step(rows: list[dict[str, Any]]) -> tuple[float, float]:
            started = time.perf_counter()
            batch = collate(rows)
            collated = time.perf_counter()
            if name.startswith("TRL"):
                batch.pop("weights")
            trainer.model.train()
            trainer.model.zero_grad()
            trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).backward()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return collated - started, time.perf_counter() - started

        return step

    def _trainer(self, name: str) -> Any:
        from trl import SFTConfig, SFTTrainer

        from pipeline.training.trainer import DistillTrainer

        settings: dict[str, Any] = {
            "output_dir": tempfile.mkdtemp(),
            "report_to": "none",
            "use_cpu": not torch.cuda.is_available(),
            "max_length": None,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "bf16": torch.cuda.is_available(),
            "logging_steps": 1000,  # a logged step also measures the shares of the gradient
        }
        rows = self.dataset.select_columns(["input_ids", "labels"])
        common: dict[str, Any] = {
            "model": self.student,
            "train_dataset": rows,
            "processing_class": self.tokenizer.hf,
        }
        if name == TRL_GKD:
            from trl.experimental.gkd import GKDConfig, GKDTrainer

            teacher = load_weights(
                resolve.model_path(self.config.teacher.model),
                self.config.teacher.revision,
                torch.float32,
            )
            return GKDTrainer(
                **common,
                teacher_model=teacher,
                args=GKDConfig(**settings, lmbda=0.0, beta=0.0),
                data_collator=Collator(0, None),
            )
        if name == TRL_SFT:
            return SFTTrainer(**common, args=SFTConfig(**settings))
        trainer = DistillTrainer(
            **common, args=SFTConfig(**settings), arm=Arm(method="kd" if name == "kd" else "sft")
        )
        trainer.state.global_step = 1
        return trainer


def times(run_dir: Path) -> dict[str, Any]:
    """Return sorted ratios of times, the shares of a kd step that are collation, and seconds."""
    sides = Sides(run_dir)
    steps = {name: sides.step_of(name) for name in SIDES}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for rows in sides.batches:
        for name, step in steps.items():
            taken[name].append(step(rows))
    seconds = {}
    for name, rounds in taken.items():
        seconds[name] = [total for _, total in rounds[1:]]  # the first is a warm-up

    def ratio(name: str, other: str) -> list[float]:
        return sorted(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    labels: list[int] = []
    for rows in sides.batches:
        for row in rows:
            labels += row["labels"]
    return {
        "kd / TRL sft": ratio("kd", TRL_SFT),
        "sft / TRL sft": ratio("sft", TRL_SFT),
        "kd / sft": ratio("kd", "sft"),
        "TRL gkd / kd": ratio(TRL_GKD, "kd"),
        "loading": sorted(collation / total for collation, total in taken["kd"][1:]),
        "seconds": {name: median(sorted(values)) for name, values in seconds.items()},
        "tokens": len(labels),
        "scored": sum(label != IGNORED for label in labels),
        "threads": torch.get_num_threads(),
    }


def peak(run_dir: Path, name: str) -> float:
    """Return the peak memory of this process over STEPS steps of one side, GiB."""
    sides = Sides(run_dir)
    step = sides.step_of(name)
    for rows in sides.batches[:STEPS]:
        step(rows)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    # ru_maxrss would include what the parent held when it forked this process.
    return status("VmHWM") / 2**10


def peaks(run_dir: Path) -> dict[str, float]:
    """Return the peak memory of each side in a separate process, GiB."""
    return {
        name: float(last_line("-m", "benchmarks.train_step", str(run_dir), name)) for name in SIDES
    }


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(peak(Path(sys.argv[1]), sys.argv[2]))
    else:
        print(json.dumps({**times(Path(sys.argv[1])), "GiB": peaks(Path(sys.argv[1]))}, indent=1))
