"""Reject replies in another language.

py3langid's model is a naive Bayes classifier of byte n-grams over 140 languages (Lui & Baldwin
2012, "langid.py"). Its package includes it. The filter uses the probability of all allowed
languages together, not the most likely language. A Spanish text may look most like Galician, but
then Spanish still has some probability, and English has none.
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

# share: probability of the allowed languages, or -1 for a text that is too short;
# language: the most likely language
ESTIMATE = np.dtype([("share", np.float32), ("language", "U3")])
NO_WORDS = re.compile(r"https?://\S+|\$[^$\n]{1,200}\$|[\d_`<>{}\[\]()|#*=+/\\^~-]+")
NO_LANGUAGE = "zxx"
MIN_LETTERS = 20  # a part whose letters take fewer bytes is too short to be classified
MIN_SHARE = 0.02  # smallest probability of all allowed languages together


def likelihood(
    batch: Batch, allowed: Sequence[str], parts: Sequence[str], min_letters: int
) -> NDArray[Any]:
    """Return an ESTIMATE of each of `parts` of each sample, (N, P).

    `parts` are some of "text", "rationale" and "answer". A part with fewer than `min_letters`
    letters is too short. A letter counts as its number of bytes in UTF-8, so a Chinese character
    counts as three.
    """
    check(allowed)
    rows = []
    for sample in batch.samples:
        rows.append([_estimate(_part(sample, part), allowed, min_letters) for part in parts])
    return np.array(rows, ESTIMATE).reshape(len(rows), len(parts))


def other(
    rows: NDArray[np.int64], estimates: NDArray[Any], parts: Sequence[str], least: float
) -> dict[int, Verdict]:
    """Reject samples with a part in which the allowed languages are less likely than `least`.

    The reason is other_language. The value holds the first such part, its most likely language, and
    the probability of the allowed languages.
    """
    shares = estimates["share"][rows]  # (R, P)
    foreign = (shares >= 0) & (shares < least)
    rejected = foreign.any(axis=1)
    first_parts = foreign.argmax(axis=1)
    verdicts = {}
    for row, part in zip(rows[rejected].tolist(), first_parts[rejected].tolist(), strict=True):
        share, language = estimates[row, part]
        value = f"{parts[part]}: {language} (allowed: {share:.3f})"
        verdicts[row] = Verdict("other_language", value)
    return verdicts


def check(allowed: Sequence[str]) -> None:
    """Raise PipelineError if the model does not know one of the languages."""
    known = _model().labels
    unknown = [code for code in allowed if code not in known]
    if unknown:
        raise PipelineError(
            f"filter.language: no language {unknown[0]!r}; "
            f"give ISO 639 codes, of {', '.join(sorted(known))}"
        )


@lru_cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _part(sample: Sample, part: str) -> str:
    return {"text": sample.text, "rationale": sample.rationale, "answer": sample.answer}[part] or ""


def _estimate(text: str, allowed: Sequence[str], min_letters: int) -> tuple[float, str]:
    words = NO_WORDS.sub(" ", text)
    letters = "".join(filter(str.isalpha, words))
    if len(letters.encode(errors="replace")) < min_letters:
        return -1.0, ""
    ranked = _model().rank(" ".join(words.split()))
    language = ranked[0][0]
    if language == NO_LANGUAGE:
        return -1.0, ""
    return sum(share for code, share in ranked if code in allowed), language
