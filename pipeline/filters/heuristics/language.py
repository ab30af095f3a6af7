"""Which language a reply is in.

py3langid's model (a naive Bayes of byte n-grams over 140 languages; Lui & Baldwin 2012, "langid.py") ships in its package. What is asked
is how likely the allowed languages are together, not which one is likeliest: Spanish and Galician share what Spanish words have to give,
and both leave nothing to English.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample

PARTS = ("text", "rationale", "answer")
FOUND = np.dtype(
    [("share", np.float32), ("language", "U3")]
)  # how likely the allowed languages are (-1: not told), and the likeliest
NO_WORDS = re.compile(r"https?://\S+|\$[^$\n]{1,200}\$|[\d_`<>{}\[\]()|#*=+/\\^~-]+")
NO_LANGUAGE = "zxx"


def likelihood(
    batch: Batch, allowed: Sequence[str], parts: Sequence[str], min_letters: int
) -> NDArray[Any]:
    """(N, P) of FOUND: for each sample and each of `parts`, of "text", "rationale" and "answer", how likely `allowed` are.

    Parts with fewer than `min_letters` letters are too short to tell; a letter counts for its bytes in UTF-8, so a Chinese one for three.
    """
    check(allowed)
    rows = [
        [_told(_part(sample, part), allowed, min_letters) for part in parts]
        for sample in batch.samples
    ]
    return np.array(rows, FOUND).reshape(len(rows), len(parts))


def other(
    left: NDArray[np.int64], found: NDArray[Any], parts: Sequence[str], least: float
) -> dict[int, Verdict]:
    """other_language: the allowed languages are less likely than `least`. The value: which part, its language, their likelihood."""
    shares = found["share"][left]  # (n, P)
    strange = (shares >= 0) & (shares < least)
    first = strange.argmax(axis=1)
    return {
        int(row): Verdict(
            "other_language",
            f"{parts[part]}: {found['language'][row, part]} (allowed: {found['share'][row, part]:.3f})",
        )
        for row, part in zip(left[strange.any(axis=1)], first[strange.any(axis=1)], strict=True)
    }


def check(allowed: Sequence[str]) -> None:
    """Raise PipelineError if one of the codes is of no language that the model knows."""
    known = _model().labels
    unknown = [code for code in allowed if code not in known]
    if unknown:
        raise PipelineError(
            f"filter.language: no language {unknown[0]!r}; give ISO 639 codes, of {', '.join(sorted(known))}"
        )


@lru_cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _part(sample: Sample, part: str) -> str:
    return {"text": sample.text, "rationale": sample.rationale, "answer": sample.answer}[part] or ""


def _told(text: str, allowed: Sequence[str], min_letters: int) -> tuple[float, str]:
    words = NO_WORDS.sub(" ", text)
    if len("".join(filter(str.isalpha, words)).encode(errors="replace")) < min_letters:
        return -1.0, ""
    ranked = _model().rank(" ".join(words.split()))
    language = ranked[0][0]
    return (
        (-1.0, "")
        if language == NO_LANGUAGE
        else (sum(share for code, share in ranked if code in allowed), language)
    )
