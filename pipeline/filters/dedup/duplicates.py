"""Filters on what is there already: word for word, nearly so, or in other words; in this run or in others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import folding, shingles
from pipeline.filters.dedup.buckets import Rows
from pipeline.filters.dedup.cosine import Vectors
from pipeline.filters.dedup.jaccard import Sets
from pipeline.filters.dedup.keep_best import Kept
from pipeline.filters.measures import Batch, Ragged
from pipeline.filters.sample_text import input_text
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

OUTER = ".,;:!?\"'`*" + "".join(
    filter(str.isspace, map(chr, range(0x3001)))
)  # does not count at either end of a text
TOGETHER = 32  # texts that are folded at a time: what fits in a core's own cache
BETWEEN = "\0"


@dataclass(frozen=True)
class Other:
    """Another run's kept rows, which stay whatever comes after them; ids and columns are over all its rows."""

    name: str
    rows: Rows
    ids: Sequence[str]
    columns: tuple[NDArray | Ragged, ...]


def digests(batch: Batch) -> NDArray[np.uint64]:
    """128 bits of input and reply, case, spacing and outer punctuation aside, (N, 2).

    Among 1e9 samples two that differ are taken for the same in one run of 1e20.
    """
    from xxhash import xxh3_128_digest

    parts = [BETWEEN.join(_parts(sample)) for sample in batch.samples]
    order = sorted(
        range(len(parts)), key=lambda row: not parts[row].isascii()
    )  # plain ones are folded sooner, among their like
    found = np.zeros((len(parts), 2), np.uint64)
    for start in range(0, len(order), TOGETHER):
        rows = order[start : start + TOGETHER]
        content = b"".join(
            [xxh3_128_digest(text) for text in folding.whole([parts[row] for row in rows])]
        )
        found[rows] = np.frombuffer(content, np.uint64).reshape(-1, 2)
    return found


def _parts(sample: Sample) -> list[str]:
    parts = [
        part
        for key, value in sorted(sample.seed.inputs.items())
        for part in (key, _trimmed(str(value)))
    ]
    return [*parts, _trimmed(sample.text)]


def _trimmed(text: str) -> str:
    text = text.strip(OUTER)
    return text.replace(BETWEEN, " ") if BETWEEN in text else text


def texts(batch: Batch, of: str) -> list[str]:
    """What is compared: the "reply", or the "input"."""
    return [sample.text if of == "reply" else input_text(sample) for sample in batch.samples]


def sets(batch: Batch, of: str, size: int) -> Ragged:
    """The word shingles of reply or input (`texts`), `size` words each."""
    return shingles.shingled(texts(batch, of), size)


def exact(
    left: Rows, ids: Sequence[str], found: NDArray[np.uint64], others: Sequence[Other] = ()
) -> dict[int, Verdict]:
    """same_as: an earlier sample has the same input and the same reply, case, spacing and outer punctuation aside. The value is its id."""
    before = sum(len(other.rows) for other in others)
    every = np.concatenate([*(other.columns[0][other.rows] for other in others), found[left]])  # type: ignore[index]
    order = np.lexsort((every[:, 1], every[:, 0]))  # equal ones stay in their order
    new = np.ones(len(order), bool)
    new[1:] = (every[order[1:]] != every[order[:-1]]).any(1)
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[new][np.cumsum(new) - 1]
    gone = before + np.flatnonzero(firsts[before:] != np.arange(before, len(firsts)))
    return {
        int(left[row - before]): Verdict("same_as", _name(int(firsts[row]), others, left, ids))
        for row in gone
    }


def _name(number: int, others: Sequence[Other], left: Rows, ids: Sequence[str]) -> str:
    """The id of a row, counted over the rows of `others` and then `left`."""
    for other in others:
        if number < len(other.rows):
            return f"{other.name}:{other.ids[other.rows[number]]}"
        number -= len(other.rows)
    return ids[left[number]]


def near(
    left: Rows,
    ids: Sequence[str],
    *columns: NDArray | Ragged,
    threshold: float,
    scored: bool = False,
    others: Sequence[Other] = (),
) -> dict[int, Verdict]:
    """near_same_as: its shingles and those of a better sample that stays have a Jaccard index of at least `threshold`.

    The value is that sample's id, and the index. `columns`: with `scored`, first the score that says which is better (N,): higher first,
    NaN last, equals in their order; then one or more of `sets`, of which the least index counts. `others` have the sets only.
    """
    return _judged("near_same_as", Sets, left, ids, columns, threshold, scored, others)


def semantic(
    left: Rows,
    ids: Sequence[str],
    *columns: NDArray,
    threshold: float,
    scored: bool = False,
    others: Sequence[Other] = (),
) -> dict[int, Verdict]:
    """means_the_same_as: as `near`, by the cosine of `embeddings.embedded`. All pairs are looked at: the time grows with their number."""
    return _judged("means_the_same_as", Vectors, left, ids, columns, threshold, scored, others)


def _judged(
    reason: str,
    kind: type[Sets] | type[Vectors],
    left: Rows,
    ids: Sequence[str],
    columns: Sequence[NDArray | Ragged],
    threshold: float,
    scored: bool,
    others: Sequence[Other],
) -> dict[int, Verdict]:
    rows = left[np.argsort(-np.asarray(columns[0])[left], kind="stable")] if scored else left
    compared: Any = tuple(columns[1:] if scored else columns)
    verdicts: dict[int, Verdict] = {}

    def turn_down(kept: Kept, names: Sequence[str], of: Rows) -> Rows:
        for rank in np.flatnonzero(kept.keeper >= 0).tolist():
            name = names[of[kept.keeper[rank]]]
            verdicts[int(rows[rank])] = Verdict(reason, f"{name} ({kept.likeness[rank]:.2f})")
        return rows[kept.keeper < 0]

    for other in others:
        theirs: Any = kind(other.columns, other.rows)  # type: ignore[arg-type]
        rows = turn_down(
            kind(compared, rows).beside(theirs, threshold),
            [f"{other.name}:{name}" for name in other.ids],
            other.rows,
        )
    turn_down(kind(compared, rows).among(threshold), ids, rows)
    return verdicts
