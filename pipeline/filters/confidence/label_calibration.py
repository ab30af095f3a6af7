"""What the teacher thinks of every label, freed of what the prompt makes it think whatever the input.

A prompt can favour a label so strongly that the text is at chance while the probabilities still tell the inputs apart. Dividing by what the
labels get on average gives that back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.confidence.logprobs import frame
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict, reject
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Range, Sample
from pipeline.storage.topk import TopK
from pipeline.verifiers import scorers

UNKNOWN = -1  # no label
MATCHED = 1e-4  # how near the labels' means come to their shares
MATCHING_STEPS = 100  # a dozen are usual; a label that no row has any mass for is never matched
UNSEEN = float(np.finfo(np.float32).eps)  # mass that a sum of float32 near one hides


def label_tokens(tokenizer: Tokenizer, labels: Sequence[str], before: str = "") -> list[list[int]]:
    """For each label the ids of the tokens by which it is told from the others: the first behind what all of them begin with.

    Each label is spelled behind `before`, the text that the teacher has in front of its answer, and with other cases and with and without
    a space; the first id is that of the label as it stands. Tokens with which several labels begin are left out. Raises
    PipelineError if that leaves a label with none.
    """
    stem = before.rstrip()
    forms = [_spelled(tokenizer, list(labels), before)]
    for case in (str, str.lower, str.capitalize, str.upper):
        forms += [
            _spelled(tokenizer, [case(label) for label in labels], stem + space)
            for space in (" ", "", "\n")
        ]
    found = [
        list(dict.fromkeys(token for form in forms for token in form[number]))
        for number in range(len(labels))
    ]
    of_one = [
        [token for token in mine if sum(token in other for other in found) == 1] for mine in found
    ]
    for label, tokens in zip(labels, of_one, strict=True):
        if not tokens:
            raise PipelineError(
                f"filter.calibrated: label '{label}' begins with the same token as another one, and what is stored does not say how likely "
                "either is; give them names that begin differently, or leave filter.calibrated out"
            )
    return of_one


def label_distribution(batch: Batch, labels: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """(N, L): the mass of each label's tokens (from `label_tokens`), where the answer's first of any of them was written.

    A label of which no token is stored gets an equal share of the tail with others such, but no more than the least of the entries that
    is stored: it cannot be likelier. A row is nan where the answer cannot be read. Raises PipelineError for samples without logprobs.
    """
    owner = owners(labels)
    found = [
        _masses_of(frame(batch, sample, "calibrated"), sample, owner, len(labels))
        for sample in batch.samples
    ]
    return np.array(found, np.float32).reshape(len(found), len(labels))


def label_places(batch: Batch, labels: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """(N, 2): which token of the completion is the answer's first of any label, and of which label; UNKNOWN twice where there is none."""
    owner = owners(labels)
    found = [
        (place, owner[sample.token_ids[place]])
        if (place := _place(sample, owner)) is not None and sample.token_ids
        else (UNKNOWN, UNKNOWN)
        for sample in batch.samples
    ]
    return np.array(found, np.int32).reshape(len(found), 2)


def written_label(batch: Batch, labels: Sequence[str]) -> NDArray[np.int16]:
    """(N,): the number of the label that is the answer, or UNKNOWN."""
    return _numbers([sample.answer for sample in batch.samples], labels)


def true_label(batch: Batch, labels: Sequence[str]) -> NDArray[np.int16]:
    """(N,): the number of the label that is the ground truth, or UNKNOWN."""
    return _numbers([sample.seed.target for sample in batch.samples], labels)


@dataclass(frozen=True)
class Known:
    """What calibration is told: how frequent the labels are, `shares` (L,), or what inputs without content get, `content_free` (M, L)."""

    shares: Sequence[float] | None = None
    content_free: NDArray[np.float32] | None = None


NOTHING = Known()


def calibrate(p: NDArray[np.float32], known: Known = NOTHING) -> NDArray[np.float32]:
    """Rows of p (N, L) freed of the prompt's bias, in the way that fits what is known; batch calibration if nothing is."""
    if known.content_free is not None:
        return contextually_calibrated(p, known.content_free)
    return batch_calibrated(p) if known.shares is None else prior_matched(p, known.shares)


def batch_calibrated(p: NDArray[np.float32], prior: NDArray | None = None) -> NDArray[np.float32]:
    """Batch calibration (Zhou et al., Batch Calibration, ICLR 2024): rows of p (N, L) divided by `prior` (L,), then made to add up to one.

    `prior` is what the prompt gives the labels whatever the input; None: their mean over the rows. That takes the inputs to be spread
    evenly over the labels: where they are not, it moves answers from common labels to rare ones. It takes off the most of a bias, not all
    of a strong one. Rows of nan stay, and count for nothing.
    """
    rows = _distributions(p)
    if prior is None:
        prior = (
            rows[readable(rows)].mean(axis=0, dtype=np.float64)
            if readable(rows).any()
            else np.ones(p.shape[1])
        )
    # who has a prior of 0 has no mass in any row
    divided = np.divide(
        rows, prior, where=prior > 0, out=np.where(np.isnan(rows), np.nan, np.zeros_like(rows))
    )
    return _distributions(divided.astype(np.float32))


def prior_matched(p: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.float32]:
    """Each label of p (N, L) weighted so that, rows made to add up to one, the labels' means are `shares` (L,), none of them 0 (Liusie,
    Manakul & Gales, Mitigating word bias in zero-shot prompt-based classifiers, 2023). However strong the bias, the result is the same; but
    the shares must be about right."""
    rows = _distributions(p)
    wanted = np.array(shares, np.float64) / np.sum(shares)
    for _ in range(MATCHING_STEPS):
        found = (
            rows[readable(rows)].mean(axis=0, dtype=np.float64) if readable(rows).any() else wanted
        )
        if np.abs(found - wanted).max() < MATCHED:
            break
        rows = batch_calibrated(rows, found / wanted)
    return rows


def contextually_calibrated(
    p: NDArray[np.float32], content_free: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Contextual calibration (Zhao et al., Calibrate Before Use, ICML 2021): the prior is the mean of what the labels get for inputs
    without content, such as "N/A", an empty text and "[MASK]": `content_free` (M, L), of which rows of nan count for nothing. Rows are
    normalised, where the paper has a softmax. A label that got nothing there got at most `UNSEEN`.
    """
    return batch_calibrated(
        p, np.maximum(_distributions(content_free[readable(content_free)]).mean(axis=0), UNSEEN)
    )


def calibrated(
    left: NDArray[np.int64],
    p: NDArray[np.float32],
    written: NDArray[np.int16],
    *,
    labels: Sequence[str],
    min_confidence: float | None = None,
    agree: bool = True,
    known: Known = NOTHING,
) -> dict[int, Verdict]:
    """label_disagrees: the likeliest label, calibrated over `left`, is not the answer. low_label_confidence: the answer's calibrated
    probability is below `min_confidence`. Rows that cannot be read pass; PipelineError if there are no others."""
    rows = left[readable(p[left]) & (written[left] != UNKNOWN)]
    if len(left) and not len(rows):
        raise PipelineError(
            f"filter.calibrated: no answer of {len(left):,} begins with a token of one of the labels {', '.join(labels)}; "
            "does the prompt's answer span hold the label alone? Else leave filter.calibrated out"
        )
    sure = calibrate(p[rows], known)
    own, likeliest = sure[np.arange(len(rows)), written[rows]], sure.argmax(axis=1)
    low = own < (-np.inf if min_confidence is None else min_confidence)
    other = (likeliest != written[rows]) & agree
    names = [
        f"{labels[number]} {value:.3f}"
        for number, value in zip(likeliest[other], sure[other].max(axis=1), strict=True)
    ]
    disagreeing = {
        int(row): Verdict("label_disagrees", name)
        for row, name in zip(rows[other], names, strict=True)
    }
    return reject("low_label_confidence", rows[low & ~other], own[low & ~other]) | disagreeing


def soft_labels(
    p: NDArray[np.float32], labels: Sequence[Sequence[int]], known: Known = NOTHING
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(L,) the first token of each label, and (N, L) the calibrated logprobs of the labels in nats, rows of nan where none were read."""
    with np.errstate(divide="ignore"):
        return np.array([tokens[0] for tokens in labels], np.int64), np.log(calibrate(p, known))


@dataclass(frozen=True)
class Effect:
    """Shares of right answers: the text's, the likeliest label's, the likeliest calibrated label's, on the same `rows`."""

    rows: int
    text: float
    raw: float
    calibrated: float


def effect(
    p: NDArray[np.float32],
    written: NDArray[np.int16],
    truth: NDArray[np.int16],
    known: Known = NOTHING,
) -> Effect | None:
    """What calibration over all rows does to those of known truth; None if there are none. The ground truth only judges."""
    judged = readable(p) & (truth != UNKNOWN)
    if not judged.any():
        return None
    rows = {
        "text": written[judged],
        "raw": p[judged].argmax(axis=1),
        "calibrated": calibrate(p, known)[judged].argmax(axis=1),
    }
    return Effect(
        int(judged.sum()),
        **{name: float((found == truth[judged]).mean()) for name, found in rows.items()},
    )


def readable(p: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,): rows that have a distribution."""
    return ~np.isnan(p).any(axis=1) & (p.sum(axis=1) > 0)


def _distributions(p: NDArray) -> NDArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return p / p.sum(axis=1, keepdims=True)


def _spelled(tokenizer: Tokenizer, labels: Sequence[str], before: str) -> list[list[int]]:
    """For each label the first of its tokens behind `before` that not all of them share; empty for one that is the beginning of all."""
    spelled = [_tokens(tokenizer, before, label) for label in labels]
    shared = 0
    while (
        len(spelled) > 1
        and all(len(ids) > shared for ids in spelled)
        and len({ids[shared] for ids in spelled}) == 1
    ):
        shared += 1
    return [ids[shared : shared + 1] for ids in spelled]


def _tokens(tokenizer: Tokenizer, before: str, label: str) -> list[int]:
    """The tokens that hold the label. A space in front of it may be in its first."""
    ids = tokenizer.encode_reply(before + label)[:-1]
    text = tokenizer.decode(ids)
    first, last = tokenizer.token_range(ids, text, len(text) - len(label), len(text))
    return ids[first:last]


def owners(labels: Sequence[Sequence[int]]) -> dict[int, int]:
    """By token the number of the label that it is of."""
    return {token: number for number, tokens in enumerate(labels) for token in tokens}


def first_label(
    token_ids: Sequence[int], answer: Range | None, owner: Mapping[int, int]
) -> int | None:
    """The place of the answer's first token of any label."""
    return next((place for place in range(*(answer or (0, 0))) if token_ids[place] in owner), None)


def masses(
    entries: Mapping[int, float], own: int, tail: float, owner: Mapping[int, int], labels: int
) -> NDArray[np.float64]:
    """(L,): the mass of each label by the likely `entries` of one place, of which `own` was written, and what is outside them."""
    found = np.zeros(labels)
    for token, mass in entries.items():
        if mass > 0 and token in owner:
            found[owner[token]] += mass
    lacking = found == 0
    found[lacking] = min(
        tail / max(lacking.sum(), 1),
        *(mass for token, mass in entries.items() if token != own and mass > 0),
        1.0,
    )
    return found


def _masses_of(
    topk: TopK, sample: Sample, owner: Mapping[int, int], labels: int
) -> NDArray[np.float64]:
    place = _place(sample, owner)
    if place is None:
        return np.full(labels, np.nan)
    entries = zip(
        topk.ids[place].tolist(),
        np.exp(topk.logprobs[place].astype(np.float64)).tolist(),
        strict=True,
    )
    likely: dict[int, float] = {}
    for token, mass in entries:
        likely[token] = likely.get(token, 0.0) + mass
    return masses(likely, int(topk.ids[place, 0]), float(np.exp(topk.tail[place])), owner, labels)


def _place(sample: Sample, owner: Mapping[int, int]) -> int | None:
    return first_label(sample.token_ids or [], sample.answer_tokens, owner)


def _numbers(texts: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int16]:
    known = {scorers.normalise(label): number for number, label in enumerate(labels)}
    return np.array(
        [
            UNKNOWN if text is None else known.get(scorers.normalise(text), UNKNOWN)
            for text in texts
        ],
        np.int16,
    )
