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
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher || student) over K + 1 buckets (Hinton et al. 2015, with a tail bucket), summed over tokens.

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
