"""score: what the teacher thinks of text that is already there; top-k logprobs by prefill, in the same files as generate's."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Config
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
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples

log = logging.getLogger(__name__)

NAME = "score"
NOTES = frozenset[str]()
DISPOSABLE = frozenset({"prompts"})
SHARED = True
KEPT, TARGETS = "kept", "targets"
SHARD_ROWS = 512


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    seeds_too = ["task.seeds"] if config.score.source == TARGETS else []
    model = (
        "backend",
        "model",
        "revision",
        "tokenizer",
        "replies",
        "engine",
        "logprob_mass",
        "logprob_threshold",
    )
    return ["score", *seeds_too, *(f"teacher.{name}" for name in model)]


def reads(config: Config, part: str) -> list[str]:
    return ["generate", "filter"] if config.score.source == KEPT else []


def files(config: Config, part: str) -> list[Path]:
    asked = [Path(path) for path in config.generate.prompt]
    if config.score.source == KEPT:
        return []  # generate's own copies, which its manifest vouches for
    if config.score.source == TARGETS:
        return asked + ([Path(config.task.seeds.path)] if config.task.seeds.path else [])
    return [*asked, Path(config.score.source) / "generate" / "manifest.json"]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {
        **resolve.identities(config.teacher),
        **(seeds.identities(config.task.seeds) if config.score.source == TARGETS else {}),
    }


def run(job: Job) -> dict[str, Any]:
    """Score every row that is not scored yet, then count what is there."""
    config = job.config
    log.info("\n".join(licences.check_declared(config.licences).lines))
    teacher = config.teacher.model_copy(update={"logprobs": config.score.logprobs})
    keep_prompts(_prompts(job), job.folder)
    ask: Callable[[Item[Any], Model], SampleSpec]
    worker: Worker[Any, Sample]
    ask, worker = _targets(job) if config.score.source == TARGETS else _samples(job)
    Capture[Any](
        job,
        worker,
        ask,
        lambda model, requests: model.score(requests, teacher.logprobs),
        teacher.logprobs,
    ).run(lambda: open_teacher(teacher, job.engine_log))
    return teacher_samples.count(job.folder)


def summary(config: Config) -> str:
    return teacher_samples.summary(Path(config.run_dir), NAME)


def _prompts(job: Job) -> list[Path]:
    """What kept rows were asked with, whatever the config says now; for other text, the config's prompts."""
    if job.config.score.source != KEPT:
        return [Path(path) for path in job.config.generate.prompt]
    return prompts.stored_files(job.run_dir / "generate")


def _samples(
    job: Job,
) -> tuple[Callable[[Item[Sample], Model], SampleSpec], Worker[Sample, Sample]]:
    """The kept rows of this run, or all of another run's. Token ids are used again only if they are the teacher's."""
    source = job.config.score.source
    own = source == KEPT
    rows = Samples(job.run_dir / "filter" / "kept" if own else Path(source) / "generate")
    asked = _prompts(job)
    todo = work_queue.open_work(
        job.folder, lambda: Work(seeds=len(rows), shard_seeds=SHARD_ROWS, samples=1)
    )
    same = _same_tokenizer(job.config, job.run_dir if own else Path(source))

    def ask(item: Item[Sample], model: Model) -> SampleSpec:
        sample = item.source
        given = sample.token_ids if same else None
        if given is None:
            stops = tuple(prompts.load(asked[sample.prompt if own else 0]).front.stop)
            given = _tokenised(
                model,
                sample.text,
                sample.finish_reason == "stop" and not sample.text.endswith(stops),
            )
        return SampleSpec(
            sample.seed,
            sample.index,
            sample.prompt if own else 0,
            reply_ids=given,
            finish_reason=sample.finish_reason,
        )

    return ask, Worker(job.folder, todo, Sample, rows.take, lambda sample, _: sample.id)


def _targets(job: Job) -> tuple[Callable[[Item[Seed], Model], SampleSpec], Worker[Seed, Sample]]:
    """The ground truth of every seed, put as the first prompt asks for it."""
    config = job.config
    pinned = seeds.PinnedSource(config.task.seeds, input_digest(job.begun, config.task.seeds.path))

    def survey() -> Work:
        found = seeds.survey(pinned, SHARD_ROWS)
        return Work(seeds=found.seeds, shard_seeds=found.stride, samples=1, offsets=found.offsets)

    todo = work_queue.open_work(job.folder, survey)
    prompt = prompts.load(config.generate.prompt[0])

    def ask(item: Item[Seed], model: Model) -> SampleSpec:
        if item.source.target is None:
            raise PipelineError(f"seed {item.source.id} has no ground truth that could be scored")
        text = prompt.front.target_reply(item.source)
        return SampleSpec(
            item.source,
            0,
            0,
            reply_ids=_tokenised(model, text, not text.endswith(tuple(prompt.front.stop))),
            finish_reason="stop",
        )

    cursor = seeds.Cursor(pinned, seeds.Survey(todo.seeds, todo.shard_seeds, todo.offsets))
    return ask, Worker(
        job.folder, todo, Sample, cursor.take, lambda seed, index: f"{seed.id}/{index}"
    )


def _tokenised(model: Model, text: str, ended: bool) -> list[int]:
    assert model.tokenizer is not None
    ids = model.tokenizer.encode_reply(text)
    return ids if ended else ids[:-1]


def _same_tokenizer(config: Config, run_dir: Path) -> bool:
    """Whether another run's token ids are this teacher's."""
    settings = read_json(begun(run_dir, "generate"))["config"]["teacher"]
    other = config.teacher.model_validate(settings)
    known = other.backend != "openai" or other.tokenizer is not None
    return (
        known
        and Tokenizer(tokenizer_path(other), other.revision).hash
        == Tokenizer(tokenizer_path(config.teacher), config.teacher.revision).hash
    )
