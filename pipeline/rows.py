"""What an arm learns from, and what is held out of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline import prompts, seeds, students
from pipeline.encode import Encoder, Example, check_frames, check_lengths
from pipeline.errors import PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Sample, Seed, digest
from pipeline.samples import Samples
from pipeline.scoring import SCORERS
from pipeline.stage import Job
from pipeline.vocabulary import Vocabulary

_ROWS = {"filter": "filter/kept", "score": "score"}  # where the samples are, and where their frames
_FRAMES = {"filter": "generate", "score": "score"}


@dataclass(frozen=True)
class Rows:
    """`seeds` are the held-out ones, each once; `same`: whether the teacher's token ids are the student's."""

    train: list[Example]
    held_out: list[Example]
    seeds: list[Seed]
    same: bool


def load(job: Job, tokenizer: Tokenizer, vocab_size: int) -> Rows:
    """What is learned from, and what is held out. An arm's limit is one of what it learns from: all arms hold out the same seeds."""
    config, arm = job.config, job.config.train.arms[job.part]
    same = arm.text == "truth" or students.check_vocabulary(config, job.part, tokenizer)
    vocabulary = Vocabulary.read(tokenizer.name)
    encoder = Encoder(tokenizer, prompts.load(config.train.prompt), same, arm.form, arm.rationale_weight, vocabulary)
    taught: list[Example] = []

    def encoded(sources: Iterable[Sample | Seed]) -> list[Example]:
        examples: list[Example] = []
        for source in sources:
            made = encoder.truth(source) if isinstance(source, Seed) else encoder.sample(source)
            examples += made
            taught.extend(made if isinstance(source, Sample) else ())
        return examples

    train = encoded(islice((source for source in _sources(job) if not is_held_out(_seed_of(source).id, config.train.holdout)), arm.limit))
    if not train:
        raise PipelineError(
            f"train {job.part}: there is no row to learn from; see what filter dropped, or whether the seeds have ground truth"
        )
    kept_back = [source for source in _sources(job) if is_held_out(_seed_of(source).id, config.train.holdout)]
    held_out = encoded(kept_back)
    if config.train.holdout and not held_out:
        raise PipelineError(
            f"train {job.part}: train.holdout={config.train.holdout:g} holds out none of its {len(train):,} rows; raise it, or set it to 0"
        )
    check_lengths([*train, *held_out], config.train.max_length)
    if arm.method == "kd":
        check_frames(taught, frames(job), tokenizer, vocab_size, vocabulary)
    return Rows(train, held_out, list({_seed_of(source).id: _seed_of(source) for source in kept_back}.values()), same)


def is_held_out(seed_id: str, share: float) -> bool:
    """Whether a seed is among the share that is held out: by its id alone, whatever the run, the arm and the order."""
    return int(digest("held out", seed_id), 16) < share * 16**16


def _seed_of(source: Sample | Seed) -> Seed:
    return source if isinstance(source, Seed) else source.seed


def _sources(job: Job) -> Iterator[Sample | Seed]:
    """What is learned from: samples, or seeds whose ground truth is. One whose samples are wrong stands in for them once."""
    config, arm = job.config, job.config.train.arms[job.part]
    if arm.text == "truth":
        yield from (seed for seed in seeds.load(config.task.seeds) if seed.target is not None)
        return
    score, mended = SCORERS[config.task.metric], set()
    for sample in Samples(samples(job)):
        seed = sample.seed
        right = not arm.corrected or seed.target is None or score(sample.answer, seed.target, config.task.labels).value == 1.0
        if right:
            yield sample
        elif seed.id not in mended:
            mended.add(seed.id)
            yield seed


def samples(job: Job) -> Path:
    """The folder of the samples that arms learn from."""
    return job.run_dir / _ROWS[job.config.train.rows]


def frames(job: Job) -> Path:
    """The folder with the frames of those samples."""
    return job.run_dir / _FRAMES[job.config.train.rows]
