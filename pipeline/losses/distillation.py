"""The loss that the trainer minimises: distillation from stored distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.divergences import DIVERGENCES, fold, renormalise, soften
from pipeline.losses.fused import Divergence, Terms, fused_loss
from pipeline.losses.lm_head import Logits as Logits
from pipeline.losses.lm_head import sum_dtype

PLAIN = Logits()
HALF = 0.5  # alpha under which hard and soft label count alike


@dataclass(frozen=True)
class Teacher:
    """The teacher's distributions of N tokens (docs/reference/topk.md).

    Attributes:
        ids: (N, K) token ids, distinct within a row where used.
        logprobs: (N, K) nats, -inf in unused slots. Column 0 is the sampled token. For a random
            draw, the log of the mass that the draw represents.
        tail: (N,) log of the mass outside the entries.
        exact: (N,) how many entries, from the left, are exact; the others are draws.
        known: (N,) bool. It is False for a token without a distribution, whose row is not read.
        alpha: (N,) alpha of single tokens, nan where that of the objective counts. None if it
            counts everywhere.
    """

    ids: Tensor
    logprobs: Tensor
    tail: Tensor
    exact: Tensor
    known: Tensor
    alpha: Tensor | None = None

    def at(self, tokens: Tensor | slice) -> "Teacher":
        """Return the distributions of some of the tokens."""
        return Teacher(
            **{name: None if all_ is None else all_[tokens] for name, all_ in vars(self).items()}
        )


@dataclass(frozen=True)
class Objective:
    """The loss of a token with a teacher's distribution, times the token's weight:

        alpha * CE + (1 - alpha) * T^2 * D(teacher || student)

    The loss of a token without such a distribution is CE alone.

    Forward KL and cross-entropy at temperature 1 with a tail bucket use random draws like exact
    entries. They are linear in the teacher's probabilities, so the mean of the gradient over the
    draws equals the gradient from the teacher's whole top k. The other objectives are not linear.
    They would treat a draw as one token with the probability of all tokens that it represents.
    Therefore they fold the draws into the tail, or leave them out where there is no tail. Inside
    the tail, the loss does not say which tokens get the mass: the student decides.

    Attributes:
        alpha: weight of the cross-entropy, or a name in ALPHAS, which gives each token its own.
        temperature: T, on both sides of D. T^2 keeps the size of D's gradient. See `soften`.
        divergence: a name in DIVERGENCES.
        beta: parameter of jsd and skew_kl.
        tail: "bucket" counts all other tokens as one more bucket; "renormalise" leaves them out, on
            both sides. The divergence "mse" always leaves them out.
    """

    alpha: float | str = 1.0
    temperature: float = 1.0
    divergence: str = "forward_kl"
    beta: float = 0.5
    tail: str = "bucket"

    @property
    def uses_draws(self) -> bool:
        """True if the loss is linear in the teacher's probabilities."""
        is_linear = self.divergence in ("forward_kl", "cross_entropy")
        return is_linear and self.temperature == 1.0 and self.tail == "bucket"


def confidence(teacher: Teacher) -> Tensor:
    """Return the teacher's probability of the written token, (N,). It is near 1 where the teacher
    is sure of what it wrote, so the hard label counts there."""
    return teacher.logprobs[:, 0].exp()


def entropy(teacher: Teacher) -> Tensor:
    """Return exp(-H), (N,), with the teacher's entropy H in nats over the entries and the tail.

    It is 1 for a certain teacher and 1 / n for n equally likely tokens. The tail counts as one
    token, and so does each draw. The idea of a mixture per token is from arXiv 2605.26246
    (Bridge-Garden); this formula is ours and may differ.
    """
    buckets = torch.cat([teacher.logprobs, teacher.tail[:, None]], 1)
    return torch.special.entr(buckets.exp()).sum(dim=1).neg().exp()


def even(teacher: Teacher) -> Tensor:
    """Return HALF, (N,): hard and soft label count alike. The tokens of a closed answer have an
    alpha of their own, in `Teacher.alpha`."""
    return torch.full_like(teacher.tail, HALF)


ALPHAS: dict[str, Callable[[Teacher], Tensor]] = {
    "answer": even,
    "confidence": confidence,
    "entropy": entropy,
}


class Loss(NamedTuple):
    """Weighted sums over tokens in nats; `total` is minimised."""

    total: Tensor
    ce: Tensor
    kd: Tensor
    ce_grad: Tensor | None = None  # L2 norms of the gradients of ce and kd at `hidden`, if measured
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
    """Return the objective summed over N tokens. Call backward on it at most once.

    `fused.fused_loss` says how much memory it takes.

    Args:
        hidden: (N, H) hidden states of the student, at the positions that predict `labels`. If N is
            0, the loss and its gradients are 0.
        weight: (V, H) weight of the student's lm_head.
        labels: (N,) token ids.
        teacher: distributions of the same N tokens. None if no token has one.
        weights: (N,) weights of the tokens; 1 if None.
        logits: how the model computes logits from hidden states and `weight`.
        shares: also measure the gradients of CE and KD separately, for logging.
    """
    dtype = sum_dtype(hidden)
    factors = hidden.new_ones(len(labels), dtype=dtype) if weights is None else weights.to(dtype)
    if teacher is None:
        no_ids = labels.new_zeros((len(labels), 0))
        terms = Terms(labels, factors, no_ids, no_ids.bool())
    else:
        terms = _terms(labels, factors, objective, teacher)
    return Loss(*fused_loss(hidden, weight, terms, logits, shares))


def _terms(labels: Tensor, factors: Tensor, objective: Objective, teacher: Teacher) -> Terms:
    alpha = _alpha(objective, teacher)
    ce = torch.where(teacher.known, alpha * factors, factors)
    is_plain = objective.alpha == 1.0 and teacher.alpha is None
    if is_plain or not teacher.ids.shape[1]:
        no_ids = teacher.ids[:, :0]
        return Terms(labels, ce, no_ids, no_ids.bool())
    entries, tail = teacher.logprobs.to(factors.dtype), teacher.tail.to(factors.dtype)
    if not objective.uses_draws:
        entries, tail = fold(entries, tail, teacher.exact)
    known = teacher.known & (entries != -torch.inf).any(dim=1)
    # tokens without a distribution get one that is finite in every divergence, and the factor 0
    certain = torch.full_like(entries, -torch.inf)
    certain[:, 0] = 0.0
    entries = torch.where(known[:, None], entries, certain)
    tail = tail.masked_fill(~known, -torch.inf)
    used = entries != -torch.inf
    ids = teacher.ids.masked_fill(~(used & known[:, None]), 0)
    kd = (1.0 - alpha) * objective.temperature**2 * factors.masked_fill(~known, 0.0)
    divergence = _divergence(objective, entries, tail, kd)
    return Terms(labels, ce, ids, used, divergence, objective.temperature)


def _alpha(objective: Objective, teacher: Teacher) -> float | Tensor:
    """Return alpha, or that of each token, (N,), which is 1 for one without a distribution."""
    alpha: float | Tensor
    if isinstance(objective.alpha, str):
        alpha = ALPHAS[objective.alpha](teacher).clamp(max=1.0)
        alpha = torch.where(teacher.known, alpha, 1.0)
    else:
        alpha = objective.alpha
    if teacher.alpha is None:
        return alpha
    return torch.where(teacher.alpha.isnan(), alpha, teacher.alpha.to(teacher.logprobs.dtype))


def _divergence(objective: Objective, entries: Tensor, tail: Tensor, factors: Tensor) -> Divergence:
    """Return a function of the student's entries and tail: its divergence from the teacher's.

    The teacher has `entries` (N, K) and `tail` (N,). The divergence of each token is multiplied by
    its factor (N,).
    """

    def buckets(head: Tensor, rest: Tensor) -> Tensor:
        if objective.divergence == "mse":
            return head
        if objective.tail == "renormalise":
            return renormalise(head)
        return torch.cat([head, rest[:, None]], 1)

    measure = DIVERGENCES[objective.divergence]
    teacher = buckets(*soften(entries, tail, objective.temperature))

    def divergence(head: Tensor, rest: Tensor, part: slice) -> Tensor:
        return factors[part] * measure(teacher[part], buckets(head, rest), objective.beta)

    return divergence
