"""Find which of many items a text may hold, for many texts at once.

Words are numbers here, -1 for a word that no item has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELLS = 1 << 20  # texts times items that are weighed together
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Ints = NDArray[np.int64]
Run = tuple[int, ...]


@dataclass(frozen=True)
class EncodedTexts:
    """Texts one after the other: text n is ids[ends[n - 1] : ends[n]]."""

    ids: Ints
    ends: Ints

    @property
    def starts(self) -> Ints:
        """The place of each text's first word."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def owners(self) -> Ints:
        """The text of each word."""
        return np.repeat(np.arange(len(self.ends)), self.ends - self.starts)


class RunIndex:
    """Finds runs of words verbatim, by rolling hashes of as many words as a run has.

    Args:
        runs: the words of each run, and the item that it is from.
        words: how many words there are.
    """

    def __init__(self, runs: Sequence[tuple[Run, int]], words: int):
        self._salt = np.random.default_rng(0).integers(1, 1 << 63, words, np.uint64)
        by_length: dict[int, list[tuple[Run, int]]] = {}
        for run, item in runs:
            by_length.setdefault(len(run), []).append((run, item))
        self._tables = {length: self._table(group) for length, group in by_length.items()}

    def find(self, texts: EncodedTexts) -> list[tuple[int, int, int, int]]:
        """Return (text, item, first word, words) of every run in every text, longest runs first."""
        owners, starts = texts.owners, texts.starts
        hits: list[tuple[int, int, int, int]] = []
        places = np.flatnonzero(texts.ids >= 0)
        hashes = np.zeros(len(places), np.uint64)
        for length in range(1, max(self._tables, default=0) + 1):
            last = places + length - 1
            fits = last < texts.ends[owners[places]]
            fits[fits] = texts.ids[last[fits]] >= 0
            places, hashes = places[fits], hashes[fits]
            hashes = hashes * MULTIPLIER + self._salt[texts.ids[last[fits]]]
            if length in self._tables:
                known, items = self._tables[length]
                index = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
                matching = np.flatnonzero(known[index] == hashes)
                text = owners[places[matching]]
                first = places[matching] - starts[text]
                item = items[index[matching]]
                for entry in zip(text.tolist(), item.tolist(), first.tolist(), strict=True):
                    hits.append((*entry, length))
        return hits[::-1]

    def _table(self, runs: Sequence[tuple[Run, int]]) -> tuple[NDArray[np.uint64], Ints]:
        """Return the hashes of runs of one length, sorted, and the item of each."""
        hashes = np.zeros(len(runs), np.uint64)
        for column in np.array([run for run, _ in runs], np.int64).T:
            hashes = hashes * MULTIPLIER + self._salt[column]
        order = np.argsort(hashes)
        return hashes[order], np.array([item for _, item in runs], np.int64)[order]


class CandidateIndex:
    """Finds the items of whose weight a text has enough, wherever in the text the words are.

    Args:
        items: the weight of each word of each item, all its occurrences together; an item that is
            not to be found has none.
        words: how many words there are.
        posted: an item is looked up by its heaviest words, up to this share of its weight.
        least: the share of each item's weight that a text must have, as far as the looked-up words
            can tell.
    """

    def __init__(
        self, items: Sequence[dict[int, float]], words: int, posted: float, least: Sequence[float]
    ):
        entries = []
        for number, item in enumerate(items):
            entries += [(word, number, weight) for word, weight in _heaviest(item, posted)]
        table = np.array(sorted(entries), np.float64).reshape(-1, 3)
        self._items, self._weights = table[:, 1].astype(np.int64), table[:, 2]
        self._ends = np.searchsorted(table[:, 0], np.arange(words), side="right")
        total = np.array([sum(item.values()) for item in items])
        known = np.bincount(self._items, self._weights, len(items)) if len(items) else total
        need = known - (1 - np.array(least)) * total - 1e-9
        self._need = np.where(total > 0, need, np.inf)
        self._total = np.where(total > 0, total, 1.0)

    def find(self, texts: EncodedTexts, most: int) -> Iterator[tuple[int, list[int]]]:
        """Yield each text that has candidates, with at most `most` items, most likely first."""
        block = max(1, CELLS // max(1, len(self._need)))
        owners = texts.owners
        for first in range(0, len(texts.ends), block):
            last = min(first + block, len(texts.ends))
            within = slice(int(texts.starts[first]), int(texts.ends[last - 1]))
            held = self._held(owners[within] - first, texts.ids[within], last - first)
            text, item = np.nonzero(held >= self._need)
            if not len(text):
                continue
            excess = (held[text, item] - self._need[item]) / self._total[item]
            order = np.lexsort((-excess, text))
            for group in np.split(order, np.flatnonzero(np.diff(text)) + 1):
                yield first + int(text[group[0]]), item[group[:most]].tolist()

    def _held(self, owners: Ints, ids: Ints, texts: int) -> NDArray[np.float64]:
        """Return the weight of each item that each text has, (texts, items)."""
        words, items = len(self._ends), len(self._need)
        distinct = np.unique((owners * words + ids)[ids >= 0])
        text, word = np.divmod(distinct, max(1, words))
        end = self._ends[word]
        count = end - np.where(word > 0, self._ends[word - 1], 0)
        entry = np.repeat(end - np.cumsum(count), count) + np.arange(count.sum())
        cells = np.repeat(text, count) * items + self._items[entry]
        held = np.bincount(cells, self._weights[entry], texts * items)
        return held.astype(np.float64, copy=False).reshape(texts, -1)


def _heaviest(item: dict[int, float], share: float) -> Iterator[tuple[int, float]]:
    """Yield an item's heaviest words, until they have this share of its weight."""
    lacking = share * sum(item.values())
    for word, weight in sorted(item.items(), key=lambda entry: -entry[1]):
        if lacking <= 0:
            return
        yield word, weight
        lacking -= weight
