"""Token ids that a cut student is healed on: the teacher's replies, the inputs, or any text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import prompts, seeds, texts
from pipeline.errors import PipelineError
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Rendered
from pipeline.storage.samples import Samples

KEY = "student.heal.text"
HELD_OUT_ROWS = 32  # at most, and at most a tenth of the rows
BLOCK = 1 << 14  # samples that are read in one pass over their files

Ids = NDArray[np.int32]
Row = tuple[str, Ids]  # rows of the same name are held out together


@dataclass(frozen=True)
class Text:
    """Rows of token ids (T,), in the student's own ids."""

    train: list[Ids]
    held_out: list[Ids]

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one pass."""
        return sum(map(len, self.train))


def check(config: Config) -> None:
    """Raise PipelineError if a path in student.heal.text has no text."""
    heal = config.student.heal
    if heal and heal.path:
        texts.check(heal.path, KEY)


def files(config: Config) -> list[Path]:
    """Return the files of text outside of the run."""
    heal = config.student.heal
    return texts.files(heal.path) if heal and heal.path else []


def load(config: Config, tokenizer: Tokenizer) -> Text:
    """Read as much text as is learned, in a random order that train.seed decides.

    Raises PipelineError if there is too little to hold out any.
    """
    heal = config.student.heal
    assert heal
    random = np.random.default_rng(config.train.seed)
    sources = {"samples": _samples, "inputs": _inputs}
    rows = list(_up_to(sources.get(heal.text, _texts)(config, tokenizer, random), heal.tokens))
    names = sorted({name for name, _ in rows})
    if len(names) < 2:
        raise PipelineError(
            f"{KEY}: {heal.text} has {len(names)} texts to learn from, and one is held out to "
            "measure; give more text"
        )
    random.shuffle(names)
    wanted = min(HELD_OUT_ROWS, max(1, len(names) // 10))
    held_out = set(names[:wanted])
    return Text(
        [ids for name, ids in rows if name not in held_out],
        [ids for name, ids in rows if name in held_out],
    )


def _up_to(rows: Iterator[Row], tokens: int) -> Iterator[Row]:
    """Yield rows until they have `tokens` and those that are held out besides."""
    total = count = 0
    for name, ids in rows:
        yield name, ids
        total, count = total + len(ids), count + 1
        if total * (1 - HELD_OUT_ROWS / count) >= tokens:
            return


def _samples(config: Config, tokenizer: Tokenizer, random: np.random.Generator) -> Iterator[Row]:
    """Yield the prompt with each reply, then the prompts of inputs without a reply."""
    prompt = prompts.load(config.train.prompt)
    samples = Samples(Path(config.run_dir) / "generate")
    answered = set()
    order = random.permutation(len(samples)).tolist()
    for first in range(0, len(order), BLOCK):
        numbers = order[first : first + BLOCK]
        read = {number: samples[number] for number in sorted(numbers)}
        for sample in map(read.__getitem__, numbers):
            answered.add(sample.seed.id)
            rendered = prompt.render(sample.seed, tokenizer.control_tokens)
            ids = [*tokenizer.encode(rendered), *tokenizer.encode_reply(sample.text)]
            yield from _pieces(sample.seed.id, ids, config)
    rows = _inputs(config, tokenizer, random)
    yield from (row for row in rows if row[0] not in answered)


def _inputs(config: Config, tokenizer: Tokenizer, random: np.random.Generator) -> Iterator[Row]:
    prompt = prompts.load(config.train.prompt)
    examples = seeds.load(config.task.seeds)
    for number in random.permutation(len(examples)):
        seed = examples[number]
        ids = tokenizer.encode(prompt.render(seed, tokenizer.control_tokens))
        yield from _pieces(seed.id, ids, config)


def _texts(config: Config, tokenizer: Tokenizer, random: np.random.Generator) -> Iterator[Row]:
    """Yield the pieces of all texts, from the first file on."""
    assert config.student.heal
    for number, text in enumerate(texts.read(config.student.heal.text)):
        ids = tokenizer.encode(Rendered(None, text))
        for place, (_, piece) in enumerate(_pieces("", ids, config)):
            yield f"{number} {place}", piece


def _pieces(name: str, ids: list[int], config: Config) -> Iterator[Row]:
    """Cut a text into rows of at most train.max_length tokens."""
    length = config.train.max_length
    for first in range(0, len(ids), length):
        yield name, np.array(ids[first : first + length], np.int32)
