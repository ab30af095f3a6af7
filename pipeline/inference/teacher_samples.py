"""Samples from a teacher's answers, for generate and score.

A process works on the shards that no other worker holds. If the model dies, it opens a new one.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.data import prompts, replies
from pipeline.errors import EngineError, PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.manifest import read_manifest
from pipeline.execution.progress import Progress
from pipeline.inference.collector import Collector, Question
from pipeline.inference.work_queue import Item, Worker, failure_files
from pipeline.models.base import Answer, Completion, Failure, Model, Request
from pipeline.records import Failed, FinishReason, Sample, Seed, digest
from pipeline.storage import topk
from pipeline.storage.files import write_atomic
from pipeline.storage.journal import read_failures
from pipeline.storage.locks import locked
from pipeline.storage.shards import read_records

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0

S = TypeVar("S")


@dataclass(frozen=True)
class SampleSpec:
    """One sample to make.

    Attributes:
        index: number of the sample among those of its seed.
        prompt: number of the prompt file.
        reply_ids: the reply to score; None: generate one.
        finish_reason: how the reply to score ended.
    """

    seed: Seed
    index: int
    prompt: int
    sampling_seed: int | None = None
    reply_ids: list[int] | None = None
    finish_reason: FinishReason | None = None


@dataclass
class Capture(Generic[S]):
    """One process's work on one folder of samples.

    Attributes:
        spec: makes the sample's specification from an item and the model.
        answers: calls the model's generate or score with requests.
        k: top-k logprobs of every token; 0 for none.
    """

    job: Job
    worker: Worker[S, Sample]
    spec: Callable[[Item[S], Model], SampleSpec]
    answers: Callable[[Model, Iterator[Request]], Iterator[list[Answer]]]
    k: int

    def run(self, open_model: Callable[[], Model]) -> None:
        """Make every missing sample, until this or other processes have finished all shards.

        If the model dies, open it again: at most teacher.restarts times, and only if samples were
        stored since the last start.
        """
        name = self.job.stage
        work = self.worker.work
        teacher = self.job.config.teacher
        stored = self.worker.count_stored()
        restarts = 0
        waiting = Progress(f"{name}: other processes have the rest", work.shards, unit="shards")
        model: Model | None = None
        try:
            while unsealed := self.worker.unsealed():
                if self.worker.others_hold_the_rest():
                    waiting.done = work.shards - len(unsealed)
                    waiting.show()
                    time.sleep(POLL_SECONDS)
                    continue
                if model is None:
                    log.info(
                        f"{name}: {stored:,} of {work.total:,} samples are stored; "
                        f"loading {teacher.model}"
                    )
                    model = open_model()
                try:
                    progress = Progress(name, work.total, self.worker.count_stored())
                    self.process_shards(model, progress)
                except EngineError as death:
                    before = stored
                    stored = self.worker.count_stored()
                    restarts += 1
                    if stored == before or restarts > teacher.restarts:
                        raise
                    log.warning(
                        f"{death}\n{name}: restarting the model, "
                        f"{restarts} of teacher.restarts={teacher.restarts}"
                    )
                    dead, model = model, None
                    dead.close()
        finally:
            if model is not None:
                model.close()

    def process_shards(self, model: Model, progress: Progress) -> None:
        """Ask `model` for the missing samples of all shards that no other process holds."""
        header = self._header(model)
        prompt_files = prompts.stored_files(self.job.folder)
        questions = _Questions(self, model, header, [prompts.load(path) for path in prompt_files])
        collector = Collector(
            questions.question,
            self._failed,
            progress,
            self.job.config.generate.max_error_rate,
            # count stored samples as answered; otherwise, when only failed requests are retried and
            # fail again, the error rate would be near 100 %
            answered=self.worker.count_stored(),
        )
        shards = self.worker.claim(header.to_bytes() if header else b"")
        collector.run(partial(self.answers, model), shards)

    def _failed(self, failure: Failure) -> Failed:
        item = self.worker.items.pop(failure.id)
        return Failed(
            id=item.id,
            number=item.number,
            index=item.index,
            reason=failure.reason,
            message=failure.message,
        )

    def _header(self, model: Model) -> topk.Header | None:
        if not self.k:
            return None
        teacher = self.job.config.teacher
        return header(self.job, model, self.k, teacher.logprob_mass, teacher.logprob_threshold)


@dataclass(frozen=True)
class _Questions(Generic[S]):
    """Makes the questions for one model and turns its completions into samples."""

    capture: Capture[S]
    model: Model
    header: topk.Header | None
    prompts: Sequence[prompts.Prompt]

    def question(self, identifier: str) -> Question[Sample]:
        """Return the question for a sample. Raises PipelineError if its prompt does not render."""
        spec = self.capture.spec(self.capture.worker.items[identifier], self.model)
        prompt = self.prompts[spec.prompt]
        tokenizer = self.model.tokenizer
        rendered = prompt.render(spec.seed, tokenizer.control_tokens if tokenizer else ())
        token_ids = tokenizer.encode(rendered) if tokenizer else None
        request = Request(
            identifier,
            rendered,
            token_ids,
            spec.sampling_seed,
            tuple(prompt.front.stop),
            spec.reply_ids,
        )
        prompt_digest = digest(token_ids or str(rendered), length=8)
        return Question(request, partial(self._sample, spec, prompt_digest))

    def _sample(
        self, spec: SampleSpec, prompt_digest: str, completion: Completion
    ) -> tuple[Sample, bytes | None]:
        self.capture.worker.items.pop(completion.id)
        reading = replies.read(self.prompts[spec.prompt], completion, self.model.tokenizer)
        sample = Sample(
            id=completion.id,
            seed=spec.seed,
            index=spec.index,
            prompt=spec.prompt,
            teacher=self.capture.job.config.teacher.model,
            prompt_digest=prompt_digest,
            sampling_seed=spec.sampling_seed,
            token_ids=completion.token_ids,
            text=completion.text,
            **vars(reading),
            finish_reason=spec.finish_reason or completion.finish_reason,
            usage=completion.usage,
        )
        if self.header is None:
            return sample, None
        table = completion.topk
        if table is None:
            raise PipelineError(
                f"{sample.teacher}: gave no logprobs; "
                "set teacher.logprobs: 0 and train sft arms only"
            )
        number = int(digest(sample.id), 16)
        return sample, topk.encode(table.ids, table.logprobs, self.header, number)


def header(job: Job, model: Model, k: int, mass: float, threshold: float) -> topk.Header:
    """Return the header of a `.topk` file. Raises PipelineError if the tokenizer is unknown."""
    if model.tokenizer is None:
        raise PipelineError(f"{job.stage}: logprobs need the tokenizer; set teacher.tokenizer")
    return topk.Header(
        stage=job.stage,
        teacher=model.facts.name,
        revision=model.facts.revision,
        tokenizer=model.tokenizer.hash,
        chat_template=model.tokenizer.template_hash,
        vocab_size=model.tokenizer.vocab_size,
        k=k,
        mass=mass,
        threshold=threshold,
        logprobs_mode=model.facts.logprobs_mode,
        head_dtype=model.facts.head_dtype,
        engine=model.facts.engine,
    )


def keep_prompts(paths: Sequence[Path | str], folder: Path) -> None:
    """Copy the prompt files to prompts/0.md, 1.md, …, where later stages read them."""
    (folder / "prompts").mkdir(exist_ok=True)
    with locked(folder / "work.lock"):  # other workers write the same files
        for number, path in enumerate(paths):
            write_atomic(folder / "prompts" / f"{number}.md", Path(path).read_bytes())


def count(folder: Path) -> dict[str, Any]:
    """Count a folder's samples and failures. Raises PipelineError if all requests failed."""
    finish: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sample in read_records(folder, Sample):
        finish[sample.finish_reason] += 1
        total["samples"] += 1
        total["prompt_tokens"] += sample.usage.prompt_tokens
        total["completion_tokens"] += sample.usage.completion_tokens
        total["with_answer"] += sample.answer is not None
        total["with_rationale"] += sample.rationale is not None
    failures = [failed for path in failure_files(folder) for failed in read_failures(path)]
    if not total["samples"]:
        last = f"{failures[-1].reason}: {failures[-1].message}" if failures else "nothing was asked"
        raise PipelineError(
            f"{folder}: no request got an answer ({last}); "
            "fix the cause, then continue with --retry-errors"
        )
    return {
        **total,
        "finish_reason": dict(finish),
        "failed": len(failures),
        "failed_by_reason": dict(Counter(failed.reason for failed in failures)),
        "jsonl_bytes": sum(path.stat().st_size for path in folder.glob("*.jsonl.gz")),
        "topk_bytes": sum(path.stat().st_size for path in folder.glob("*.topk")),
    }


def summary(run_dir: Path, stage: str) -> str:
    """Write one line about the samples, and one about the failures if there are any."""
    counts = read_manifest(run_dir, stage)["counts"]
    tokens = max(counts["completion_tokens"], 1)
    line = (
        f"{stage}: {counts['samples']:,} samples, {counts['completion_tokens']:,} tokens; "
        f"{counts['with_answer']:,} with an answer, {counts['with_rationale']:,} with a rationale; "
        f"logprobs {counts['topk_bytes'] / tokens:.1f} B/token, "
        f"text {counts['jsonl_bytes'] / tokens:.1f} B/token"
    )
    if not counts["failed"]:
        return line
    by_reason = counts["failed_by_reason"].items()
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in by_reason)
    return (
        f"{line}\n{stage}: {counts['failed']:,} requests failed ({reasons}"
        f"{_last_failure(run_dir / stage)}); "
        f"see {run_dir / stage / 'errors'}, and continue with --retry-errors"
    )


def _last_failure(folder: Path) -> str:
    """Return what the last failure says, such as a server's own words."""
    files = failure_files(folder)
    last = [failed for path in files[-1:] for failed in read_failures(path)][-1:]
    return "".join(f"; the last: {failed.message}" for failed in last)
