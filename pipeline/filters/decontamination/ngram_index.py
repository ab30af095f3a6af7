"""Which of many items a text may hold, found for many texts at once. Words are numbers here, -1 for those that no item has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS = 1 << 20  # texts times items that are weighed together
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Ints = NDArray[np.int64]
Run = tuple[int, ...]


@dataclass(frozen=True)
class Spelled:
    """Texts one after the other: text n is ids[ends[n - 1] : ends[n]]."""

    ids: Ints
    ends: Ints

    @property
    def starts(self) -> Ints:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def owners(self) -> Ints:
        """The text of each word."""
        return np.repeat(np.arange(len(self.ends)), self.ends - self.starts)


class Runs:
    """Where texts have the very words of a run, by hashes of as many words as it has.

    Args:
        runs: the words of each run, and the item that it is from.
        words: how many words there are.
    """

    def __init__(self, runs: Sequence[tuple[Run, int]], words: int):
        self._salt = np.random.default_rng(0).integers(1, 1 << 63, words, np.uint64)
        self._tables = {
            length: self._table([one for one in runs if len(one[0]) == length])
            for length in {len(run) for run, _ in runs}
        }

    def find(self, texts: Spelled) -> list[tuple[int, int, int, int]]:
        """(text, item, first word, words) of every run in every text, the longest first."""
        owners, starts = texts.owners, texts.starts
        found: list[tuple[int, int, int, int]] = []
        places = np.flatnonzero(texts.ids >= 0)
        hashes = np.zeros(len(places), np.uint64)
        for length in range(1, max(self._tables, default=0) + 1):
            last = places + length - 1
            alive = last < texts.ends[owners[places]]
            alive[alive] = texts.ids[last[alive]] >= 0
            places, hashes = places[alive], hashes[alive]
            hashes = hashes * MULTIPLIER + self._salt[texts.ids[last[alive]]]
            if length in self._tables:
                known, items = self._tables[length]
                at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
                met = np.flatnonzero(known[at] == hashes)
                text = owners[places[met]]
                found += zip(
                    text.tolist(),
                    items[at[met]].tolist(),
                    (places[met] - starts[text]).tolist(),
                    [length] * len(met),
                    strict=True,
                )
        return found[::-1]

    def _table(self, runs: Sequence[tuple[Run, int]]) -> tuple[NDArray[np.uint64], Ints]:
        hashes = np.zeros(len(runs), np.uint64)
        for column in np.array([run for run, _ in runs], np.int64).T:
            hashes = hashes * MULTIPLIER + self._salt[column]
        order = np.argsort(hashes)
        return hashes[order], np.array([item for _, item in runs], np.int64)[order]


class Rivals:
    """Which items a text may come near to: those of whose weight it has enough, wherever in it the words are.

    Args:
        items: the weight of each word of each item, all its occurrences together; none for an item that is not to be found.
        words: how many words there are.
        posted: an item is looked up by its heaviest words, until they have this share of its weight.
        least: share of each item's weight that a text must have, as far as the words looked up can tell.
    """

    def __init__(
        self, items: Sequence[dict[int, float]], words: int, posted: float, least: Sequence[float]
    ):
        total = np.array([sum(item.values()) for item in items])
        entries = [
            (word, number, weight)
            for number, item in enumerate(items)
            for word, weight in _heaviest(item, posted)
        ]
        table = np.array(sorted(entries), np.float64).reshape(-1, 3)
        self._items, self._weights = table[:, 1].astype(np.int64), table[:, 2]
        self._ends = np.searchsorted(table[:, 0], np.arange(words), side="right")
        known = np.bincount(self._items, self._weights, len(items)) if len(items) else total
        self._need = np.where(total > 0, known - (1 - np.array(least)) * total - 1e-9, np.inf)
        self._total = np.where(total > 0, total, 1.0)

    def find(self, texts: Spelled, most: int) -> Iterator[tuple[int, list[int]]]:
        """(text, its items, the likeliest first and at most `most`) of each text that has any."""
        block = max(1, CELLS // max(1, len(self._need)))
        owners = texts.owners
        for first in range(0, len(texts.ends), block):
            last = min(first + block, len(texts.ends))
            within = slice(int(texts.starts[first]), int(texts.ends[last - 1]))
            have = self._have(owners[within] - first, texts.ids[within], last - first)
            text, item = np.nonzero(have >= self._need)
            share = (have[text, item] - self._need[item]) / self._total[item]
            order = np.lexsort((-share, text))
            for of in np.split(order, np.flatnonzero(np.diff(text)) + 1) if len(text) else ():
                yield first + int(text[of[0]]), item[of[:most]].tolist()

    def _have(self, owners: Ints, ids: Ints, texts: int) -> NDArray[np.float64]:
        """How much weight of each item each text has, (texts, items)."""
        words = len(self._ends)
        distinct = np.unique((owners * words + ids)[ids >= 0])
        text, word = np.divmod(distinct, max(1, words))
        end = self._ends[word]
        count = end - np.where(word > 0, self._ends[word - 1], 0)
        at = np.repeat(end - np.cumsum(count), count) + np.arange(count.sum())
        cells = np.repeat(text, count) * len(self._need) + self._items[at]
        return (
            np.bincount(cells, self._weights[at], texts * len(self._need))
            .astype(np.float64, copy=False)
            .reshape(texts, -1)
        )


def _heaviest(item: dict[int, float], share: float) -> Iterator[tuple[int, float]]:
    lacking = share * sum(item.values())
    for word, weight in sorted(item.items(), key=lambda entry: -entry[1]):
        if lacking <= 0:
            return
        yield word, weight
        lacking -= weight
