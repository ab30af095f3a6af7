"""The generate stage: ask the teacher for responses, rationales and top-k logprobs."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data import licences, seeds
from pipeline.execution.contract import Job
from pipeline.execution.fingerprint import input_digest
from pipeline.inference import teacher_samples, work_queue
from pipeline.inference.teacher_samples import Capture, SampleSpec, keep_prompts
from pipeline.inference.work_queue import Item, Worker
from pipeline.models import resolve
from pipeline.models.backends import open_teacher
from pipeline.models.base import Model, Sampling
from pipeline.records import Sample, Seed, digest

log = logging.getLogger(__name__)

NAME = "generate"
NOTES = frozenset[str]()
DISPOSABLE = frozenset({"prompts"})
SHARED = True
SEED_BITS = 8  # hex digits of a hash that make a sampling seed


def parts(config: Config) -> list[str]:
    return [""]


def sections(config: Config, part: str) -> list[str]:
    return ["task.seeds", "teacher", "generate"]


def reads(config: Config, part: str) -> list[str]:
    return []


def files(config: Config, part: str) -> list[Path]:
    return [*seeds.files(config.task.seeds), *map(Path, config.generate.prompt)]


def identities(config: Config, part: str) -> Mapping[str, str]:
    return {**resolve.identities(config.teacher), **seeds.identities(config.task.seeds)}


def run(job: Job) -> dict[str, Any]:
    """Ask for every missing sample, then count all of them.

    Raises PipelineError if a licence forbids training on them.
    """
    terms = licences.check_declared(job.config.licences)
    log.info("\n".join(terms.lines))
    keep_prompts(job.config.generate.prompt, job.folder)
    capturing(job).run(lambda: open_teacher(job.config.teacher, job.engine_log))
    return {**teacher_samples.count(job.folder), "licences": terms.record}


def capturing(job: Job) -> Capture[Seed]:
    """Return the work of this process on the folder."""
    config, teacher = job.config, job.config.teacher
    pinned = seeds.PinnedSource(config.task.seeds, input_digest(job.begun, config.task.seeds.path))
    samples = config.generate.samples * len(config.generate.prompt)
    work, cursor = work_queue.open_seed_work(
        job.folder, pinned, config.generate.shard_size, samples
    )
    sampling = Sampling(
        teacher.max_tokens, teacher.temperature, teacher.top_p, teacher.top_k, teacher.logprobs
    )
    worker = Worker(job.folder, work, Sample, cursor.take, sample_id)
    return Capture(
        job,
        worker,
        partial(_ask, config),
        lambda model, requests: model.generate(requests, sampling),
        teacher.logprobs,
    )


def summary(config: Config) -> str:
    return teacher_samples.summary(Path(config.run_dir), NAME)


def sample_id(seed: Seed, index: int) -> str:
    """Return the id of a seed's sample number `index`."""
    return f"{seed.id}/{index}"


def _ask(config: Config, item: Item[Seed], model: Model) -> SampleSpec:
    generate = config.generate
    hashed = digest("sampling", generate.seed, item.source.id, item.index, length=SEED_BITS)
    return SampleSpec(
        item.source,
        item.index,
        item.index // generate.samples,
        int(hashed, 16) if config.teacher.temperature else None,
    )
