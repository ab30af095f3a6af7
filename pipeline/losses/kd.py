"""Distillation from stored distributions."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.divergence import forward_kl, soften
from pipeline.losses.sparse import sparse_logprobs


class Loss(NamedTuple):
    """Sums over tokens, nats, already weighted: `total` is what is minimised."""

    total: Tensor
    ce: Tensor
    kd: Tensor


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Loss:
    """Cross-entropy on the labels, summed over tokens, by the same primitive: what `sparse_kd` is at alpha 1."""
    nothing = labels.new_empty((len(labels), 0))
    ce = -sparse_logprobs(hidden, weight, labels, nothing, nothing.bool()).label.sum()
    return Loss(ce, ce.detach(), ce.detach() * 0)


def sparse_kd(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    tail: Tensor,
    alpha: float,
    temperature: float = 1.0,
) -> Loss:
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher || student), summed over tokens.

    The divergence is over K + 1 buckets: the entries and the tail (Hinton et al. 2015, with a tail bucket).

    Args:
        hidden: (N, H) of the student, at the positions that predict `labels`.
        weight: (V, H) of its lm_head.
        labels: (N,).
        ids, logprobs: (N, K) of the teacher; an unused entry has logprob -inf.
        tail: (N,) log of the mass outside the entries.
    """
    student = sparse_logprobs(hidden, weight, labels, ids, logprobs != -torch.inf, temperature)
    ce = -alpha * student.label.sum()
    entries, rest = soften(logprobs, tail, temperature)
    divergence = forward_kl(torch.cat([entries, rest[:, None]], 1), torch.cat([student.entries, student.tail[:, None]], 1))
    kd = (1.0 - alpha) * temperature**2 * divergence.sum()
    return Loss(ce + kd, ce.detach(), kd.detach())
