"""Distillation from stored distributions: what the trainer minimises."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.divergences import DIVERGENCES, fold, renormalise, soften
from pipeline.losses.fused import Divergence, Terms, fused_loss
from pipeline.losses.fused import Logits as Logits

PLAIN = Logits()


@dataclass(frozen=True)
class Teacher:
    """The teacher's distributions of N tokens. A drawn entry's logprob is the log of the mass it stands for (docs/reference/topk.md)."""

    ids: Tensor  # (N, K), distinct within a row where used
    logprobs: (
        Tensor  # (N, K) nats, -inf where a token has fewer entries; column 0 is the sampled token
    )
    tail: Tensor  # (N,) log of the mass outside the entries
    exact: Tensor  # (N,) how many of the entries, from the left, are exact; the others are draws
    known: Tensor  # (N,) bool; False: no distribution is known for the token, and nothing is read of its row


@dataclass(frozen=True)
class Objective:
    """weight * (alpha * CE + (1 - alpha) * T^2 * D(teacher || student)) of a token that has a teacher, weight * CE of one that has none.

    A frame's draws are used as they are by forward KL at temperature 1 with a tail bucket. That loss is linear in the teacher's
    probabilities, so its gradient is, on average over the draws, that of all of the teacher's top k; the mass beyond it goes to all that is
    not stored, as the student spreads it. Nothing else is linear: there a draw would be taken for one token as likely as all that it stands
    for. So for every other divergence, temperature or tail the draws are folded into the tail, and the head is exact; under `renormalise`,
    which has no tail, that means that they are left out.
    """

    alpha: float = 1.0  # weight of the cross-entropy
    temperature: float = 1.0  # of both sides of D; the factor T^2 keeps its gradient's size. See `soften` for the teacher's tail
    divergence: str = "forward_kl"  # a name in DIVERGENCES
    beta: float = 0.5  # of jsd and skew_kl
    tail: str = "bucket"  # all other tokens are one more bucket; renormalise: they are left out, on both sides

    @property
    def uses_draws(self) -> bool:
        return self.divergence == "forward_kl" and self.temperature == 1.0 and self.tail == "bucket"


class Loss(NamedTuple):
    """Sums over tokens, nats, already weighted: `total` is what is minimised."""

    total: Tensor
    ce: Tensor
    kd: Tensor
    ce_grad: Tensor | None = (
        None  # L2 norms of the gradients of the two parts at `hidden`, where asked for
    )
    kd_grad: Tensor | None = None


def distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    objective: Objective,
    teacher: Teacher | None = None,
    weights: Tensor | None = None,
    logits: Logits = PLAIN,
    shares: bool = False,
) -> Loss:
    """The objective, summed over N tokens; its gradient can be asked for once. Memory: see `losses.sparse.fused_loss`.

    Args:
        hidden: (N, H) of the student, at the positions that predict `labels`. N = 0 gives 0, and gradients of 0.
        weight: (V, H) of its lm_head.
        labels: (N,) token ids.
        teacher: of the same N tokens; None is one that knows none of them.
        weights: (N,) of the tokens, 1 if None.
        logits: what the model does between `weight` and its logits.
        shares: measure the gradients of the two parts apart; for logging steps.
    """
    kind = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    factors = hidden.new_ones(len(labels), dtype=kind) if weights is None else weights.to(kind)
    if teacher is None:
        terms = Terms(
            labels,
            factors,
            labels.new_zeros((len(labels), 0)),
            labels.new_zeros((len(labels), 0), dtype=torch.bool),
        )
    else:
        terms = _terms(labels, factors, objective, teacher)
    return Loss(*fused_loss(hidden, weight, terms, logits, shares))


def _terms(labels: Tensor, factors: Tensor, objective: Objective, teacher: Teacher) -> Terms:
    ce = torch.where(teacher.known, objective.alpha * factors, factors)
    width = teacher.ids.shape[1] if objective.alpha < 1.0 else 0
    if not width:
        return Terms(labels, ce, teacher.ids[:, :0], teacher.known[:, None][:, :0])
    entries, tail = teacher.logprobs.to(factors.dtype), teacher.tail.to(factors.dtype)
    if not objective.uses_draws:
        entries, tail = fold(entries, tail, teacher.exact)
    known = teacher.known & (entries != -torch.inf).any(dim=1)
    # rows that say nothing get a distribution that is finite in every divergence, and the factor 0
    sure = torch.full_like(entries, -torch.inf).index_fill_(
        1, tail.new_zeros(1, dtype=torch.long), 0.0
    )
    entries, tail = torch.where(known[:, None], entries, sure), tail.masked_fill(~known, -torch.inf)
    used = entries != -torch.inf
    ids = teacher.ids.masked_fill(~(used & known[:, None]), 0)
    kd = (1.0 - objective.alpha) * objective.temperature**2 * factors.masked_fill(~known, 0.0)
    return Terms(
        labels, ce, ids, used, _divergence(objective, entries, tail, kd), objective.temperature
    )


def _divergence(objective: Objective, entries: Tensor, tail: Tensor, factors: Tensor) -> Divergence:
    """From the teacher's entries (N, K), tail (N,) and the factors of its tokens (N,)."""

    def buckets(head: Tensor, rest: Tensor) -> Tensor:
        return (
            renormalise(head)
            if objective.tail == "renormalise"
            else torch.cat([head, rest[:, None]], 1)
        )

    measure = DIVERGENCES[objective.divergence]
    known = buckets(*soften(entries, tail, objective.temperature))
    return lambda head, rest, part: (
        factors[part] * measure(known[part], buckets(head, rest), objective.beta)
    )
