"""Divergences between two distributions over the same buckets, given as log-probabilities (N, K + 1), the tail last."""

import torch
from torch import Tensor


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """(N,) sum over buckets of p (log p - log q), nats; a bucket that the teacher gives nothing adds nothing."""
    terms = teacher.exp() * (teacher - student)
    return torch.where(teacher == -torch.inf, 0.0, terms).sum(dim=1)


def soften(entries: Tensor, tail: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The teacher's K entries and tail (log-probabilities at temperature 1) at another temperature.

    Exact for the entries among themselves. How the tail's mass m is spread is not stored; it is taken to lie on m / p_K tokens as
    likely as the least of the kept top entries p_K, which is the least that the tail can weigh at a temperature above 1. Column 0, the
    sampled token, may be far rarer than the top entries and says nothing of the tail; it decides only where it is alone.
    """
    if temperature == 1.0:
        return entries, tail
    top = entries[:, 1:].masked_fill(entries[:, 1:] == -torch.inf, torch.inf)
    least = torch.cat([top, entries.new_full((len(entries), 1), torch.inf)], 1).amin(dim=1)  # (N,)
    least = torch.where(least == torch.inf, entries[:, 0], least)
    entries, tail = entries / temperature, tail - least + least / temperature
    whole = torch.logaddexp(entries.logsumexp(dim=1), tail)
    return entries - whole[:, None], tail - whole
