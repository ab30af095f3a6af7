"""How near a stretch of text comes to a held-out item, word by word."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from itertools import pairwise

import numpy as np

from pipeline.filters.decontamination.words import number

SHARPNESS, LIGHTEST = 1.5, 0.01
LONGEST_GAP = 8  # words that may stand in the place of others; where more differ, two texts go ways of their own
Words = Sequence[str]


class Weights(dict[str, float]):
    """Of each word of some items, the more the fewer of them have it: from the log of the inverse document frequency (Spärck Jones 1972).

    So a template common to all items weighs little. A word that none has weighs most. `SHARPNESS` makes rare words count for still more:
    a question is another one if it asks about another thing.
    """

    def __init__(self, items: Sequence[Words]):
        most = float(np.log(max(len(items), 2)))
        self.most = most**SHARPNESS
        held = Counter(word for item in items for word in dict.fromkeys(item))
        super().__init__(
            {
                word: max(most - float(np.log(count)), LIGHTEST) ** SHARPNESS
                for word, count in held.items()
            }
        )

    def __missing__(self, word: str) -> float:
        return self.most

    def of(self, words: Iterable[str]) -> float:
        return sum(map(self.__getitem__, words))


@dataclass(frozen=True)
class Alignment:
    """`score` is by weight, `shared` by number of words, both of 1. Words `first` to `last` - 1 of the text are the item's, `run` of them
    in a row at most. `contradicts`: a number stands in the place of another one, or a word that fills a slot of the template."""

    score: float
    shared: float
    first: int
    last: int
    run: slice  # words of the item
    contradicts: bool


def align(
    item: Words, text: Words, weights: Weights, slots: Set[str] = frozenset()
) -> Alignment | None:
    """Lay an item beside a text; a word that only moved a little counts as shared. None if no word is shared.
    `slots`: words by which one item of a template differs from another, as they do by numbers.

    With W the weight of the item, m of what the text lacks and a of what it adds between the item's words (no word of it weighing more
    than the item's heaviest, and with slots none), the score is (W - m) / (W + max(0, a - m)): a replaced word counts once.
    """
    blocks = _close(
        [
            block
            for block in SequenceMatcher(None, item, text, autojunk=False).get_matching_blocks()
            if block.size
        ],
        text,
        weights,
    )
    if not blocks:
        return None
    head, end = blocks[0], blocks[-1]
    after, tail = end.b + end.size, len(item) - end.a - end.size
    inner = [
        (item[one.a + one.size : two.a], text[one.b + one.size : two.b])
        for one, two in pairwise(blocks)
    ]
    edges = [
        (item[: head.a], text[max(0, head.b - head.a) : head.b]),
        (item[len(item) - tail :], text[after : after + tail]),
    ]
    inner, edges = (
        [gap for gap in gaps if "".join(gap[0]) != "".join(gap[1])] for gaps in (inner, edges)
    )
    wanted = Counter(word for gap in inner + edges for word in gap[0])
    added = Counter(word for gap in inner for word in gap[1])
    lacking = wanted - added - Counter(word for gap in edges for word in gap[1])
    total, lost, most = (
        weights.of(item),
        weights.of(lacking.elements()),
        max(map(weights.__getitem__, item)),
    )
    extra = 0.0 if slots else sum(min(most, weights[word]) for word in (added - wanted).elements())
    longest = max(blocks, key=lambda block: block.size)
    return Alignment(
        score=(total - lost) / (total + max(0.0, extra - lost)),
        shared=1 - lacking.total() / len(item),
        first=head.b,
        last=after,
        run=slice(longest.a, longest.a + longest.size),
        contradicts=any(_contradicts(ours, theirs, slots) for ours, theirs in inner + edges),
    )


def _close(blocks: list[Match], text: Words, weights: Weights) -> list[Match]:
    """Without first and last runs that lie farther off than they weigh: words that stand in what is written around a copy."""

    def far(run: Match, gap: slice) -> bool:
        return weights.of(text[run.b : run.b + run.size]) < weights.of(text[gap]) / 2

    while len(blocks) > 1 and far(blocks[0], slice(blocks[0].b + blocks[0].size, blocks[1].b)):
        blocks = blocks[1:]
    while len(blocks) > 1 and far(blocks[-1], slice(blocks[-2].b + blocks[-2].size, blocks[-1].b)):
        blocks = blocks[:-1]
    return blocks


def window(item: Words, text: Words, weights: Mapping[str, float]) -> slice:
    """The part of a longer text that has most of an item's words, with a little room around it."""
    width = len(item) + max(4, len(item) // 4)
    if len(text) <= width:
        return slice(0, len(text))
    wanted = set(item)
    held = np.cumsum([0.0, *(weights[word] if word in wanted else 0.0 for word in text)])
    weight = held[width:] - held[:-width]
    best = np.flatnonzero(weight >= weight.max() - 1e-9)
    first = int(best[np.argmin(np.abs(best - (best[0] + min(best[-1], best[0] + width)) / 2))])
    return slice(max(0, first - 2), first + width + 2)


def _contradicts(ours: Words, theirs: Words, slots: Set[str]) -> bool:
    """Has one side another number than the other, or a part of its own with a number in it, such as one more of a list?"""
    if any(word in slots and word not in ours for word in theirs):
        return True
    if not slots and max(len(ours), len(theirs)) > LONGEST_GAP:
        return False
    mine, other = number(ours), number(theirs)
    return mine != other and bool(
        (mine and other) or (not (ours and theirs) and len(ours) + len(theirs) > 1)
    )
