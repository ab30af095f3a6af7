"""Align a held-out item with a stretch of text, word by word, and score how near they are."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from itertools import pairwise

import numpy as np

from pipeline.filters.decontamination.words import numbers_in

SHARPNESS, LIGHTEST = 1.5, 0.01
LONGEST_GAP = 8  # words that may replace others; where more differ, the two texts diverge
Words = Sequence[str]
Gap = tuple[Words, Words]  # words of the item, and of the text in their place


class Weights(dict[str, float]):
    """The weight of each word: the fewer items have it, the heavier it is.

    Weights are log inverse document frequencies (Spärck Jones 1972), so a template common to all
    items weighs little. A word that no item has weighs most. `SHARPNESS` makes rare words heavier
    still, since a question about another thing is another question.
    """

    def __init__(self, items: Sequence[Words]):
        most = float(np.log(max(len(items), 2)))
        self.most = most**SHARPNESS
        counts = Counter(word for item in items for word in dict.fromkeys(item))
        super().__init__()
        for word, count in counts.items():
            self[word] = max(most - float(np.log(count)), LIGHTEST) ** SHARPNESS

    def __missing__(self, word: str) -> float:
        return self.most

    def total(self, words: Iterable[str]) -> float:
        """Return the sum of the words' weights."""
        return sum(map(self.__getitem__, words))


@dataclass(frozen=True)
class Alignment:
    """How an item and a text match; words `first` to `last` - 1 of the text are the item's."""

    score: float  # the share of the item that the text has, by weight
    shared: float  # the same by number of words
    first: int
    last: int
    run: slice  # the longest run of words of the item that the text has in a row
    contradicts: bool  # another number replaces a number, or another word fills a slot


def align(
    item: Words, text: Words, weights: Weights, slots: Set[str] = frozenset()
) -> Alignment | None:
    """Align an item with a text; a word that only moved a little counts as shared.

    Returns None if no word is shared. `slots` are words by which one item of a template differs
    from another, as they do by numbers. With W the weight of the item, m of what the text lacks and
    a of what it adds between the item's words, the score is (W - m) / (W + max(0, a - m)): a
    replaced word counts once. No added word weighs more than the item's heaviest; with slots, added
    words weigh nothing.
    """
    matches = SequenceMatcher(None, item, text, autojunk=False).get_matching_blocks()
    blocks = _without_far_ends([block for block in matches if block.size], text, weights)
    if not blocks:
        return None
    inner, edges = _gaps(item, text, blocks)
    wanted = Counter(word for gap in inner + edges for word in gap[0])
    added = Counter(word for gap in inner for word in gap[1])
    lacking = wanted - added - Counter(word for gap in edges for word in gap[1])
    total, lost = weights.total(item), weights.total(lacking.elements())
    extra = 0.0
    if not slots:
        heaviest = max(map(weights.__getitem__, item))
        extra = sum(min(heaviest, weights[word]) for word in (added - wanted).elements())
    longest = max(blocks, key=lambda block: block.size)
    return Alignment(
        score=(total - lost) / (total + max(0.0, extra - lost)),
        shared=1 - lacking.total() / len(item),
        first=blocks[0].b,
        last=blocks[-1].b + blocks[-1].size,
        run=slice(longest.a, longest.a + longest.size),
        contradicts=any(_contradicts(ours, theirs, slots) for ours, theirs in inner + edges),
    )


def _gaps(item: Words, text: Words, blocks: Sequence[Match]) -> tuple[list[Gap], list[Gap]]:
    """Return what differs between the blocks, and at the two ends of the item."""
    inner = []
    for block, following in pairwise(blocks):
        end_in_item, end_in_text = block.a + block.size, block.b + block.size
        inner.append((item[end_in_item : following.a], text[end_in_text : following.b]))
    head, end = blocks[0], blocks[-1]
    after, tail = end.b + end.size, len(item) - end.a - end.size
    before_item = (item[: head.a], text[max(0, head.b - head.a) : head.b])
    after_item = (item[len(item) - tail :], text[after : after + tail])
    edges = [before_item, after_item]
    return list(filter(_differs, inner)), list(filter(_differs, edges))


def _differs(gap: Gap) -> bool:
    ours, theirs = gap
    return "".join(ours) != "".join(theirs)


def _without_far_ends(blocks: list[Match], text: Words, weights: Weights) -> list[Match]:
    """Drop first and last blocks that are farther away than they weigh.

    They are words of the text around a copy.
    """

    def is_far(block: Match, gap: slice) -> bool:
        return weights.total(text[block.b : block.b + block.size]) < weights.total(text[gap]) / 2

    while len(blocks) > 1 and is_far(blocks[0], slice(blocks[0].b + blocks[0].size, blocks[1].b)):
        blocks = blocks[1:]
    while len(blocks) > 1 and is_far(
        blocks[-1], slice(blocks[-2].b + blocks[-2].size, blocks[-1].b)
    ):
        blocks = blocks[:-1]
    return blocks


def window(item: Words, text: Words, weights: Mapping[str, float]) -> slice:
    """Return the part of a longer text that has most of an item's words, with some room around."""
    width = len(item) + max(4, len(item) // 4)
    if len(text) <= width:
        return slice(0, len(text))
    wanted = set(item)
    held = np.cumsum([0.0, *(weights[word] if word in wanted else 0.0 for word in text)])
    weight = held[width:] - held[:-width]
    best = np.flatnonzero(weight >= weight.max() - 1e-9)
    middle = (best[0] + min(best[-1], best[0] + width)) / 2
    first = int(best[np.argmin(np.abs(best - middle))])
    return slice(max(0, first - 2), first + width + 2)


def _contradicts(ours: Words, theirs: Words, slots: Set[str]) -> bool:
    """Return whether the sides have different numbers, or one has a part of its own with a number.

    Such a part is one more entry of a list, for example.
    """
    if any(word in slots and word not in ours for word in theirs):
        return True
    if not slots and max(len(ours), len(theirs)) > LONGEST_GAP:
        return False
    our_numbers, their_numbers = numbers_in(ours), numbers_in(theirs)
    if our_numbers == their_numbers:
        return False
    is_addition = not (ours and theirs) and len(ours) + len(theirs) > 1
    return is_addition or bool(our_numbers and their_numbers)
