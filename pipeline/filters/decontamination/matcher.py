"""Find held-out texts in other texts, verbatim or with a few words changed.

What counts depends on an item's length in words:
  1 or 2   if it is all inputs of a prompt (so a label such as "spam" in a reply does not count)
  3, 4     or if it is a sentence of its own in the inputs
  5 to 13  or if it occurs anywhere
  8 to     or if it occurs anywhere with some words changed, but no number
  14 to    or if 13 of its words in a row occur that no other held-out text has, and of these
           words at least 5 are its own

A word that a tenth of the texts has (an instruction, a list of options) is not an item's own.

An item with another number is another item. Where items are made by a template, so is one with
another word in a slot.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.decontamination.alignment import (
    LIGHTEST,
    Alignment,
    Weights,
    align,
    window,
)
from pipeline.filters.decontamination.ngram_index import CandidateIndex, EncodedTexts, RunIndex
from pipeline.filters.decontamination.words import (
    is_sentence,
    length_in_words,
    numbers_in,
    words,
    words_with_spans,
)

OWN = 5  # least words of such a run that are the item's own
FEW = 30  # names; fewer cannot tell what the task's texts share
COMMON, COMMON_TEXTS = 0.1, 3  # share of the texts, and number, from which on a word is common
RUN = 13  # words in a row that identify a longer text (Brown et al. 2020, appendix C)
# least words of an item that is found anywhere, as a sentence of the inputs, with changes
ANYWHERE, SENTENCE, CHANGED = 5, 3, 8
# words of a piece of a long text that is searched for; words between the starts of two pieces
PIECE, STEP = 200, 150
POSTED = 0.75  # share of an item's weight by which it is looked up
FLOOR = 0.6  # least score, and least share of words, of a hit
TRIED = 8  # items that one text is aligned with
COPY = 0.85  # held-out items this near are copies of one another and not siblings
MARGIN = 0.04  # what a copy must be nearer by than a sibling
NEARLY = 0.999
# an item is made by a template if it shares this share of its words, except numbers, with this
# share of the items, and with so many at least (itself among them); so many items are looked at
FRAME, TEMPLATE, FAMILY, SAMPLED = 0.75, 0.05, 4, 500
SLOT = 0.25  # a word fills a slot if at most this share of the items has it
BESIDE = 60  # characters beside a hit in which a list goes on
GOES_ON = re.compile(r"\W*(?:,|\band\b|&)\W*(?:\w+\s+)?\d")
WENT_BEFORE = re.compile(r"\d\s*\w*\s*(?:,|,?\s*\band|&)\s*$")

Item = tuple[str, ...]  # its words


@dataclass(frozen=True)
class Text:
    """A text to search. `inputs`: it is all inputs of a prompt, so all of it may be one item."""

    text: str
    inputs: bool = False

    @cached_property
    def words(self) -> list[str]:
        """The words of the text."""
        return words(self.text)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The distinct words of the text."""
        return frozenset(self.words)


@dataclass(frozen=True)
class Hit:
    """Words `first` to `last` - 1 of a text are an item's; the score is 1 if they are verbatim."""

    score: float
    item: int
    first: int
    last: int

    def excerpt(self, text: Text) -> str:
        """Return the text of the hit, on one line."""
        start, end = _characters(text, self)
        return " ".join(text.text[start:end].split())


class Index:
    """Held-out items, each a name and a text; of items with equal words the first counts.

    `shared` are words that many training examples have. What is made of them is no contamination,
    also where there are too few items to tell.
    """

    def __init__(self, items: Iterable[tuple[str, str]], shared: Iterable[str] = ()):
        named: dict[Item, str] = {}
        for name, text in items:
            for piece in _pieces(words(text)):
                named.setdefault(piece, name)
        self.items, self.names = list(named), list(named.values())
        self.sizes = [length_in_words(item) for item in self.items]
        self.weights = Weights(self.items)
        named_words: dict[str, set[str]] = {}
        for item, name in zip(self.items, self.names, strict=True):
            named_words.setdefault(name, set()).update(item)
        known = frozenset(shared)
        self._judged_by_own = bool(known) and len(named_words) < FEW
        self._common = known | common_words(list(named_words.values()))
        if self._judged_by_own:  # too few names for weights by frequency
            for word in self.weights:
                self.weights[word] = LIGHTEST if word in self._common else self.weights.most
        templated, self._slots = _templates(self.items)
        self._fillers = [frozenset[str]()] * len(self.items)
        for number in np.flatnonzero(templated).tolist():
            self._fillers[number] = _fillers(self.items[number], self._slots)
        self._word_ids = {word: number for number, word in enumerate(self.weights)}
        self._runs = RunIndex(list(self._identifying_runs()), len(self._word_ids))
        self._least = [FLOOR] * len(self.items)
        self._candidates = self._candidate_index()
        self._least = self._least_scores()
        self._candidates = self._candidate_index()

    def find(self, texts: Sequence[Text]) -> list[Hit | None]:
        """Return what each text holds verbatim, or else the item that it is nearest to.

        A near hit scores `FLOOR` at least, and more than the item's siblings do.
        """
        encoded = self._encode([text.words for text in texts])
        hits: list[Hit | None] = [None] * len(texts)
        tried: set[tuple[int, int]] = set()
        for row, item, first, length in self._runs.find(encoded):
            if hits[row] is not None or (row, item) in tried:
                continue
            if length == len(self.items[item]):
                hits[row] = self._whole_hit(texts[row], item, first)
            else:
                hits[row] = self._run_hit(texts[row], item, first)
                tried.add((row, item))
        for row, candidates in self._candidates.find(encoded, TRIED):
            if hits[row] is None:
                near = [self._near_hit(texts[row], item) for item in candidates]
                hits[row] = max(filter(None, near), key=lambda hit: hit.score, default=None)
        return hits

    def _whole_hit(self, text: Text, item: int, first: int) -> Hit | None:
        """Return the hit of an item verbatim, if it counts at this place."""
        hit = Hit(1.0, item, first, first + len(self.items[item]))
        if text.inputs and len(text.words) == len(self.items[item]):
            return hit
        if self.sizes[item] < ANYWHERE:
            may_be_sentence = self.sizes[item] >= SENTENCE and text.inputs
            if not may_be_sentence or not is_sentence(text.text, *_characters(text, hit)):
                return None
        return None if self._is_in_list(text, hit) else hit

    def _run_hit(self, text: Text, item: int, first: int) -> Hit | None:
        """Return the hit of a long run of an item's words.

        None for an item of a template, most of which every other item has, too.
        """
        wanted, spelled = self.items[item], text.words
        for start in range(max(0, first - len(wanted) + RUN), first + 1):
            if tuple(spelled[start : start + len(wanted)]) == wanted:
                return self._whole_hit(text, item, start)
        begin = max(0, first - len(wanted))
        alignment = self._align(spelled[begin : first + len(wanted) + RUN], item)
        if alignment is None or alignment.contradicts:
            return None
        if self._fillers[item] or length_in_words(wanted[alignment.run]) < RUN:
            return None
        hit = Hit(1.0, item, begin + alignment.first, begin + alignment.last)
        return None if self._is_in_list(text, hit) else hit

    def _near_hit(self, text: Text, item: int) -> Hit | None:
        """Return the hit of an item with a few words changed, and no number."""
        wanted, least = self.items[item], self._least[item]
        if not self._fillers[item] <= text.vocabulary:
            return None
        held = self.weights.total(word for word in wanted if word in text.vocabulary)
        if held < least * self.weights.total(wanted):
            return None
        part = window(wanted, text.words, self.weights)
        alignment = self._align(text.words[part], item)
        if alignment is None or alignment.contradicts:
            return None
        if alignment.score < least or alignment.shared < FLOOR:
            return None
        is_verbatim = alignment.run == slice(0, len(wanted))
        if self._judged_by_own and not is_verbatim and not self._has_own_words(wanted):
            return None
        score = 1.0 if is_verbatim else min(alignment.score, NEARLY)
        hit = Hit(score, item, part.start + alignment.first, part.start + alignment.last)
        return None if self._is_in_list(text, hit) else hit

    def _align(self, spelled: Sequence[str], item: int) -> Alignment | None:
        slots = self._slots if self._fillers[item] else frozenset[str]()
        return align(self.items[item], spelled, self.weights, slots)

    def _is_in_list(self, text: Text, hit: Hit) -> bool:
        """Return whether the hit is part of a list of numbers, which asks for something else."""
        if not numbers_in(self.items[hit.item]):
            return False
        start, end = _characters(text, hit)
        before = " ".join(text.text[max(0, start - BESIDE) : start].split())
        after = text.text[end - 1 : end + BESIDE]
        matches = (GOES_ON.match(after), GOES_ON.match(after, 1), WENT_BEFORE.search(before))
        return any(matches)

    def _least_scores(self) -> list[float]:
        """Return the least score of a copy of each item: more than that of its nearest sibling.

        Items so near to one another are different items of this task.
        """
        least = [FLOOR] * len(self.items)
        texts = [Text(" ".join(item)) for item in self.items]
        for number, candidates in self._candidates.find(self._encode(self.items), TRIED):
            for item in candidates:
                if self.names[item] == self.names[number]:
                    continue
                hit = self._near_hit(texts[number], item)
                if hit is not None and hit.score < COPY:
                    least[item] = max(least[item], hit.score + MARGIN)
        return least

    def _identifying_runs(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield short items whole, and of longer ones the runs of words that no other name has."""
        names: dict[Item, set[str]] = {}
        for item, name in zip(self.items, self.names, strict=True):
            for run in _runs(item):
                names.setdefault(run, set()).add(name)
        taken = set()
        for number, item in sorted(enumerate(self.items), key=lambda entry: len(entry[1])):
            for run in _runs(item):
                is_own = len(names[run]) == 1 and self._has_own_words(run)
                if run not in taken and (len(item) <= RUN or is_own):
                    taken.add(run)
                    yield tuple(self._word_ids[word] for word in run), number

    def _has_own_words(self, run: Item) -> bool:
        return len(run) - sum(word in self._common for word in run) >= OWN

    def _encode(self, texts: Iterable[Sequence[str]]) -> EncodedTexts:
        ids: list[int] = []
        ends = []
        for text in texts:
            ids += [self._word_ids.get(word, -1) for word in text]
            ends.append(len(ids))
        return EncodedTexts(np.array(ids, np.int64), np.array(ends, np.int64))

    def _candidate_index(self) -> CandidateIndex:
        """Index the items by all words, an item of a template by what fills its slots."""
        weighed: list[dict[int, float]] = []
        least = []
        for number, item in enumerate(self.items):
            fillers = self._fillers[number]
            least.append(1.0 if fillers else self._least[number])
            weights: dict[int, float] = {}
            if self.sizes[number] >= CHANGED:
                counts = Counter(word for word in item if not fillers or word in fillers)
                for word, count in counts.items():
                    weights[self._word_ids[word]] = count * self.weights[word]
            weighed.append(weights)
        return CandidateIndex(weighed, len(self._word_ids), POSTED, least)


def common_words(texts: Sequence[Set[str]]) -> frozenset[str]:
    """Return the words that too many texts share to tell the texts apart."""
    counts = Counter(word for text in texts for word in text)
    least = max(COMMON_TEXTS, COMMON * len(texts))
    return frozenset(word for word, count in counts.items() if count >= least)


def _fillers(item: Item, slots: frozenset[str]) -> frozenset[str]:
    """Return what fills the slots of a template in an item; with other words it is another item."""
    return frozenset(word for word in item if word in slots or numbers_in([word]))


def _templates(items: Sequence[Item]) -> tuple[NDArray[np.bool_], frozenset[str]]:
    """Return which items are made by a template, and the words that fill its slots.

    A word that fills a slot belongs neither to one item alone nor to the template.
    """
    masked = [_mask_numbers(item) for item in items]
    frequency = Counter(word for item in masked for word in item)
    usual = [word for word, count in frequency.items() if count >= TEMPLATE * len(items)]
    counts = np.zeros((len(items), len(usual)), np.float32)
    for number, item in enumerate(masked):
        counts[number] = [item[word] for word in usual]
    sampled = counts[:: max(1, len(items) // SAMPLED)]
    lengths = np.array([[max(1, len(item))] for item in items]).reshape(-1, 1)
    is_alike = counts @ (sampled > 0).T >= FRAME * lengths
    held = Counter(word for item in items for word in dict.fromkeys(item))
    slots = frozenset(word for word, count in held.items() if 1 < count <= SLOT * len(items))
    return is_alike.sum(1) >= max(FAMILY, TEMPLATE * len(sampled)), slots


def _mask_numbers(item: Item) -> Counter[str]:
    return Counter("#" if numbers_in([word]) else word for word in item)


def _pieces(spelled: Sequence[str]) -> Iterator[Item]:
    for start in range(0, max(1, len(spelled) - (PIECE - STEP)), STEP):
        if spelled[start:]:
            yield tuple(spelled[start : start + PIECE])


def _runs(item: Item) -> Iterator[Item]:
    return (item[start : start + RUN] for start in range(max(1, len(item) - RUN + 1)))


def _characters(text: Text, hit: Hit) -> tuple[int, int]:
    """Return where in the text the hit begins and ends."""
    spans = words_with_spans(text.text)[hit.first : hit.last]
    return (spans[0][1], spans[-1][2]) if spans else (0, len(text.text))
