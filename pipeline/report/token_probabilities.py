"""What the teacher thought of each token, for a page of samples: token ids by a table of the page's own, probabilities in thousandths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection.tokens import TokenProbabilities, token_probabilities
from pipeline.models.tokenizer import BROKEN, Tokenizer
from pipeline.storage.topk import TopK

TOP = 5  # other tokens at each place
PARTS = 1000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """One sample: T tokens written, M others that were likely, those of a token one after the other."""

    ids: Ints  # (T,)
    parts: Ints  # (T,) their probability, of PARTS
    counts: Ints  # (T,) of others
    others: Ints  # (M,) ids
    others_parts: Ints  # (M,)


def pack(token_ids: Sequence[int], topk: TopK) -> Packed:
    found: TokenProbabilities = token_probabilities(topk, TOP)
    parts = np.rint(found.others * PARTS).astype(np.int64)
    some = parts > 0
    return Packed(
        np.array(token_ids, np.int64),
        np.rint(found.written * PARTS).astype(np.int64),
        some.sum(axis=1),
        found.ids[some],
        parts[some],
    )


def to_json(page: Sequence[Packed | None], tokenizer: Tokenizer) -> dict[str, Any]:
    """`pieces`: texts; `rows`: of each sample [tokens, parts, counts, others, parts of others], tokens and others as numbers of pieces, and
    [place, text] where a character is spread over several tokens."""
    known = [one for one in page if one is not None]
    ids = np.unique(
        np.concatenate(
            [np.empty(0, np.int64), *(part for one in known for part in (one.ids, one.others))]
        )
    )
    pieces = {int(token): tokenizer.piece(int(token)) for token in ids}
    broken = {token for token, piece in pieces.items() if BROKEN in piece}
    rows = [None if one is None else _row(one, ids, broken, tokenizer) for one in page]
    return {"pieces": list(pieces.values()), "rows": rows}


def _row(one: Packed, ids: Ints, broken: set[int], tokenizer: Tokenizer) -> list[Any]:
    tokens = one.ids.tolist()
    row = [
        np.searchsorted(ids, one.ids),
        one.parts,
        one.counts,
        np.searchsorted(ids, one.others),
        one.others_parts,
    ]
    mended: list[tuple[int, str]] = []
    if broken and not broken.isdisjoint(tokens):
        mended = [
            (place, text)
            for place, text in enumerate(tokenizer.pieces(tokens))
            if text != tokenizer.piece(tokens[place])
        ]
    return [*(column.tolist() for column in row), mended]
