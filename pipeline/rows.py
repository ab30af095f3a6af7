"""What an arm learns from, and what is held out of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline import prompts, seeds, students, verifiers
from pipeline.encode import IGNORED, Encoder, Example, NoAnswerError, check_frames, check_lengths
from pipeline.errors import PipelineError
from pipeline.filters.verdict import LEAKED
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Rejected, Sample, Seed, digest
from pipeline.samples import Samples
from pipeline.stage import Job
from pipeline.store import read_records
from pipeline.vocabulary import Vocabulary

_ROWS = {"filter": "filter/kept", "score": "score"}  # where the samples are, and where their frames
_FRAMES = {"filter": "generate", "score": "score"}

Sources = Samples | Sequence[Seed]  # samples, or seeds whose ground truth is learned


@dataclass(frozen=True)
class Rows:
    """`seeds` are the held-out ones, each once; `same`: whether the teacher's token ids are the student's; `passed_over`: how many samples
    a random draw came upon that cannot be learned from."""

    train: list[Example]
    held_out: list[Example]
    seeds: list[Seed]
    same: bool
    passed_over: int = 0


def load(job: Job, tokenizer: Tokenizer, vocab_size: int) -> Rows:
    """What is learned from, and what is held out. Limit, share and selection are of what is learned from: all arms hold out the same."""
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

    kept = _sources(job)
    learned, held_back = _split(kept, config.train.holdout)
    chosen, numbers, passed_over = _chosen(
        job, kept, learned[: arm.limit], lambda sample: _is_usable(encoder, sample, config.train.max_length)
    )
    train = encoded(_mended(job, chosen, numbers))
    if not train:
        raise PipelineError(
            f"train {job.part}: there is no row to learn from; see what filter dropped, or whether the seeds have ground truth"
        )
    kept_back = list(_mended(job, kept, held_back))
    held_out = encoded(kept_back)
    if config.train.holdout and not held_out:
        raise PipelineError(
            f"train {job.part}: train.holdout={config.train.holdout:g} holds out none of its {len(train):,} rows; raise it, or set it to 0"
        )
    check_lengths([*train, *held_out], config.train.max_length)
    if arm.method == "kd":
        check_frames(taught, frames(job), tokenizer, vocab_size, vocabulary)
    return Rows(train, held_out, list({_seed_of(source).id: _seed_of(source) for source in kept_back}.values()), same, passed_over)


def is_held_out(seed_id: str, share: float) -> bool:
    """Whether a seed is among the share that is held out: by its id alone, whatever the run, the arm and the order."""
    return int(digest("held out", seed_id), 16) < share * 16**16


def training_seed(job: Job) -> int:
    """What decides the order of an arm's rows, and whatever else is drawn for it."""
    arm = job.config.train.arms[job.part]
    return job.config.train.seed if arm.seed is None else arm.seed


def draw(
    samples: Samples, numbers: Sequence[int], count: int, seed: int, is_usable: Callable[[Sample], bool] = lambda sample: True
) -> tuple[list[int], int]:
    """`count` of these samples, fewer only if there are no more, rising; and how many were passed over as not usable.

    A sample's place in the draw depends on its id and the seed alone, so a smaller draw lies in a larger one.
    """
    order = iter(sorted(numbers, key=lambda number: digest("drawn", seed, samples[number].id)))
    taken: list[int] = []
    tried = 0
    while batch := sorted(islice(order, count - len(taken))):  # in the order of the files, which are read by the shard
        taken += [number for number in batch if is_usable(samples[number])]
        tried += len(batch)
    return sorted(taken), tried - len(taken)


def samples(job: Job) -> Path:
    """The folder of the samples that arms learn from."""
    return job.run_dir / _ROWS[job.config.train.rows]


def frames(job: Job) -> Path:
    """The folder with the frames of those samples."""
    return job.run_dir / _FRAMES[job.config.train.rows]


def learnable(job: Job, drawn: bool) -> Path:
    """The folder of all samples that some arm may learn from; `drawn`: one draws from those too that were not kept."""
    return frames(job) if drawn else samples(job)


def _seed_of(source: Sample | Seed) -> Seed:
    return source if isinstance(source, Seed) else source.seed


def _sources(job: Job) -> Sources:
    """The samples that were kept, or the seeds whose ground truth is learned."""
    if job.config.train.arms[job.part].text == "truth":
        return [seed for seed in seeds.load(job.config.task.seeds) if seed.target is not None]
    return Samples(samples(job))


def _split(sources: Sources, holdout: float) -> tuple[list[int], list[int]]:
    """The numbers of those to learn from, and of those held out."""
    learned: list[int] = []
    held_out: list[int] = []
    for number in range(len(sources)):
        (held_out if is_held_out(_seed_of(sources[number]).id, holdout) else learned).append(number)
    return learned, held_out


def _chosen(job: Job, kept: Sources, learned: list[int], is_usable: Callable[[Sample], bool]) -> tuple[Sources, list[int], int]:
    """What an arm's selection and share leave: a folder, numbers in it, and how many samples a random draw passed over."""
    arm, seed = job.config.train.arms[job.part], training_seed(job)
    count = max(1, round(arm.share * len(learned)))
    if not isinstance(kept, Samples) or not learned:
        return kept, learned, 0
    if arm.selection == "random":
        everything = Samples(frames(job))
        leaked = {rejected.row for rejected in read_records(job.run_dir / "filter" / "rejected", Rejected) if rejected.reason in LEAKED}
        candidates = [number for number in _split(everything, job.config.train.holdout)[0] if number not in leaked]
        return everything, *draw(everything, candidates, count, seed, is_usable)
    return kept, *(draw(kept, learned, count, seed) if arm.share < 1 else (learned, 0))


def _is_usable(encoder: Encoder, sample: Sample, max_length: int) -> bool:
    """Whether a sample that no filter has seen can be learned from."""
    try:
        examples = encoder.sample(sample)
    except NoAnswerError:
        return False
    return all(len(example.input_ids) <= max_length and set(example.labels) != {IGNORED} for example in examples)


def _is_wrong(check: verifiers.Check, sample: Sample) -> bool:
    """What cannot be checked is not wrong."""
    try:
        return verifiers.verify(check, sample.answer, str(sample.seed.target)).value != 1.0
    except verifiers.UnknownError:
        return False


def _mended(job: Job, sources: Sources, numbers: Iterable[int]) -> Iterator[Sample | Seed]:
    """These sources; under `corrected` a seed stands in once for its samples that are wrong."""
    config, arm = job.config, job.config.train.arms[job.part]
    check, mended = verifiers.check(config.task), set()
    for number in numbers:
        source = sources[number]
        wrong = isinstance(source, Sample) and arm.corrected and source.seed.target is not None and _is_wrong(check, source)
        if not wrong:
            yield source
        elif _seed_of(source).id not in mended:
            mended.add(_seed_of(source).id)
            yield _seed_of(source)
