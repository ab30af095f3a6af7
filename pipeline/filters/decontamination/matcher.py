"""Held-out texts, and where other texts hold one of them word by word or nearly so.

By an item's length in words:
  1 or 2   all inputs of a prompt are the item (so a label such as "spam" in a reply is nothing)
  3, 4     or it is a sentence of its own in the inputs
  5 to 13  or it stands anywhere
  8 to     or it stands anywhere with some words changed, but no number
  14 to    or 13 of its words in a row do that no other held-out text has

Another number in the place of a number makes another item, and so does, where items are made by a template, another word in a slot.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.decontamination.alignment import Alignment, Weights, align, window
from pipeline.filters.decontamination.ngram_index import Rivals, Runs, Spelled
from pipeline.filters.decontamination.words import is_sentence, number, placed, units, words

RUN = 13  # words in a row that tell which longer text they are from (Brown et al. 2020, appendix C)
ANYWHERE, SENTENCE, CHANGED = (
    5,
    3,
    8,
)  # least words of an item that is found anywhere, as a sentence of the inputs, with changes
PIECE, STEP = (
    200,
    150,
)  # words of a long text that are looked for together, and from one such piece to the next
POSTED = 0.75  # share of an item's weight by which it is looked up
FLOOR = 0.6  # least score, and share of words, that is told of
TRIED = 8  # items that one text is laid beside
COPY = 0.85  # held-out items this near are copies of one another and not siblings
MARGIN = 0.04  # what a copy must be nearer by than a sibling
NEARLY = 0.999
FRAME, TEMPLATE = (
    0.75,
    0.05,
)  # an item is made by a template if it shares so many of its words, numbers aside, with so many of the items
FAMILY, SAMPLED = (
    4,
    500,
)  # least items of a template, the item itself among them; how many are looked at
SLOT = 0.25  # most items that may have a word for it to be what fills a slot
BESIDE = 60  # characters beside a hit in which a list goes on
GOES_ON = re.compile(r"\W*(?:,|\band\b|&)\W*(?:\w+\s+)?\d")
WENT_BEFORE = re.compile(r"\d\s*\w*\s*(?:,|,?\s*\band|&)\s*$")


@dataclass(frozen=True)
class Text:
    """What may hold a held-out text. `inputs`: it is all inputs of a prompt, so that the whole of it may be one."""

    text: str
    inputs: bool = False

    @cached_property
    def words(self) -> list[str]:
        return words(self.text)

    @cached_property
    def held(self) -> frozenset[str]:
        return frozenset(self.words)


@dataclass(frozen=True)
class Hit:
    """Words `first` to `last` - 1 of a text are an item's; the score is 1 where they are its very words."""

    score: float
    item: int
    first: int
    last: int

    def span(self, text: Text) -> str:
        """What stands there, on one line."""
        start, end = _characters(text, self)
        return " ".join(text.text[start:end].split())


class Index:
    """Held-out items, each a name and a text, ready to be looked for. Equal wordings count once, under their first name."""

    def __init__(self, items: Iterable[tuple[str, str]]):
        named: dict[tuple[str, ...], str] = {}
        for name, text in items:
            for piece in _pieces(words(text)):
                named.setdefault(piece, name)
        self.items, self.names = list(named), list(named.values())
        self.sizes = [units(item) for item in self.items]
        self.weights = Weights(self.items)
        templated, self._slots = _templates(self.items)
        self._filled = [
            _filled(item, self._slots) if made else frozenset()
            for item, made in zip(self.items, templated, strict=True)
        ]
        self._numbers = {word: place for place, word in enumerate(self.weights)}
        self._runs = Runs(list(self._tell_tale()), len(self._numbers))
        self._least = [FLOOR] * len(self.items)
        self._rivals = self._lookup()
        self._least = self._alike()
        self._rivals = self._lookup()

    def find(self, texts: Sequence[Text]) -> list[Hit | None]:
        """In each text what it holds verbatim, or else what it comes nearest to: by `FLOOR`, and nearer than the item's siblings are."""
        numbers = self._spelled([text.words for text in texts])
        found: list[Hit | None] = [None] * len(texts)
        tried: set[tuple[int, int]] = set()
        for row, item, first, length in self._runs.find(numbers):
            part = length < len(self.items[item])
            if found[row] is None and (row, item) not in tried:
                found[row] = (
                    self._run(texts[row], item, first)
                    if part
                    else self._whole(texts[row], item, first)
                )
                tried |= {(row, item)} if part else set()
        for row, rivals in self._rivals.find(numbers, TRIED):
            if found[row] is None:
                hits = [hit for item in rivals if (hit := self._near(texts[row], item)) is not None]
                found[row] = max(hits, key=lambda hit: hit.score, default=None)
        return found

    def _whole(self, text: Text, item: int, first: int) -> Hit | None:
        """All words of an item, if it counts where it stands."""
        hit = Hit(1.0, item, first, first + len(self.items[item]))
        size = self.sizes[item]
        if text.inputs and len(text.words) == len(self.items[item]):
            return hit
        if size < ANYWHERE and not (
            size >= SENTENCE and text.inputs and is_sentence(text.text, *_characters(text, hit))
        ):
            return None
        return None if self._listed(text, hit) else hit

    def _run(self, text: Text, item: int, first: int) -> Hit | None:
        """A long run of an item's words, unless the item is one of a template, most of which is in every other."""
        wanted, spelled = self.items[item], text.words
        for at in range(max(0, first - len(wanted) + RUN), first + 1):
            if tuple(spelled[at : at + len(wanted)]) == wanted:
                return self._whole(text, item, at)
        begin = max(0, first - len(wanted))
        found = self._align(spelled[begin : first + len(wanted) + RUN], item)
        if found is None or found.contradicts:
            return None
        if self._filled[item] or units(wanted[found.run]) < RUN:
            return None
        hit = Hit(1.0, item, begin + found.first, begin + found.last)
        return None if self._listed(text, hit) else hit

    def _near(self, text: Text, item: int) -> Hit | None:
        """An item with a few words changed, and no number."""
        wanted, least = self.items[item], self._least[item]
        if not self._filled[item] <= text.held:
            return None
        if self.weights.of(word for word in wanted if word in text.held) < least * self.weights.of(
            wanted
        ):
            return None
        part = window(wanted, text.words, self.weights)
        found = self._align(text.words[part], item)
        if found is None or found.contradicts or found.score < least or found.shared < FLOOR:
            return None
        score = 1.0 if found.run == slice(0, len(wanted)) else min(found.score, NEARLY)
        hit = Hit(score, item, part.start + found.first, part.start + found.last)
        return None if self._listed(text, hit) else hit

    def _align(self, spelled: Sequence[str], item: int) -> Alignment | None:
        return align(
            self.items[item],
            spelled,
            self.weights,
            self._slots if self._filled[item] else frozenset(),
        )

    def _listed(self, text: Text, hit: Hit) -> bool:
        """Is it but a part of a list of numbers and things, which asks something else as a whole?"""
        if not number(self.items[hit.item]):
            return False
        start, end = _characters(text, hit)
        before, after = text.text[max(0, start - BESIDE) : start], text.text[end - 1 : end + BESIDE]
        return bool(
            GOES_ON.match(after)
            or GOES_ON.match(after, 1)
            or WENT_BEFORE.search(" ".join(before.split()))
        )

    def _alike(self) -> list[float]:
        """The least score of a copy of each item: more than of its nearest sibling, for that near are different items of this task."""
        least = [FLOOR] * len(self.items)
        texts = [Text(" ".join(item)) for item in self.items]
        for text, rivals in self._rivals.find(self._spelled(self.items), TRIED):
            for item in rivals:
                hit = (
                    self._near(texts[text], item) if self.names[item] != self.names[text] else None
                )
                if hit is not None and hit.score < COPY:
                    least[item] = max(least[item], hit.score + MARGIN)
        return least

    def _tell_tale(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Short items as they are, and of a longer one the runs of words that no other name has."""
        names: dict[tuple[str, ...], set[str]] = {}
        for item, name in zip(self.items, self.names, strict=True):
            for run in _runs(item):
                names.setdefault(run, set()).add(name)
        taken = set()
        for place, item in sorted(enumerate(self.items), key=lambda entry: len(entry[1])):
            for run in _runs(item):
                if run not in taken and (len(item) <= RUN or len(names[run]) == 1):
                    taken.add(run)
                    yield tuple(self._numbers[word] for word in run), place

    def _spelled(self, texts: Iterable[Sequence[str]]) -> Spelled:
        get, ends = self._numbers.get, []
        ids: list[int] = []
        for text in texts:
            ids += [get(word, -1) for word in text]
            ends.append(len(ids))
        return Spelled(np.array(ids, np.int64), np.array(ends, np.int64))

    def _lookup(self) -> Rivals:
        """By all words, an item of a template by what fills its slots."""
        weighed: list[dict[int, float]] = []
        for item, size, filled in zip(self.items, self.sizes, self._filled, strict=True):
            counts = Counter(
                word for word in item if size >= CHANGED and (not filled or word in filled)
            )
            weighed.append(
                {self._numbers[word]: count * self.weights[word] for word, count in counts.items()}
            )
        least = [
            1.0 if filled else least
            for least, filled in zip(self._least, self._filled, strict=True)
        ]
        return Rivals(weighed, len(self._numbers), POSTED, least)


def _filled(item: Sequence[str], slots: frozenset[str]) -> frozenset[str]:
    """What an item of a template says in its slots; with anything else in them it is another item."""
    return frozenset(word for word in item if word in slots or number([word]))


def _templates(items: Sequence[Sequence[str]]) -> tuple[NDArray[np.bool_], frozenset[str]]:
    """Which items are made by a template, and the words that fill its slots: neither of one item alone nor of the template."""
    held = Counter(word for item in items for word in dict.fromkeys(item))
    masked = [Counter("#" if number([word]) else word for word in item) for item in items]
    usual = [
        word
        for word, count in Counter(word for item in masked for word in item).items()
        if count >= TEMPLATE * len(items)
    ]
    counts = np.array([[item[word] for word in usual] for item in masked], np.float32).reshape(
        len(items), -1
    )
    some = counts[:: max(1, len(items) // SAMPLED)]
    alike = counts @ (some > 0).T >= FRAME * np.array([[max(1, len(item))] for item in items])
    slots = frozenset(word for word, count in held.items() if 1 < count <= SLOT * len(items))
    return alike.sum(1) >= max(FAMILY, TEMPLATE * len(some)), slots


def _pieces(spelled: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, max(1, len(spelled) - (PIECE - STEP)), STEP):
        if spelled[start:]:
            yield tuple(spelled[start : start + PIECE])


def _runs(item: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (item[at : at + RUN] for at in range(max(1, len(item) - RUN + 1)))


def _characters(text: Text, hit: Hit) -> tuple[int, int]:
    """Where in the text the hit begins and ends."""
    pieces = placed(text.text)[hit.first : hit.last]
    return (pieces[0][1], pieces[-1][2]) if pieces else (0, len(text.text))
