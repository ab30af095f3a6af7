"""Validation during training: the loss of held-out rows, and the student's own greedy answers."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import GenerationConfig

from pipeline.config import Task
from pipeline.data import replies
from pipeline.data.prompts import Prompt
from pipeline.models.base import Completion
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Identified, Seed, Usage
from pipeline.storage.files import write_atomic
from pipeline.training.collation import Collator
from pipeline.verifiers import verify
from pipeline.verifiers.verify import Check

log = logging.getLogger(__name__)

PRINTED = 3  # answers a look, at most
PRINTED_CHARACTERS = 100


class StudentAnswer(Identified):
    """One answer of a student in training. The id is its seed's; `score` is None where no ground truth is known."""

    text: str
    target: str | None
    score: float | None


@dataclass(frozen=True)
class Examiner:
    """Asks a student in training. `prompt` is in the form that the student is trained for."""

    tokenizer: Tokenizer
    prompt: Prompt
    task: Task
    max_tokens: int
    batch_size: int

    def ask(self, model: Any, seeds: Sequence[Seed]) -> list[StudentAnswer]:
        """The answers, in the order of the seeds. `model` is a causal language model of transformers in evaluation mode."""
        firsts = range(0, len(seeds), self.batch_size)
        return [
            shown
            for first in firsts
            for shown in self._batch(model, seeds[first : first + self.batch_size])
        ]

    def _batch(self, model: Any, seeds: Sequence[Seed]) -> list[StudentAnswer]:
        asked = [
            self.tokenizer.encode(self.prompt.render(seed, self.tokenizer.control_tokens))
            for seed in seeds
        ]
        longest = max(len(ids) for ids in asked)
        padded = torch.tensor(
            [[self.tokenizer.pad_id] * (longest - len(ids)) + ids for ids in asked],
            device=model.device,
        )  # (B, T)
        mask = torch.tensor(
            [[0] * (longest - len(ids)) + [1] * len(ids) for ids in asked], device=model.device
        )  # (B, T)
        strings = (
            {"stop_strings": list(self.prompt.front.stop), "tokenizer": self.tokenizer.hf}
            if self._by_string
            else {}
        )
        made = model.generate(
            padded, attention_mask=mask, generation_config=self._greedy, **strings
        )
        return [
            self._shown(seed, ids)
            for seed, ids in zip(seeds, made[:, longest:].tolist(), strict=True)
        ]

    def _shown(self, seed: Seed, made: list[int]) -> StudentAnswer:
        end = next(
            (place for place, token in enumerate(made) if token in self._ends), len(made) - 1
        )
        ids = made[: end + 1]
        text = self._cut(self.tokenizer.decode(ids))
        completion = Completion(
            seed.id, text, ids, "stop", Usage(prompt_tokens=0, completion_tokens=len(ids))
        )
        answer = replies.read(self.prompt, completion, self.tokenizer).answer
        known = seed.target is not None
        score = verify.score(self._check, answer, str(seed.target)).value if known else None
        return StudentAnswer(id=seed.id, text=text, target=seed.target, score=score)

    def _cut(self, text: str) -> str:
        """The text up to its first stop string; a batch goes on until its slowest answer is done."""
        found = [text.find(stop) + len(stop) for stop in self.prompt.front.stop if stop in text]
        return text[: min(found)] if self._by_string and found else text

    @cached_property
    def _check(self) -> Check:
        return verify.load_check(self.task)

    @cached_property
    def _by_string(self) -> bool:
        """One ASCII character always lies within one token, so it is matched by ids; longer stops are searched for in the text."""
        return any(len(text) > 1 or not text.isascii() for text in self.prompt.front.stop)

    @cached_property
    def _ends(self) -> set[int]:
        stops = () if self._by_string else self.prompt.front.stop
        return {
            self.tokenizer.hf.eos_token_id,
            *(token for text in stops for token in self.tokenizer.tokens_containing(text)),
        }

    @cached_property
    def _greedy(self) -> GenerationConfig:
        # every field that a model's own generation_config may set is named, for that one would otherwise fill it in
        return GenerationConfig(
            max_new_tokens=self.max_tokens,
            do_sample=False,
            num_beams=1,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
            repetition_penalty=1.0,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_id,
            eos_token_id=sorted(self._ends),
        )


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
            yield self.collate(
                [
                    self.rows[place]
                    for place in range(first, min(first + self.batch_size, len(self.rows)))
                ]
            )

    def record(self, step: int, answers: Sequence[StudentAnswer]) -> None:
        """Add the answers of one look to samples.jsonl, in place of what an interrupted run left of later steps, and print a few."""
        before = [line for line in self._lines() if json.loads(line)["step"] < step]
        now = [
            json.dumps({"step": step, **answer.model_dump()}, ensure_ascii=False)
            for answer in answers
        ]
        write_atomic(self.samples, "".join(line + "\n" for line in [*before, *now]))
        for answer in answers[:PRINTED]:
            text = " ".join(answer.text.split())[:PRINTED_CHARACTERS]
            truth = (
                ""
                if answer.target is None
                else f" (truth: {answer.target}, score {answer.score:g})"
            )
            log.info(f"{self.label}: step {step}, {answer.id}: {text}{truth}")

    def _lines(self) -> list[str]:
        return (
            self.samples.read_text(encoding="utf-8").splitlines() if self.samples.exists() else []
        )
