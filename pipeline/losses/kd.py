"""Distillation from stored distributions."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.divergence import forward_kl, soften
from pipeline.losses.sparse import sparse_logprobs


@dataclass(frozen=True)
class Logits:
    """What a model does to hidden states @ lm_head before they are its logits."""

    scale: float = 1.0
    softcap: float | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class Teacher:
    """The teacher's distributions of N tokens."""

    ids: Tensor  # (N, K)
    logprobs: Tensor  # (N, K), -inf where a token has fewer entries
    tail: Tensor  # (N,) log of the mass outside the entries
    exact: Tensor  # (N,) how many entries, from the left, are exact
    known: Tensor  # (N,) bool; False: nothing is known of the token's distribution


@dataclass(frozen=True)
class Objective:
    """What is minimised."""

    alpha: float = 1.0
    temperature: float = 1.0
    divergence: str = "forward_kl"
    beta: float = 0.5
    tail: str = "bucket"


class Loss(NamedTuple):
    """Sums over tokens, nats, already weighted: `total` is what is minimised."""

    total: Tensor
    ce: Tensor
    kd: Tensor
    ce_grad: Tensor | None = None
    kd_grad: Tensor | None = None


def distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    objective: Objective,
    teacher: Teacher | None = None,
    weights: Tensor | None = None,
    logits: Logits = Logits(),
    shares: bool = False,
) -> Loss:
    """alpha * CE + (1 - alpha) * T^2 * D(teacher || student), summed over tokens."""
    ids = labels.new_empty((len(labels), 0)) if teacher is None else teacher.ids
    used = ids.bool() if teacher is None else teacher.logprobs != -torch.inf
    student = sparse_logprobs(hidden, weight, labels, ids, used, objective.temperature)
    each = torch.ones_like(student.label) if weights is None else weights
    if teacher is None:
        ce = -(each * student.label).sum()
        return Loss(ce, ce.detach(), ce.detach() * 0)
    alpha = torch.where(teacher.known, torch.full_like(student.label, objective.alpha), 1.0)
    ce = -(alpha * each * student.label).sum()
    entries, rest = soften(teacher.logprobs, teacher.tail, objective.temperature)
    divergence = forward_kl(torch.cat([entries, rest[:, None]], 1), torch.cat([student.entries, student.tail[:, None]], 1))
    kd = (1.0 - objective.alpha) * objective.temperature**2 * (divergence * each * teacher.known).sum()
    if not shares:
        return Loss(ce + kd, ce.detach(), kd.detach())
    norms = [torch.autograd.grad(part, hidden, retain_graph=True)[0].norm() for part in (ce, kd)]
    return Loss(ce + kd, ce.detach(), kd.detach(), *norms)
