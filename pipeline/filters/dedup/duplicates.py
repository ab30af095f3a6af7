"""Filters on duplicates of samples in this run or in other runs: exact, near and semantic."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.dedup import folding, shingles
from pipeline.filters.dedup.buckets import Rows
from pipeline.filters.dedup.cosine import Vectors
from pipeline.filters.dedup.jaccard import Sets
from pipeline.filters.dedup.keep_best import Decisions
from pipeline.filters.measures import Batch, Ragged
from pipeline.filters.sample_text import input_text
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))
OUTER = ".,;:!?\"'`*" + WHITE_SPACE  # ignored at both ends of a text
BATCH_SIZE = 32  # texts that are folded at a time; so few fit in the cache of one core
BORDER = "\0"
SHINGLE_WORDS = 3  # words of a shingle; shorter texts have smaller ones

Part = Literal["reply", "input"]


@dataclass(frozen=True)
class OtherRun:
    """The kept rows of another run. `ids` and `columns` cover all its rows."""

    name: str
    rows: Rows
    ids: Sequence[str]
    columns: tuple[NDArray | Ragged, ...]


def content_digests(batch: Batch) -> NDArray[np.uint64]:
    """Return 128 bits that identify input and reply, (N, 2).

    Case, spacing and outer punctuation are ignored. Among 1e9 samples, the probability that two
    different ones share a digest is about 1e-21.
    """
    from xxhash import xxh3_128_digest

    contents = [BORDER.join(_parts(sample)) for sample in batch.samples]
    # ASCII texts come first, because a batch of ASCII texts alone is folded faster
    order = sorted(range(len(contents)), key=lambda row: not contents[row].isascii())
    result = np.zeros((len(contents), 2), np.uint64)
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        folded = folding.fold_texts([contents[row] for row in rows])
        digests = b"".join([xxh3_128_digest(text) for text in folded])
        result[rows] = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    return result


def _parts(sample: Sample) -> list[str]:
    parts = []
    for name, value in sorted(sample.seed.inputs.items()):
        parts += [name, _trim(str(value))]
    return [*parts, _trim(sample.text)]


def _trim(text: str) -> str:
    text = text.strip(OUTER) or text.strip()  # a text that is nothing but punctuation stays
    return text.replace(BORDER, " ") if BORDER in text else text


def compared_texts(batch: Batch, part: Part) -> list[str]:
    """Return the reply or the input of each sample."""
    return [sample.text if part == "reply" else input_text(sample) for sample in batch.samples]


def shingle_sets(batch: Batch, part: Part, size: int) -> Ragged:
    """Return the shingles of `size` words of each reply or input."""
    return shingles.shingle(compared_texts(batch, part), size)


def reject_exact(
    rows: Rows,
    ids: Sequence[str],
    digests: NDArray[np.uint64],
    others: Sequence[OtherRun] = (),
) -> dict[int, Verdict]:
    """Reject samples with the content of an earlier sample, with the reason same_as.

    The value is the id of the earlier sample.
    """
    other_count = sum(len(other.rows) for other in others)
    other_digests = [other.columns[0][other.rows] for other in others]  # type: ignore[index]
    contents = np.concatenate([*other_digests, digests[rows]])
    order = np.lexsort((contents[:, 1], contents[:, 0]))  # equal ones stay in their order
    is_first = np.ones(len(order), bool)
    is_first[1:] = (contents[order[1:]] != contents[order[:-1]]).any(1)
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[is_first][np.cumsum(is_first) - 1]
    copies = np.flatnonzero(firsts[other_count:] != np.arange(other_count, len(firsts)))
    verdicts = {}
    for copy in copies.tolist():
        original = _id(int(firsts[other_count + copy]), others, rows, ids)
        verdicts[int(rows[copy])] = Verdict("same_as", original)
    return verdicts


def _id(number: int, others: Sequence[OtherRun], rows: Rows, ids: Sequence[str]) -> str:
    """Return the id of row `number`, counted through the rows of `others`, then through `rows`."""
    for other in others:
        if number < len(other.rows):
            return f"{other.name}:{other.ids[other.rows[number]]}"
        number -= len(other.rows)
    return ids[rows[number]]


def _reject_similar(
    reason: str,
    kind: type[Sets] | type[Vectors],
    rows: Rows,
    ids: Sequence[str],
    *columns: NDArray | Ragged,
    threshold: float,
    scored: bool = False,
    others: Sequence[OtherRun] = (),
) -> dict[int, Verdict]:
    """Reject samples whose similarity to a better sample, which is kept, is at least `threshold`.

    The value is the kept sample's id and the similarity. If `scored`, the first of `columns` holds
    scores (N,): a sample with a higher score is better, NaN is worst, and for equal scores the
    earlier sample is better. The other columns are compared, and the least similarity counts.
    `others` have only the columns to compare.
    """
    ranked = rows
    if scored:
        ranked = rows[np.argsort(-np.asarray(columns[0])[rows], kind="stable")]
    compared: Any = tuple(columns[1:] if scored else columns)
    verdicts: dict[int, Verdict] = {}

    def drop(decisions: Decisions, names: Sequence[str], kept_rows: Rows) -> Rows:
        for rank in np.flatnonzero(decisions.keeper >= 0).tolist():
            name = names[kept_rows[decisions.keeper[rank]]]
            value = f"{name} ({decisions.similarity[rank]:.2f})"
            verdicts[int(ranked[rank])] = Verdict(reason, value)
        return ranked[decisions.keeper < 0]

    for other in others:
        kept: Any = kind(other.columns, other.rows)  # type: ignore[arg-type]
        decisions = kind(compared, ranked).deduplicate_against(kept, threshold)
        names = [f"{other.name}:{id_}" for id_ in other.ids]
        ranked = drop(decisions, names, other.rows)
    drop(kind(compared, ranked).deduplicate(threshold), ids, ranked)
    return verdicts


# By the Jaccard index of `shingle_sets`.
reject_near = partial(_reject_similar, "near_same_as", Sets)
# By the cosine of embeddings. All pairs are compared, so the time grows with their number.
reject_semantic = partial(_reject_similar, "means_the_same_as", Vectors)
