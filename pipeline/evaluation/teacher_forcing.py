"""Teacher forcing: have a student read the teacher's answers and compare their distributions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import prompts, replies, seeds
from pipeline.data.encoding import Encoder, Example
from pipeline.data.prompts import Prompt
from pipeline.data.vocabulary import Vocabulary
from pipeline.execution.contract import Job
from pipeline.models.base import Completion
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Frame, Sample, Scored, Seed
from pipeline.storage.topk import TopK, TopKFolder, with_tail
from pipeline.students import checks, source
from pipeline.training import dataset
from pipeline.verifiers import scorers

BATCH_SIZE = 16  # answers of the teacher in one forward pass

Sums = dict[str, tuple[int, float, int]]  # by example: tokens, nats, equal top-1 tokens


class _Frames(TopKFolder):
    """Frames of the teacher's answers, with the exact tail masses instead of the quantised ones."""

    def __init__(self, folder: Path, answers: Sequence[Scored]):
        super().__init__(folder)
        self._tails = {answer.frame: answer.tails for answer in answers}

    def frame(self, place: Frame, token_ids: Sequence[int]) -> TopK:
        return with_tail(super().frame(place, token_ids), np.array(self._tails[place]))


@dataclass(frozen=True)
class Reader:
    """A student that reads the teacher's answers."""

    job: Job
    model: Any
    encoder: Encoder
    teacher: Tokenizer
    seeds: Mapping[str, Seed]
    frames: TopKFolder

    @classmethod
    def of(cls, job: Job, trained: str, teachers: Path, answers: Sequence[Scored]) -> "Reader":
        """Load a student, to read the teacher's `answers`.

        `trained` is the student's folder in the run, and `teachers` is the folder of the answers.

        Raises PipelineError if student and teacher have different tokenizers.
        """
        import torch

        from pipeline.training.model_checks import check_logits, logits_of

        config = job.config
        path, revision = source.saved_model(job.run_dir / trained)
        student = Tokenizer(path, revision)
        checks.check_fidelity(config, student)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = "auto" if device == "cuda" else torch.float32
        model = load_weights(path, revision, dtype).to(device).eval()
        check_logits(model, logits_of(model))
        arm = config.train.arms.get(job.part)
        encoder = Encoder(
            student,
            prompts.load(config.train.prompt),
            True,
            arm.form if arm else "whole",
            vocabulary=Vocabulary.read(path),
        )
        teacher = Tokenizer(tokenizer_path(config.teacher), config.teacher.revision)
        held_out = {seed.id: seed for seed in seeds.load(config.task.eval_seeds)}
        return cls(job, model, encoder, teacher, held_out, _Frames(job.run_dir / teachers, answers))

    def measure(self, answers: Sequence[Scored]) -> Iterator[Sums]:
        """Yield the sums of one batch of answers at a time; a batch has answers of similar length.

        Answers that the student cannot read come first, with 0 tokens.
        """
        rows = {answer.seed_id: self._examples(answer) for answer in answers}
        yield {name: (0, 0.0, 0) for name, examples in rows.items() if not examples}

        def longest(name: str) -> int:
            return max(len(example.input_ids) for example in rows[name])

        readable = sorted((name for name, examples in rows.items() if examples), key=longest)
        for first in range(0, len(readable), BATCH_SIZE):
            batch = readable[first : first + BATCH_SIZE]
            yield self._sums([(name, example) for name in batch for example in rows[name]])

    def overlap(self, own: Scored, teacher: Scored) -> dict[str, float]:
        """Return ROUGE-L and chrF of the student's text to the teacher's.

        If the student was trained on answers without rationales, only the answers are compared.
        """
        if self.encoder.form == "whole":
            texts = own.text.strip(), teacher.text.strip()
        else:
            texts = own.score.answer or "", teacher.score.answer or ""
        return {name: scorers.SCORERS[name](*texts, None).value for name in ("rouge_l", "chrf")}

    def _examples(self, answer: Scored) -> list[Example]:
        """Encode the answer as a row; empty if its form or vocabulary cannot express it."""
        is_trimmed = self._kept is not None and not self._kept.issuperset(answer.token_ids or ())
        if not answer.token_ids or is_trimmed:
            return []
        completion = Completion(
            answer.seed_id, answer.text, answer.token_ids, answer.finish_reason, answer.usage
        )
        reading = replies.read(self._teacher_prompt, completion, self.teacher)
        sample = Sample(
            id=answer.seed_id,
            seed=self.seeds[answer.seed_id],
            index=0,
            teacher=answer.model,
            prompt_digest="",
            token_ids=answer.token_ids,
            text=answer.text,
            **vars(reading),
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            frame=answer.frame,
        )
        return dataset.examples(self.encoder, sample)

    @cached_property
    def _teacher_prompt(self) -> Prompt:
        """The teacher's prompt; its front matter defines how to read the teacher's answers."""
        return prompts.load(self.job.config.generate.prompt[0])

    @cached_property
    def _kept(self) -> frozenset[int] | None:
        return frozenset(self.encoder.vocabulary.kept) if self.encoder.vocabulary else None

    def _sums(self, rows: Sequence[tuple[str, Example]]) -> Sums:
        import torch

        from pipeline.losses.token_kl import most_likely, token_kl
        from pipeline.students import lora
        from pipeline.training import collation
        from pipeline.training.model_checks import logits_of

        examples = [example for _, example in rows]
        frames = collation.Frames(self.frames, examples, self.encoder.vocabulary)
        collated = collation.Collator(self.encoder.tokenizer.pad_id, frames)(
            list(collation.dataset(examples))
        )
        batch = {name: value.to(self.model.device) for name, value in collated.items()}
        in_loss = collation.loss_mask(batch)  # (B, T - 1)
        teacher = collation.stored_teacher(batch)
        assert teacher is not None
        with torch.no_grad():
            states = lora.body(self.model)(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                use_cache=False,
            )
            hidden = states.last_hidden_state[:, :-1][in_loss][teacher.known].float()  # (N, H)
            known = teacher.at(teacher.known)
            head, logits = lora.head(self.model), logits_of(self.model)
            nats = token_kl(hidden, head, known, logits)
            # decoding was greedy, so the teacher's most likely token is the one it wrote
            same = most_likely(hidden, head, logits) == known.ids[:, 0]
        owners = in_loss.nonzero()[:, 0][teacher.known].tolist()
        sums: Sums = dict.fromkeys((name for name, _ in rows), (0, 0.0, 0))
        for owner, kl, is_same in zip(owners, nats.tolist(), same.tolist(), strict=True):
            name = rows[owner][0]
            tokens, total, equal = sums[name]
            sums[name] = tokens + 1, total + kl, equal + is_same
        return sums
