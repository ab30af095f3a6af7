"""What generate and score share: working shards off with a model, beside other workers, and making samples of its answers."""

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
    """One sample to be made: of which seed, by which of generate's prompts, by sampling or of `reply_ids` token ids."""

    seed: Seed
    index: int
    prompt: int
    sampling_seed: int | None = None
    reply_ids: list[int] | None = None
    finish_reason: FinishReason | None = None  # of what is given


@dataclass
class Capture(Generic[S]):
    """One process's work on one folder of samples.

    Attributes:
        ask: (item, model) -> what to ask for it.
        answers: (model, requests) -> the model's generate or score.
        k: top-k logprobs that every token shall have; 0 for none.
    """

    job: Job
    worker: Worker[S, Sample]
    ask: Callable[[Item[S], Model], SampleSpec]
    answers: Callable[[Model, Iterator[Request]], Iterator[list[Answer]]]
    k: int

    def run(self, open_model: Callable[[], Model]) -> None:
        """Ask for every sample that is not there yet, until all shards are finished, by this process or by others.

        A model that dies is opened again, teacher.restarts times; not if nothing was made since the last time.
        """
        name, work, there = self.job.stage, self.worker.work, self.worker.count_stored()
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
                        f"{name}: {there:,} of {work.total:,} samples are there; loading {self.job.config.teacher.model}"
                    )
                    model = open_model()
                try:
                    self.process_shards(
                        model, Progress(name, work.total, self.worker.count_stored())
                    )
                except EngineError as death:
                    before, there, restarts = there, self.worker.count_stored(), restarts + 1
                    if there == before or restarts > self.job.config.teacher.restarts:
                        raise
                    log.warning(
                        f"{death}\n{name}: now by itself, {restarts} of teacher.restarts={self.job.config.teacher.restarts}"
                    )
                    dead, model = model, None
                    dead.close()
        finally:
            if model is not None:
                model.close()

    def process_shards(self, model: Model, progress: Progress) -> None:
        """Ask `model` for what is missing in all shards that are free."""
        header = self._header(model)
        asked = [prompts.load(path) for path in prompts.stored_files(self.job.folder)]
        collector = Collector(
            partial(self._question, model, header, asked),
            self._failed,
            progress,
            self.job.config.generate.max_error_rate,
            answered=self.worker.count_stored(),  # a retry of what mostly fails must not pass for a run that does
        )
        collector.run(
            partial(self.answers, model), self.worker.claim(header.to_bytes() if header else b"")
        )

    def _question(
        self, model: Model, header: topk.Header | None, asked: list[prompts.Prompt], identifier: str
    ) -> Question[Sample]:
        ask = self.ask(self.worker.items[identifier], model)
        prompt = asked[ask.prompt]
        rendered = prompt.render(
            ask.seed, model.tokenizer.control_tokens if model.tokenizer else ()
        )
        token_ids = model.tokenizer.encode(rendered) if model.tokenizer else None
        request = Request(
            identifier,
            rendered,
            token_ids,
            ask.sampling_seed,
            tuple(prompt.front.stop),
            ask.reply_ids,
        )
        return Question(
            request,
            partial(
                self._sample,
                model,
                header,
                prompt,
                ask,
                digest(token_ids or str(rendered), length=8),
            ),
        )

    def _sample(
        self,
        model: Model,
        header: topk.Header | None,
        prompt: prompts.Prompt,
        ask: SampleSpec,
        prompt_digest: str,
        completion: Completion,
    ) -> tuple[Sample, bytes | None]:
        self.worker.items.pop(completion.id)
        reading = replies.read(prompt, completion, model.tokenizer)
        sample = Sample(
            id=completion.id,
            seed=ask.seed,
            index=ask.index,
            prompt=ask.prompt,
            teacher=self.job.config.teacher.model,
            prompt_digest=prompt_digest,
            sampling_seed=ask.sampling_seed,
            token_ids=completion.token_ids,
            text=completion.text,
            **vars(reading),
            finish_reason=ask.finish_reason or completion.finish_reason,
            usage=completion.usage,
        )
        if header is None:
            return sample, None
        if completion.topk is None:
            raise PipelineError(
                f"{sample.teacher}: gave no logprobs; set teacher.logprobs: 0 and train sft arms only"
            )
        return sample, topk.encode(
            completion.topk.ids, completion.topk.logprobs, header, int(digest(sample.id), 16)
        )

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


def header(job: Job, model: Model, k: int, mass: float, threshold: float) -> topk.Header:
    """What a file of this teacher's frames begins with. Raises PipelineError for a server of which no tokenizer is known."""
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
    """Copy the prompts to prompts/0.md, 1.md, …: what samples were asked with is read from here by later stages."""
    (folder / "prompts").mkdir(exist_ok=True)
    with locked(folder / "work.lock"):  # other workers write the same
        for number, path in enumerate(paths):
            write_atomic(folder / "prompts" / f"{number}.md", Path(path).read_bytes())


def count(folder: Path) -> dict[str, Any]:
    """What a folder of samples holds, from its files. Raises PipelineError if all requests failed."""
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
            f"{folder}: no request got an answer ({last}); mend that, then go on with --retry-errors"
        )
    nbytes = {
        name: sum(path.stat().st_size for path in folder.glob(f"*.{name}"))
        for name in ("jsonl.gz", "topk")
    }
    return {
        **total,
        "finish_reason": dict(finish),
        "failed": len(failures),
        "failed_by_reason": dict(Counter(failed.reason for failed in failures)),
        "jsonl_bytes": nbytes["jsonl.gz"],
        "topk_bytes": nbytes["topk"],
    }


def summary(run_dir: Path, stage: str) -> str:
    """One line of what was made, and one of what failed if anything did."""
    counts, folder = read_manifest(run_dir, stage)["counts"], run_dir / stage
    tokens = max(counts["completion_tokens"], 1)
    line = (
        f"{stage}: {counts['samples']:,} samples, {counts['completion_tokens']:,} tokens; {counts['with_answer']:,} with an answer, "
        f"{counts['with_rationale']:,} with a rationale; logprobs {counts['topk_bytes'] / tokens:.1f} B a token, "
        f"text {counts['jsonl_bytes'] / tokens:.1f} B a token"
    )
    if not counts["failed"]:
        return line
    reasons = ", ".join(
        f"{number:,} {reason}" for reason, number in counts["failed_by_reason"].items()
    )
    return f"{line}\n{stage}: {counts['failed']:,} requests failed ({reasons}); see {folder / 'errors'}, and go on with --retry-errors"
