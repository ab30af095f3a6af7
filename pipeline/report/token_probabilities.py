"""The teacher's token probabilities of the samples on a page, as compact JSON.

Each page has its own table of token texts, and tokens are numbers of that table. Probabilities are
in thousandths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection.tokens import token_probabilities
from pipeline.models.tokenizer import BROKEN, Tokenizer
from pipeline.storage.topk import TopK

TOP = 5  # alternatives at each position
PARTS = 1000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """One sample: its T tokens and M alternatives, ordered by position."""

    ids: Ints  # (T,)
    parts: Ints  # (T,) their probabilities in 1 / PARTS
    counts: Ints  # (T,) number of alternatives at each position
    others: Ints  # (M,) ids
    others_parts: Ints  # (M,)


def pack(token_ids: Sequence[int], topk: TopK) -> Packed:
    """Return a sample's probabilities in thousandths; alternatives that round to 0 are dropped."""
    probabilities = token_probabilities(topk, TOP)
    parts = np.rint(probabilities.others * PARTS).astype(np.int64)
    visible = parts > 0
    return Packed(
        np.array(token_ids, np.int64),
        np.rint(probabilities.written * PARTS).astype(np.int64),
        visible.sum(axis=1),
        probabilities.ids[visible],
        parts[visible],
    )


def to_json(page: Sequence[Packed | None], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return {"pieces": texts of tokens, "rows": one for each sample}.

    A row is [tokens, parts, counts, others, parts of others, whole characters], with tokens as
    indices of pieces. Where a character is spread over several tokens, the last entry has
    [position, text] with the whole character.
    """
    samples = [sample for sample in page if sample is not None]
    used = [np.concatenate([sample.ids, sample.others]) for sample in samples]
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *used]))
    pieces = {int(token): tokenizer.piece(int(token)) for token in ids}
    broken = {token for token, piece in pieces.items() if BROKEN in piece}
    rows = [None if sample is None else _row(sample, ids, broken, tokenizer) for sample in page]
    return {"pieces": list(pieces.values()), "rows": rows}


def _row(sample: Packed, ids: Ints, broken: set[int], tokenizer: Tokenizer) -> list[Any]:
    tokens = sample.ids.tolist()
    whole: list[tuple[int, str]] = []
    if not broken.isdisjoint(tokens):
        for place, text in enumerate(tokenizer.pieces(tokens)):
            if text != tokenizer.piece(tokens[place]):
                whole.append((place, text))
    return [
        np.searchsorted(ids, sample.ids).tolist(),
        sample.parts.tolist(),
        sample.counts.tolist(),
        np.searchsorted(ids, sample.others).tolist(),
        sample.others_parts.tolist(),
        whole,
    ]
