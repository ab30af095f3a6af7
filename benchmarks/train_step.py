"""Time and memory of one step: our SFT and KD against TRL's own fused SFT loss, and against TRL's GKD with a live teacher.

    .venv/bin/python -m benchmarks.train_step RUN

RUN is a run of the packaged teacher with generate, filter and train/init finished: all sides take its rows and its untouched student.
A step is collation, forward and backward; rounds go A B C D A B C D …, and a ratio is taken round by round. Peak memory is that of a
process of its own for each side, all weights that it needs included, over STEPS steps. GKD sees the same text off policy (lmbda 0), with
forward KL (beta 0); its teacher reads the student's short prompt, which is less work than what made the stored logprobs.
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
from benchmarks.table import run_python
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

ROUNDS, BATCH, STEPS = 12, 16, 4
TRL_SFT, TRL_GKD = "TRL sft", "TRL gkd"
SIDES = (TRL_SFT, "sft", "kd", TRL_GKD)
Step = Callable[[list[dict[str, Any]]], tuple[float, float]]  # rows -> seconds of collation, of all


class Bench:
    """The rows and models of one run, and a step of each side on them."""

    def __init__(self, run_dir: Path):
        path = student_path(run_dir, "init")
        self.config = Config.model_validate(read_json(run_dir / "filter" / "begun.json")["config"])
        self.tokenizer, self.student = Tokenizer(path), load_weights(path, None, torch.float32)
        samples = list(Samples(run_dir / "filter" / "kept"))[: ROUNDS * BATCH]
        encoder = Encoder(
            self.tokenizer, prompts.load(self.config.train.prompt), same_tokenizer=True
        )
        examples = [row for sample in samples for row in encoder.encode_sample(sample)]
        self.frames = Frames(TopKFolder(run_dir / "generate"), examples)
        self.dataset = dataset(examples)
        self.batches = [
            list(self.dataset.select(range(at, at + BATCH)))
            for at in range(0, len(examples) - BATCH + 1, BATCH)
        ]

    def side(self, name: str) -> Step:
        collate = Collator(self.tokenizer.pad_id, self.frames if name == "kd" else None)
        trainer = self._trainer(name)

        def step(rows: list[dict[str, Any]]) -> tuple[float, float]:
            began = time.perf_counter()
            batch = collate(rows)
            collated = time.perf_counter()
            if name.startswith("TRL"):
                batch.pop("weights")
            trainer.model.train()
            trainer.model.zero_grad()
            trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).backward()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return collated - began, time.perf_counter() - began

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
    """Sorted ratios of kd to TRL's SFT and of GKD to kd, the median share of a kd step that is collation, and seconds a step."""
    bench = Bench(run_dir)
    steps = {name: bench.side(name) for name in SIDES}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for rows in bench.batches:
        for name, step in steps.items():
            taken[name].append(step(rows))
    seconds = {
        name: [whole for _, whole in found[1:]] for name, found in taken.items()
    }  # the first is a warm-up

    def ratio(one: str, other: str) -> list[float]:
        return sorted(a / b for a, b in zip(seconds[one], seconds[other], strict=True))

    labels = [label for rows in bench.batches for row in rows for label in row["labels"]]
    return {
        "kd / TRL sft": ratio("kd", TRL_SFT),
        "sft / TRL sft": ratio("sft", TRL_SFT),
        "kd / sft": ratio("kd", "sft"),
        "TRL gkd / kd": ratio(TRL_GKD, "kd"),
        "loading": sorted(collation / whole for collation, whole in taken["kd"][1:]),
        "seconds": {name: sorted(found)[len(found) // 2] for name, found in seconds.items()},
        "tokens": len(labels),
        "scored": sum(label != IGNORED for label in labels),
        "threads": torch.get_num_threads(),
    }


def peak(run_dir: Path, name: str) -> float:
    """GiB: the most that this process has held after some steps of one side."""
    bench = Bench(run_dir)
    step = bench.side(name)
    for rows in bench.batches[:STEPS]:
        step(rows)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return (
        status("VmHWM") / 2**10
    )  # of this process alone; ru_maxrss holds what its parent had when it was forked


def peaks(run_dir: Path) -> dict[str, float]:
    """GiB of each side, each in a process of its own."""
    return {
        name: float(run_python("-m", "benchmarks.train_step", str(run_dir), name).splitlines()[-1])
        for name in SIDES
    }


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(peak(Path(sys.argv[1]), sys.argv[2]))
    else:
        print(json.dumps({**times(Path(sys.argv[1])), "GiB": peaks(Path(sys.argv[1]))}, indent=1))
