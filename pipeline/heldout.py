"""What a student is looked at with while it learns: rows held out of its training, and seeds that it answers itself."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from pipeline.answers import Examiner, Shown
from pipeline.batches import Collator
from pipeline.records import Seed
from pipeline.storage.files import write_atomic

PRINTED = 3  # answers a look, at most
PRINTED_CHARACTERS = 100


@dataclass(frozen=True)
class HeldOut:
    """`asked` are the seeds that the student answers at every look; the answers are added to `samples`. `scored`: whether the mean of
    their scores is what chooses the best weights."""

    label: str
    rows: Dataset
    collate: Collator
    batch_size: int
    examiner: Examiner
    asked: Sequence[Seed]
    scored: bool
    samples: Path

    def batches(self, process: int, processes: int) -> Iterator[dict[str, Any]]:
        """Every row once, over all processes."""
        for first in range(process * self.batch_size, len(self.rows), processes * self.batch_size):
            yield self.collate([self.rows[place] for place in range(first, min(first + self.batch_size, len(self.rows)))])

    def record(self, step: int, answers: Sequence[Shown]) -> None:
        """Add the answers of one look to samples.jsonl, in place of what an interrupted run left of later steps, and print a few."""
        before = [line for line in self._lines() if json.loads(line)["step"] < step]
        now = [json.dumps({"step": step, **answer.model_dump()}, ensure_ascii=False) for answer in answers]
        write_atomic(self.samples, "".join(line + "\n" for line in [*before, *now]))
        for answer in answers[:PRINTED]:
            text = " ".join(answer.text.split())[:PRINTED_CHARACTERS]
            truth = "" if answer.target is None else f" (truth: {answer.target}, score {answer.score:g})"
            print(f"{self.label}: step {step}, {answer.id}: {text}{truth}", flush=True)

    def _lines(self) -> list[str]:
        return self.samples.read_text(encoding="utf-8").splitlines() if self.samples.exists() else []
