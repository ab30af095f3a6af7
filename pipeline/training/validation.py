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
from pipeline.verifiers.verify import CheckSettings

log = logging.getLogger(__name__)

PRINTED = 3  # largest number of answers that are logged per evaluation
PRINTED_CHARACTERS = 100  # of each of them


class StudentAnswer(Identified):
    """One answer of a student in training. Its id is that of the seed.

    `score` is None if the seed has no ground truth.
    """

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
        """Return the scored answers in the order of the seeds. `model` is a causal language model
        of transformers in evaluation mode."""
        answers: list[StudentAnswer] = []
        for first in range(0, len(seeds), self.batch_size):
            answers += self._batch(model, seeds[first : first + self.batch_size])
        return answers

    def _batch(self, model: Any, seeds: Sequence[Seed]) -> list[StudentAnswer]:
        control_tokens = self.tokenizer.control_tokens
        rendered = [self.prompt.render(seed, control_tokens) for seed in seeds]
        prompts = [self.tokenizer.encode(prompt) for prompt in rendered]
        longest = max(len(ids) for ids in prompts)
        padding = [longest - len(ids) for ids in prompts]
        pad = self.tokenizer.pad_id
        padded = [[pad] * count + ids for count, ids in zip(padding, prompts, strict=True)]
        mask = [[0] * count + [1] * (longest - count) for count in padding]
        strings: dict[str, Any] = {}
        if self._stops_by_text:
            strings["stop_strings"] = list(self.prompt.front.stop)
            strings["tokenizer"] = self.tokenizer.hf
        generated = model.generate(
            torch.tensor(padded, device=model.device),  # (B, T)
            attention_mask=torch.tensor(mask, device=model.device),  # (B, T)
            generation_config=self._greedy,
            **strings,
        )
        replies_ids = generated[:, longest:].tolist()
        return [self._scored(seed, ids) for seed, ids in zip(seeds, replies_ids, strict=True)]

    def _scored(self, seed: Seed, generated: list[int]) -> StudentAnswer:
        ends = [place for place, token in enumerate(generated) if token in self._end_ids]
        ids = generated[: ends[0] + 1] if ends else generated
        text = self._before_stop(self.tokenizer.decode(ids))
        usage = Usage(prompt_tokens=0, completion_tokens=len(ids))
        completion = Completion(seed.id, text, ids, "stop", usage)
        answer = replies.read(self.prompt, completion, self.tokenizer).answer
        score = None
        if seed.target is not None:
            score = verify.score(self._check, answer, str(seed.target)).value
        return StudentAnswer(id=seed.id, text=text, target=seed.target, score=score)

    def _before_stop(self, text: str) -> str:
        """Cut the text after its first stop string.

        Text may follow it, because generation continues until all answers of the batch have ended.
        """
        if not self._stops_by_text:
            return text
        ends = [text.find(stop) + len(stop) for stop in self.prompt.front.stop if stop in text]
        return text[: min(ends)] if ends else text

    @cached_property
    def _check(self) -> CheckSettings:
        return verify.load_check(self.task)

    @cached_property
    def _stops_by_text(self) -> bool:
        """True if stop strings are searched for in the text, not in the token ids.

        If all stop strings are single ASCII characters, ids are enough, because such a character is
        never split over tokens.
        """
        return any(len(text) > 1 or not text.isascii() for text in self.prompt.front.stop)

    @cached_property
    def _end_ids(self) -> set[int]:
        ends = set(self.tokenizer.end_ids)
        if not self._stops_by_text:
            for text in self.prompt.front.stop:
                ends.update(self.tokenizer.tokens_containing(text))
        return ends

    @cached_property
    def _greedy(self) -> GenerationConfig:
        # a field that is not set here would come from the model's own generation_config
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
            eos_token_id=sorted(self._end_ids),
        )


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows of an arm, and the inputs that its student answers.

    answered: seeds that the student answers at every evaluation. The answers are added to the file
        `samples`.
    scored: True if the mean score of the answers chooses the best weights.
    """

    label: str
    rows: Dataset
    collate: Collator
    batch_size: int
    examiner: Examiner
    answered: Sequence[Seed]
    scored: bool
    samples: Path

    def batches(self, process: int, processes: int) -> Iterator[dict[str, Any]]:
        """Yield the batches of one of several processes. Each row goes to exactly one process."""
        for first in range(process * self.batch_size, len(self.rows), processes * self.batch_size):
            last = min(first + self.batch_size, len(self.rows))
            yield self.collate([self.rows[place] for place in range(first, last)])

    def record(self, step: int, answers: Sequence[StudentAnswer]) -> None:
        """Add the answers of one evaluation to samples.jsonl and log a few.

        Stored answers of this step or later ones come from an interrupted run and are dropped.
        """
        stored = self.samples.read_text(encoding="utf-8") if self.samples.exists() else ""
        lines = [line for line in stored.splitlines() if json.loads(line)["step"] < step]
        for answer in answers:
            lines.append(json.dumps({"step": step, **answer.model_dump()}, ensure_ascii=False))
        write_atomic(self.samples, "".join(line + "\n" for line in lines))
        for answer in answers[:PRINTED]:
            text = " ".join(answer.text.split())[:PRINTED_CHARACTERS]
            truth = ""
            if answer.target is not None:
                truth = f" (truth: {answer.target}, score {answer.score:g})"
            log.info(f"{self.label}: step {step}, {answer.id}: {text}{truth}")
