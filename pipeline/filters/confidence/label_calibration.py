"""Filter on the teacher's label probabilities, calibrated for the bias of its prompt.

A prompt can favour a label so strongly that the written labels are at chance while the
probabilities still tell the inputs apart. Dividing them by what each label gets on average restores
the difference.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.filters.confidence.logprobs import stored_topk
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict, reject
from pipeline.models.tokenizer import Tokenizer
from pipeline.records import Range, Sample
from pipeline.storage.topk import TopK
from pipeline.verifiers import scorers

UNKNOWN = -1  # the number of no label
MATCHED = 1e-4  # how near the mean of each label must come to its share
MATCHING_STEPS = 100  # a dozen suffice, unless no row has any mass for a label
UNSEEN = float(np.finfo(np.float32).eps)  # mass that a float32 sum near one can hide


def label_tokens(tokenizer: Tokenizer, labels: Sequence[str], before: str = "") -> list[list[int]]:
    """Return for each label the ids of the tokens that distinguish it from the other labels.

    These are the first tokens after the common beginning of all labels. Each label is tokenised
    after `before`, the text in front of the teacher's answer, and also in other cases and with or
    without a space. The first id belongs to the label as it is written. Tokens that several labels
    begin with are left out. Raises PipelineError if a label has no token then.
    """
    stem = before.rstrip()
    spellings = [_first_tokens(tokenizer, labels, before)]
    for change_case in (str, str.lower, str.capitalize, str.upper):
        variants = [change_case(label) for label in labels]
        spellings += [_first_tokens(tokenizer, variants, stem + space) for space in (" ", "", "\n")]
    candidates = []
    for number in range(len(labels)):
        tokens = [token for spelling in spellings for token in spelling[number]]
        candidates.append(list(dict.fromkeys(tokens)))
    label_counts = Counter(chain.from_iterable(candidates))
    unique = []
    for label, tokens in zip(labels, candidates, strict=True):
        own = [token for token in tokens if label_counts[token] == 1]
        if not own:
            raise PipelineError(
                f"filter.calibrated: label '{label}' begins with the same token as another one, "
                "so the stored probabilities do not tell them apart; give them names that begin "
                "differently, or leave filter.calibrated and soft_labels out"
            )
        unique.append(own)
    return unique


def label_distribution(batch: Batch, labels: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the probability of each label, (N, L), at the answer's first token of any label.

    `labels` are those of `label_tokens`. See `label_masses` for labels without a stored token. A
    row is nan if the answer has no such token. Raises PipelineError for samples without logprobs.
    """
    owners = token_owners(labels)
    rows = []
    for sample in batch.samples:
        topk = stored_topk(batch, sample, "calibrated")
        rows.append(_sample_masses(topk, sample, owners, len(labels)))
    return np.array(rows, np.float32).reshape(len(rows), len(labels))


def label_places(batch: Batch, labels: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Return the position of the answer's first token of any label, and that label, (N, 2).

    Both are UNKNOWN if there is none.
    """
    owners = token_owners(labels)
    rows = []
    for sample in batch.samples:
        place = _label_place(sample, owners)
        if place is None or not sample.token_ids:
            rows.append((UNKNOWN, UNKNOWN))
        else:
            rows.append((place, owners[sample.token_ids[place]]))
    return np.array(rows, np.int32).reshape(len(rows), 2)


def written_label(batch: Batch, labels: Sequence[str]) -> NDArray[np.int16]:
    """Return the number of the label in each answer, (N,), or UNKNOWN."""
    return _label_numbers([sample.answer for sample in batch.samples], labels)


def true_label(batch: Batch, labels: Sequence[str]) -> NDArray[np.int16]:
    """Return the number of the label that is the ground truth, (N,), or UNKNOWN."""
    return _label_numbers([sample.seed.target for sample in batch.samples], labels)


@dataclass(frozen=True)
class Prior:
    """What calibration may use besides the rows.

    Args:
        shares: (L,) how frequent the labels are.
        content_free: (M, L) the label probabilities for inputs without content.
    """

    shares: Sequence[float] | None = None
    content_free: NDArray[np.float32] | None = None


NO_PRIOR = Prior()


def calibrate(p: NDArray[np.float32], prior: Prior = NO_PRIOR) -> NDArray[np.float32]:
    """Return label probabilities (N, L) calibrated for the prompt's bias.

    The prior decides about the method; without one it is batch calibration.
    """
    if prior.content_free is not None:
        return contextually_calibrate(p, prior.content_free)
    return batch_calibrate(p) if prior.shares is None else match_shares(p, prior.shares)


def batch_calibrate(p: NDArray[np.float32], bias: NDArray | None = None) -> NDArray[np.float32]:
    """Divide rows of p (N, L) by `bias` (L,) and normalise them (batch calibration).

    `bias` is what the prompt gives the labels whatever the input; by default the mean of the rows.
    The default assumes that the labels are equally frequent: if they are not, it moves answers from
    common labels to rare ones. It removes most of a bias, but not all of a strong one. Rows of nan
    stay and do not count. Source: Zhou et al., Batch Calibration, ICLR 2024.
    """
    rows = _normalise(p)
    if bias is None:
        bias = _mean_of_readable(rows, np.ones(p.shape[1]))
    # A label with a bias of 0 has no mass in any row.
    unbiased = np.where(np.isnan(rows), np.nan, np.zeros_like(rows))
    np.divide(rows, bias, where=bias > 0, out=unbiased)
    return _normalise(unbiased.astype(np.float32))


def match_shares(p: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.float32]:
    """Scale the labels of p (N, L) until their means are `shares` (L,), none of which is 0.

    The result does not depend on the strength of the bias, but the shares must be about right.
    Source: Liusie et al. 2023, Mitigating word bias in zero-shot prompt-based classifiers.
    """
    rows = _normalise(p)
    wanted = np.array(shares, np.float64) / np.sum(shares)
    for _ in range(MATCHING_STEPS):
        means = _mean_of_readable(rows, wanted)
        if np.abs(means - wanted).max() < MATCHED:
            break
        rows = batch_calibrate(rows, means / wanted)
    return rows


def contextually_calibrate(
    p: NDArray[np.float32], content_free: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Divide rows of p by the mean label probabilities for inputs without content.

    Such inputs are "N/A", an empty text or "[MASK]"; their probabilities are `content_free` (M, L),
    and rows of nan do not count. Rows are normalised where the paper has a softmax. A label without
    any mass there counts as `UNSEEN`. Source: Zhao et al., Calibrate Before Use, ICML 2021.
    """
    bias = _normalise(content_free[is_readable(content_free)]).mean(axis=0)
    return batch_calibrate(p, np.maximum(bias, UNSEEN))


def reject_unlikely_labels(
    rows: NDArray[np.int64],
    p: NDArray[np.float32],
    written: NDArray[np.int16],
    *,
    labels: Sequence[str],
    min_confidence: float | None = None,
    agree: bool = True,
    prior: Prior = NO_PRIOR,
) -> dict[int, Verdict]:
    """Reject answers by the label probabilities p, calibrated over `rows`.

    With `agree`, an answer that is not the most likely label is rejected as label_disagrees. An
    answer whose probability is below `min_confidence` is rejected as low_label_confidence.
    Unreadable rows pass. Raises PipelineError if all rows are unreadable.
    """
    readable = rows[is_readable(p[rows]) & (written[rows] != UNKNOWN)]
    if len(rows) and not len(readable):
        raise PipelineError(
            f"filter.calibrated: no answer of {len(rows):,} begins with a token of one of the "
            f"labels {', '.join(labels)}; does the prompt's answer span hold the label alone? "
            "If it cannot, leave filter.calibrated and soft_labels out"
        )
    calibrated = calibrate(p[readable], prior)
    own = calibrated[np.arange(len(readable)), written[readable]]
    best = calibrated.argmax(axis=1)
    disagrees = (best != written[readable]) & agree
    low = own < (-np.inf if min_confidence is None else min_confidence)
    verdicts = reject("low_label_confidence", readable[low & ~disagrees], own[low & ~disagrees])
    for number in np.flatnonzero(disagrees).tolist():
        value = f"{labels[best[number]]} {calibrated[number].max():.3f}"
        verdicts[int(readable[number])] = Verdict("label_disagrees", value)
    return verdicts


def soft_labels(
    p: NDArray[np.float32], labels: Sequence[Sequence[int]], prior: Prior = NO_PRIOR
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the first token of each label, (L,), and calibrated logprobs in nats, (N, L).

    Unreadable rows are nan.
    """
    first_tokens = np.array([tokens[0] for tokens in labels], np.int64)
    with np.errstate(divide="ignore"):
        return first_tokens, np.log(calibrate(p, prior))


def is_readable(p: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows have a distribution, (N,)."""
    return ~np.isnan(p).any(axis=1) & (p.sum(axis=1) > 0)


def _mean_of_readable(rows: NDArray[np.float32], default: NDArray) -> NDArray:
    readable = is_readable(rows)
    return rows[readable].mean(axis=0, dtype=np.float64) if readable.any() else default


def _normalise(p: NDArray) -> NDArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return p / p.sum(axis=1, keepdims=True)


def _first_tokens(tokenizer: Tokenizer, labels: Sequence[str], before: str) -> list[list[int]]:
    """Return each label's first token after those that all labels share.

    It is empty for a label that is the beginning of all others.
    """
    spelled = [_tokens(tokenizer, before, label) for label in labels]
    shared = 0
    if len(spelled) > 1:
        for tokens in zip(*spelled, strict=False):
            if len(set(tokens)) > 1:
                break
            shared += 1
    return [ids[shared : shared + 1] for ids in spelled]


def _tokens(tokenizer: Tokenizer, before: str, label: str) -> list[int]:
    """Return the tokens that hold the label. Its first may hold a space in front of it."""
    ids = tokenizer.encode_reply(before + label)[:-1]
    text = tokenizer.decode(ids)
    first, last = tokenizer.token_range(ids, text, len(text) - len(label), len(text))
    return ids[first:last]


def token_owners(labels: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return the number of the label that each token belongs to."""
    return {token: number for number, tokens in enumerate(labels) for token in tokens}


def first_label_token(
    token_ids: Sequence[int], answer: Range | None, owners: Mapping[int, int]
) -> int | None:
    """Return the position of the answer's first token of any label, or None."""
    positions = range(*(answer or (0, 0)))
    return next((position for position in positions if token_ids[position] in owners), None)


def label_masses(
    entries: Mapping[int, float], own: int, tail: float, owners: Mapping[int, int], labels: int
) -> NDArray[np.float64]:
    """Return the probability of each label at one position, (L,).

    `entries` are the stored tokens, `own` is the written one, and `tail` is the mass outside the
    entries. Labels without a stored token share the tail equally. None of them gets more than the
    least stored entry, since it cannot be more likely.
    """
    masses = np.zeros(labels)
    for token, mass in entries.items():
        if mass > 0 and token in owners:
            masses[owners[token]] += mass
    missing = masses == 0
    others = [mass for token, mass in entries.items() if token != own and mass > 0]
    masses[missing] = min(tail / max(missing.sum(), 1), *others, 1.0)
    return masses


def _sample_masses(
    topk: TopK, sample: Sample, owners: Mapping[int, int], labels: int
) -> NDArray[np.float64]:
    place = _label_place(sample, owners)
    if place is None:
        return np.full(labels, np.nan)
    masses = np.exp(topk.logprobs[place].astype(np.float64)).tolist()
    entries: dict[int, float] = {}
    for token, mass in zip(topk.ids[place].tolist(), masses, strict=True):
        entries[token] = entries.get(token, 0.0) + mass
    tail = float(np.exp(topk.tail[place]))
    return label_masses(entries, int(topk.ids[place, 0]), tail, owners, labels)


def _label_place(sample: Sample, owners: Mapping[int, int]) -> int | None:
    return first_label_token(sample.token_ids or [], sample.answer_tokens, owners)


def _label_numbers(texts: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int16]:
    number_of: dict[str | None, int] = {label: number for number, label in enumerate(labels)}
    numbers = [
        UNKNOWN if text is None else number_of.get(scorers.find_label(text, labels), UNKNOWN)
        for text in texts
    ]
    return np.array(numbers, np.int16)
