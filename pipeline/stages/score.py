"""The score stage: top-k logprobs of existing text, by prefill, in the same files as generate."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config, Teacher
from pipeline.data import licences, prompts, seeds
from pipeline.errors import PipelineError
from pipeline.execution.contract import Job
from pipeline.execution.fingerprint import input_digest
from pipeline.execution.paths import begun
from pipeline.inference import teacher_samples, work_queue
from pipeline.inference.teacher_samples import Capture, SampleSpec, keep_prompts
from pipeline.inference.work_queue import Item, Work, Worker
from pipeline.models import resolve
from pipeline.models.backends import open_teacher
from pipeline.models.base import Model
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample, Seed
from pipeline.storage.files import read_object
from pipeline.storage.samples import Samples

log = logging.getLogger(__name__)

NAME = "score"
NOTES = frozenset[str]()
DISPOSABLE = frozenset({"prompts"})
SHARED = True
KEPT, TARGETS = "kept", "targets"
SHARD_ROWS = 512
# fmt: off
TEACHER_KEYS = (
    "backend", "model", "revision", "tokenizer", "replies", "engine",
    "logprob_mass", "logprob_threshold",
)
# fmt: on


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    seeds_too = ["task.seeds"] if config.score.source == TARGETS else []
    return ["score", *seeds_too, *(f"teacher.{name}" for name in TEACHER_KEYS)]


def reads(config: Config, part: str) -> list[str]:
    return ["generate", "filter"] if config.score.source == KEPT else []


def files(config: Config, part: str) -> list[Path]:
    prompt_files = [Path(path) for path in config.generate.prompt]
    if config.score.source == KEPT:
        return []  # the prompts are generate's copies, which its manifest lists
    if config.score.source == TARGETS:
        return prompt_files + seeds.files(config.task.seeds)
    return [*prompt_files, Path(config.score.source) / "generate" / "manifest.json"]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {
        **resolve.identities(config.teacher),
        **(seeds.identities(config.task.seeds) if config.score.source == TARGETS else {}),
    }


def run(job: Job) -> dict[str, Any]:
    """Score every row that is not scored yet, then count all of them."""
    config = job.config
    log.info("\n".join(licences.check_declared(config.licences).lines))
    teacher = config.teacher.model_copy(update={"logprobs": config.score.logprobs})
    keep_prompts(_prompts(job), job.folder)
    work: tuple[Callable[[Item[Any], Model], SampleSpec], Worker[Any, Sample]]
    work = _targets(job) if config.score.source == TARGETS else _samples(job)
    ask, worker = work
    capture = Capture[Any](
        job,
        worker,
        ask,
        lambda model, requests: model.score(requests, teacher.logprobs),
        teacher.logprobs,
    )
    capture.run(lambda: open_teacher(teacher, job.engine_log))
    return teacher_samples.count(job.folder)


def summary(config: Config) -> str:
    return teacher_samples.summary(Path(config.run_dir), NAME)


def _prompts(job: Job) -> list[Path]:
    """Return the prompts that made the kept rows, or for other text the config's prompts."""
    if job.config.score.source != KEPT:
        return [Path(path) for path in job.config.generate.prompt]
    return prompts.stored_files(job.run_dir / "generate")


def _samples(
    job: Job,
) -> tuple[Callable[[Item[Sample], Model], SampleSpec], Worker[Sample, Sample]]:
    """Score the kept rows of this run, or all rows of another run.

    Their token ids are reused only if the tokenizer is the teacher's.
    """
    source = job.config.score.source
    own = source == KEPT
    rows = Samples(job.run_dir / "filter" / "kept" if own else Path(source) / "generate")
    prompt_files = _prompts(job)
    same = _same_tokenizer(job.config, job.run_dir if own else Path(source))

    def ask(item: Item[Sample], model: Model) -> SampleSpec:
        sample = item.source
        prompt = sample.prompt if own else 0
        reply_ids = sample.token_ids if same else None
        if reply_ids is None:
            reply_ids = _tokenise(
                model,
                sample.text,
                prompts.load(prompt_files[prompt]),
                is_whole=sample.finish_reason == "stop",
            )
        return SampleSpec(
            sample.seed,
            sample.index,
            prompt,
            reply_ids=reply_ids,
            finish_reason=sample.finish_reason,
        )

    work = work_queue.open_work(
        job.folder, lambda: Work(seeds=len(rows), shard_seeds=SHARD_ROWS, samples=1)
    )
    return ask, Worker(job.folder, work, Sample, rows.take, lambda sample, _: sample.id)


def _targets(job: Job) -> tuple[Callable[[Item[Seed], Model], SampleSpec], Worker[Seed, Sample]]:
    """Score the ground truth of every seed, in the form that the first prompt asks for."""
    config = job.config
    pinned = seeds.PinnedSource(config.task.seeds, input_digest(job.begun, config.task.seeds.path))
    work, cursor = work_queue.open_seed_work(job.folder, pinned, SHARD_ROWS, samples=1)
    prompt = prompts.load(config.generate.prompt[0])

    def ask(item: Item[Seed], model: Model) -> SampleSpec:
        if item.source.target is None:
            raise PipelineError(f"seed {item.source.id} has no ground truth that could be scored")
        text = prompt.front.target_reply(item.source, config.task.metric)
        reply_ids = _tokenise(model, text, prompt)
        return SampleSpec(item.source, 0, 0, reply_ids=reply_ids, finish_reason="stop")

    return ask, Worker(
        job.folder, work, Sample, cursor.take, lambda seed, index: f"{seed.id}/{index}"
    )


def _tokenise(model: Model, text: str, prompt: prompts.Prompt, is_whole: bool = True) -> list[int]:
    """Return the token ids of a reply, with the end of turn unless it was cut or a stop ends it."""
    assert model.tokenizer is not None
    ids = model.tokenizer.encode_reply(text, prompt.is_chat)
    is_ended = is_whole and not text.endswith(tuple(prompt.front.stop))
    return ids if is_ended else ids[:-1]


def _same_tokenizer(config: Config, run_dir: Path) -> bool:
    """Return True if the token ids of a run come from this teacher's tokenizer."""
    settings = read_object(begun(run_dir, "generate"), "config")["config"]["teacher"]
    other = config.teacher.model_validate(settings)
    if other.backend == "openai" and other.tokenizer is None:
        return False
    return _tokenizer_hash(other) == _tokenizer_hash(config.teacher)


def _tokenizer_hash(teacher: Teacher) -> str:
    return Tokenizer(tokenizer_path(teacher), teacher.revision).hash
