"""What an arm learns from, and what is held out of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.data import prompts, seeds
from pipeline.data.encoding import (
    IGNORED,
    Encoder,
    Example,
    check_frames,
    check_lengths,
)
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import NoAnswerError, PipelineError, UnknownError
from pipeline.execution.paths import frames, samples
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import LEAKED, Rejected, Sample, Seed, digest
from pipeline.storage.samples import Samples
from pipeline.storage.shards import read_records
from pipeline.students import checks
from pipeline.training import canaries
from pipeline.verifiers import verify

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


def load(config: Config, name: str, tokenizer: Tokenizer, vocab_size: int) -> Rows:
    """What is learned from, and what is held out. Limit, share and selection are of what is learned from: all arms hold out the same."""
    arm = config.train.arms[name]
    encoder = make_encoder(config, name, tokenizer)
    taught: list[Example] = []

    def encoded(sources: Iterable[Sample | Seed]) -> list[Example]:
        found: list[Example] = []
        for source in sources:
            made = (
                encoder.encode_target(source)
                if isinstance(source, Seed)
                else encoder.encode_sample(source)
            )
            found += made
            taught.extend(made if isinstance(source, Sample) else ())
        return found

    kept = _sources(config, name)
    learned, held_back = _split(kept, config.train.holdout)
    chosen, numbers, passed_over = _chosen(config, name, encoder, kept, learned)
    train = encoded(_mended(config, name, chosen, numbers))
    if not train:
        raise PipelineError(
            f"train {name}: there is no row to learn from; see what filter dropped, or whether the seeds have ground truth"
        )
    kept_back = list(_mended(config, name, kept, held_back))
    held_out = encoded(kept_back)
    if config.train.holdout and not held_out:
        raise PipelineError(
            f"train {name}: train.holdout={config.train.holdout:g} holds out none of its {len(train):,} rows; raise it, or set it to 0"
        )
    train += canaries.rows(tokenizer, config.train.canaries, config.train.seed)
    check_lengths([*train, *held_out], config.train.max_length)
    if arm.method == "kd":
        check_frames(taught, frames(config), tokenizer, vocab_size, encoder.vocabulary)
    held_back_seeds = list({_seed_of(source).id: _seed_of(source) for source in kept_back}.values())
    return Rows(train, held_out, held_back_seeds, encoder.same_tokenizer, passed_over)


def make_encoder(config: Config, name: str, tokenizer: Tokenizer) -> Encoder:
    """What makes an arm's rows."""
    arm = config.train.arms[name]
    same = arm.text == "truth" or checks.check_vocabulary(config, name, tokenizer)
    return Encoder(
        tokenizer,
        prompts.load(config.train.prompt),
        same,
        arm.form,
        arm.rationale_weight,
        Vocabulary.read(tokenizer.name),
    )


def sample_rows(
    config: Config,
    name: str,
    encoder: Encoder,
    count: int,
    seed: int,
    is_wanted: Callable[[Example], bool],
) -> tuple[list[Example], list[Example]]:
    """Up to `count` rows that an arm has learned from, and as many that it could have learned from and has not: of seeds that were held
    out, or beyond its limit or share. Drawn by `seed` from those that are wanted; the longest row of a sample stands for it."""
    kept = _sources(config, name)
    chosen, numbers, _ = _chosen(config, name, encoder, kept, _split(kept, config.train.holdout)[0])
    known = {_seed_of(chosen[number]).id for number in numbers}
    others = [number for number in range(len(kept)) if _seed_of(kept[number]).id not in known]

    def drawn(sources: Sources, among: Sequence[int]) -> list[Example]:
        taken = draw(
            sources,
            among,
            count,
            seed,
            lambda source: any(map(is_wanted, examples(encoder, source))),
        )[0]
        rows = [examples(encoder, source) for source in _mended(config, name, sources, taken)]
        return [
            row
            for row in (max(row, key=lambda one: len(one.input_ids)) for row in rows if row)
            if is_wanted(row)
        ]

    return drawn(chosen, numbers), drawn(kept, others)


def examples(encoder: Encoder, source: Sample | Seed) -> list[Example]:
    """The rows of a sample or of a seed's ground truth; none where the form asks for an answer and there is none."""
    try:
        return (
            encoder.encode_target(source)
            if isinstance(source, Seed)
            else encoder.encode_sample(source)
        )
    except NoAnswerError:
        return []


def is_held_out(seed_id: str, share: float) -> bool:
    """Whether a seed is among the share that is held out: by its id alone, whatever the run, the arm and the order."""
    return int(digest("held out", seed_id), 16) < share * 16**16


def training_seed(config: Config, name: str) -> int:
    """What decides the order of an arm's rows, and whatever else is drawn for it."""
    arm = config.train.arms[name]
    return config.train.seed if arm.seed is None else arm.seed


def draw(
    samples: Sources,
    numbers: Sequence[int],
    count: int,
    seed: int,
    is_usable: Callable[[Any], bool] = lambda source: True,
) -> tuple[list[int], int]:
    """`count` of these samples or seeds, fewer only if there are no more, rising; and how many were passed over as not usable.

    A sample's place in the draw depends on its id and the seed alone, so a smaller draw lies in a larger one.
    """
    order = iter(sorted(numbers, key=lambda number: digest("drawn", seed, samples[number].id)))
    taken: list[int] = []
    tried = 0
    while batch := sorted(
        islice(order, count - len(taken))
    ):  # in the order of the files, which are read by the shard
        taken += [number for number in batch if is_usable(samples[number])]
        tried += len(batch)
    return sorted(taken), tried - len(taken)


def _seed_of(source: Sample | Seed) -> Seed:
    return source if isinstance(source, Seed) else source.seed


def _sources(config: Config, name: str) -> Sources:
    """The samples that were kept, or the seeds whose ground truth is learned."""
    if config.train.arms[name].text == "truth":
        return [seed for seed in seeds.load(config.task.seeds) if seed.target is not None]
    return Samples(samples(config))


def _split(sources: Sources, holdout: float) -> tuple[list[int], list[int]]:
    """The numbers of those to learn from, and of those held out."""
    learned: list[int] = []
    held_out: list[int] = []
    for number in range(len(sources)):
        (held_out if is_held_out(_seed_of(sources[number]).id, holdout) else learned).append(number)
    return learned, held_out


def _chosen(
    config: Config, name: str, encoder: Encoder, kept: Sources, learned: list[int]
) -> tuple[Sources, list[int], int]:
    """What an arm's selection and share leave: a folder, numbers in it, and how many samples a random draw passed over."""
    arm, seed = config.train.arms[name], training_seed(config, name)
    learned = learned[: arm.limit]
    count = max(1, round(arm.share * len(learned)))
    if not isinstance(kept, Samples) or not learned:
        return kept, learned, 0
    if arm.selection == "random":
        everything = Samples(frames(config))
        leaked = {
            rejected.row
            for rejected in read_records(Path(config.run_dir) / "filter" / "rejected", Rejected)
            if rejected.reason in LEAKED
        }
        candidates = [
            number for number in _split(everything, config.train.holdout)[0] if number not in leaked
        ]
        longest = config.train.max_length
        return everything, *draw(
            everything, candidates, count, seed, lambda sample: _is_usable(encoder, sample, longest)
        )
    return kept, *(draw(kept, learned, count, seed) if arm.share < 1 else (learned, 0))


def _is_usable(encoder: Encoder, sample: Sample, max_length: int) -> bool:
    """Whether a sample that no filter has seen can be learned from."""
    made = examples(encoder, sample)
    return bool(made) and all(
        len(example.input_ids) <= max_length and set(example.labels) != {IGNORED}
        for example in made
    )


def _is_wrong(check: verify.Check, sample: Sample) -> bool:
    """What cannot be checked is not wrong."""
    try:
        return verify.verify(check, sample.answer, str(sample.seed.target)).value != 1.0
    except UnknownError:
        return False


def _mended(
    config: Config, name: str, sources: Sources, numbers: Iterable[int]
) -> Iterator[Sample | Seed]:
    """These sources; under `corrected` a seed stands in once for its samples that are wrong."""
    arm = config.train.arms[name]
    check, mended = verify.load_check(config.task), set()
    for number in numbers:
        source = sources[number]
        wrong = (
            isinstance(source, Sample)
            and arm.corrected
            and source.seed.target is not None
            and _is_wrong(check, source)
        )
        if not wrong:
            yield source
        elif _seed_of(source).id not in mended:
            mended.add(_seed_of(source).id)
            yield _seed_of(source)
