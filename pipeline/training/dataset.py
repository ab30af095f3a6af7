"""The training rows of an arm, and its validation split."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config import Arm, Config
from pipeline.data import prompts, seeds
from pipeline.data.encoding import (
    IGNORED,
    Encoder,
    Example,
    TeacherPrompts,
    check_frames,
    fitting,
    long_rows,
)
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import NoAnswerError, PipelineError, UnknownError
from pipeline.execution.paths import frames, samples
from pipeline.models.resolve import tokenizer_path
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
    """The rows of an arm.

    seeds: the held-out ones, each once.
    same_tokenizer: the teacher's token ids are the student's.
    passed_over: how many samples a random draw left out because they cannot be learned from.
    too_long: how many rows were left out for their length, and `long` says which.
    """

    train: list[Example]
    held_out: list[Example]
    seeds: list[Seed]
    same_tokenizer: bool
    passed_over: int = 0
    too_long: int = 0
    long: str | None = None


def load(config: Config, name: str, tokenizer: Tokenizer, vocab_size: int) -> Rows:
    """Load the rows that an arm is trained on, and those held out.

    Limit, share and selection apply to the training rows: all arms hold out the same ones. Raises
    PipelineError if there are none, or if one does not fit the student. `vocab_size` is the
    student's.
    """
    encoder = make_encoder(config, name, tokenizer)
    kept = _sources(config, name)
    learned, held_back = _split(kept, config.train.holdout)
    chosen, numbers, passed_over = _choose(config, name, encoder, kept, learned)
    train, taught = _encode_all(encoder, _corrected(config, name, chosen, numbers))
    validation = list(_corrected(config, name, kept, held_back))
    held_out, held_out_taught = _encode_all(encoder, validation)
    most = config.train.max_length
    long = long_rows([*train, *held_out], most)
    encoded = len(train) + len(held_out)
    train, held_out, taught = (fitting(rows, most) for rows in (train, held_out, taught))
    too_long = encoded - len(train) - len(held_out)
    if not train:
        raise PipelineError(
            f"train {name}: there is no row to learn from; see what filter dropped, or whether "
            "the seeds have ground truth"
        )
    if config.train.holdout and not held_out:
        raise PipelineError(
            f"train {name}: train.holdout={config.train.holdout:g} holds out none of its "
            f"{len(train):,} rows; raise it, or set it to 0"
        )
    train += canaries.rows(tokenizer, config.train.canaries, config.train.seed)
    if config.train.arms[name].method == "kd":
        taught += fitting(held_out_taught, most)
        check_frames(taught, frames(config), tokenizer, vocab_size, encoder.vocabulary)
    held_out_seeds = {_seed_of(source).id: _seed_of(source) for source in validation}
    answered = list(held_out_seeds.values())
    same = encoder.same_tokenizer
    return Rows(train, held_out, answered, same, passed_over, too_long, long)


def make_encoder(config: Config, name: str, tokenizer: Tokenizer) -> Encoder:
    """Return the encoder of an arm's rows."""
    arm = config.train.arms[name]
    is_own_text = arm.text == "truth" and not arm.white_box
    same = is_own_text or checks.shares_vocabulary(config, name, tokenizer)
    return Encoder(
        tokenizer,
        prompts.load(config.train.prompt),
        same,
        arm.form,
        arm.rationale_weight,
        Vocabulary.read(tokenizer.name),
        _teacher_prompts(config, arm) if arm.white_box else None,
        config.task.metric,
    )


def _teacher_prompts(config: Config, arm: Arm) -> TeacherPrompts:
    """Return the prompts of a live teacher: those of the samples, or for truth the config's."""
    stored = prompts.stored_files(frames(config)) if arm.text == "teacher" else []
    tokenizer = Tokenizer(tokenizer_path(config.teacher), config.teacher.revision)
    return TeacherPrompts(tokenizer, [*map(prompts.load, stored or config.generate.prompt)])


def sample_rows(
    config: Config,
    name: str,
    encoder: Encoder,
    count: int,
    seed: int,
    is_wanted: Callable[[Example], bool],
) -> tuple[list[Example], list[Example]]:
    """Draw at most `count` wanted rows that an arm was trained on, and as many that it was not.

    The latter are of seeds that were held out, or beyond the arm's limit or share. The longest row
    of a sample stands for it.
    """
    kept = _sources(config, name)
    learned = _split(kept, config.train.holdout)[0]
    chosen, numbers, _ = _choose(config, name, encoder, kept, learned)
    known = {_seed_of(chosen[number]).id for number in numbers}
    others = [number for number in range(len(kept)) if _seed_of(kept[number]).id not in known]

    def has_wanted(source: Sample | Seed) -> bool:
        return any(map(is_wanted, examples(encoder, source)))

    def drawn(sources: Sources, candidates: Sequence[int]) -> list[Example]:
        taken = draw(sources, candidates, count, seed, has_wanted)[0]
        longest = []
        for source in _corrected(config, name, sources, taken):
            rows = examples(encoder, source)
            if rows:
                longest.append(max(rows, key=lambda row: len(row.input_ids)))
        return [row for row in longest if is_wanted(row)]

    return drawn(chosen, numbers), drawn(kept, others)


def examples(encoder: Encoder, source: Sample | Seed) -> list[Example]:
    """Return the rows of a sample or of a seed's ground truth. There are none where the form asks
    for an answer that cannot be read."""
    try:
        return _encode(encoder, source)
    except NoAnswerError:
        return []


def is_held_out(seed_id: str, share: float) -> bool:
    """Return whether a seed is in the validation split of this share. It depends on the id alone,
    so it is the same in every run and arm."""
    return int(digest("held out", seed_id), 16) < share * 16**16


def training_seed(config: Config, name: str) -> int:
    """Return the random seed of an arm: of the order of its rows, and of every other draw."""
    arm = config.train.arms[name]
    return config.train.seed if arm.seed is None else arm.seed


def draw(
    samples: Sources,
    numbers: Sequence[int],
    count: int,
    seed: int,
    is_usable: Callable[[Any], bool] = lambda source: True,
) -> tuple[list[int], int]:
    """Draw `count` usable samples or seeds, or all if there are fewer. Returns their numbers in
    rising order, and how many were passed over as not usable.

    The order of the draw depends on the ids and the random seed alone, so a larger draw contains a
    smaller one.
    """
    order = iter(sorted(numbers, key=lambda number: digest("drawn", seed, samples[number].id)))
    taken: list[int] = []
    tried = 0
    # each batch is sorted because samples are read from their files by the shard
    while batch := sorted(islice(order, count - len(taken))):
        taken += [number for number in batch if is_usable(samples[number])]
        tried += len(batch)
    return sorted(taken), tried - len(taken)


def _seed_of(source: Sample | Seed) -> Seed:
    return source if isinstance(source, Seed) else source.seed


def _encode(encoder: Encoder, source: Sample | Seed) -> list[Example]:
    if isinstance(source, Seed):
        return encoder.encode_target(source)
    return encoder.encode_sample(source)


def _encode_all(
    encoder: Encoder, sources: Iterable[Sample | Seed]
) -> tuple[list[Example], list[Example]]:
    """Return all rows, and those of the teacher's samples, which have frames."""
    rows: list[Example] = []
    taught: list[Example] = []
    for source in sources:
        encoded = _encode(encoder, source)
        rows += encoded
        if isinstance(source, Sample):
            taught += encoded
    return rows, taught


def _sources(config: Config, name: str) -> Sources:
    """Return the samples that were kept, or the seeds whose ground truth is learned."""
    if config.train.arms[name].text == "truth":
        return [seed for seed in seeds.load(config.task.seeds) if seed.target is not None]
    return Samples(samples(config))


def _split(sources: Sources, holdout: float) -> tuple[list[int], list[int]]:
    """Return the numbers of the sources to learn from, and of those held out."""
    learned: list[int] = []
    held_out: list[int] = []
    for number in range(len(sources)):
        (held_out if is_held_out(_seed_of(sources[number]).id, holdout) else learned).append(number)
    return learned, held_out


def _choose(
    config: Config, name: str, encoder: Encoder, kept: Sources, learned: list[int]
) -> tuple[Sources, list[int], int]:
    """Apply an arm's limit, selection and share. Returns sources, the numbers chosen among them,
    and how many samples a random draw passed over."""
    arm = config.train.arms[name]
    learned = learned[: arm.limit]
    count = max(1, round(arm.share * len(learned)))
    if not isinstance(kept, Samples) or not learned:
        return kept, learned, 0
    if arm.selection == "random":
        return _choose_unfiltered(config, name, encoder, count)
    if arm.share < 1:
        return kept, *draw(kept, learned, count, training_seed(config, name))
    return kept, learned, 0


def _choose_unfiltered(
    config: Config, name: str, encoder: Encoder, count: int
) -> tuple[Samples, list[int], int]:
    """Draw from all samples, kept or not, except those that leak an evaluation input."""
    train = config.train
    everything = Samples(frames(config))
    rejections = read_records(Path(config.run_dir) / "filter" / "rejected", Rejected)
    leaked = {rejected.row for rejected in rejections if rejected.reason in LEAKED}
    learned = _split(everything, train.holdout)[0]
    candidates = [number for number in learned if number not in leaked]

    def is_usable(sample: Sample) -> bool:
        rows = examples(encoder, sample)
        return bool(rows) and all(
            len(row.input_ids) <= train.max_length and set(row.labels) != {IGNORED} for row in rows
        )

    return everything, *draw(everything, candidates, count, training_seed(config, name), is_usable)


def _is_wrong(check: verify.CheckSettings, sample: Sample) -> bool:
    """Return whether the answer is wrong; one that cannot be checked is not."""
    if sample.seed.target is None:
        return False
    try:
        return verify.verify(check, sample.answer, str(sample.seed.target)).value != 1.0
    except UnknownError:
        return False


def _corrected(
    config: Config, name: str, sources: Sources, numbers: Iterable[int]
) -> Iterator[Sample | Seed]:
    """Yield these sources. In an arm with `corrected`, the ground truth of a seed takes the place
    of its wrong samples, once."""
    arm = config.train.arms[name]
    check = verify.load_check(config.task)
    corrected = set()
    for number in numbers:
        source = sources[number]
        seed = _seed_of(source)
        if not (arm.corrected and isinstance(source, Sample) and _is_wrong(check, source)):
            yield source
        elif seed.id not in corrected:
            corrected.add(seed.id)
            yield seed
