"""Divergences between a teacher p and a student q over the same buckets.

Pure functions of log-probabilities (N, B), B = K + 1 with a tail, to (N,) nats. A bucket of
log-probability -inf has no mass: 0 log 0 = 0, in the value and in both gradients. `beta` is that of
`jsd` and `skew_kl`; the others ignore it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

RAREST = -25.0  # nats; the lowest log-probability of the .topk file


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(p || q): the student must cover all that the teacher does (Hinton et al. 2015). It
    is linear in p."""
    return _kl(teacher, student)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(q || p): the student must stay where the teacher is (Gu et al. 2024, MiniLLM).

    It is infinite where the teacher has no mass. A file that rounds cannot say so, so such buckets
    count as e^-25.
    """
    return _kl(student, teacher.clamp(min=RAREST))


def jsd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD, eq. 1):
    beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.

    As beta goes to 0, jsd / beta goes to forward KL; as it goes to 1, jsd / (1 - beta) goes to
    reverse KL. At 0 and 1, where jsd is 0, these limits are returned, as is usual for GKD. Mind the
    jump in scale.
    """
    if beta == 0.0:
        return forward_kl(teacher, student)
    if beta == 1.0:
        return reverse_kl(teacher, student)
    mixture = _mixture(teacher, student, beta)
    return beta * _kl(teacher, mixture) + (1.0 - beta) * _kl(student, mixture)


def skew_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Return KL(p || beta p + (1 - beta) q), 0 <= beta < 1 (Ko et al. 2024, DistiLLM, eq. 4). It is
    forward KL at 0, and never above -log(beta)."""
    return forward_kl(teacher, student if beta == 0.0 else _mixture(teacher, student, beta))


def total_variation(teacher: Tensor, student: Tensor) -> Tensor:
    """Return half of the sum of |p - q|, at most 1 (Wen et al. 2023, f-Distill)."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(dim=1)


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": lambda teacher, student, beta: forward_kl(teacher, student),
    "reverse_kl": lambda teacher, student, beta: reverse_kl(teacher, student),
    "jsd": jsd,
    "skew_kl": skew_kl,
    "total_variation": lambda teacher, student, beta: total_variation(teacher, student),
}


def renormalise(entries: Tensor) -> Tensor:
    """Return (N, K) log-probabilities whose probabilities sum to 1 over the entries; each row must
    have one that is not -inf."""
    return entries - entries.logsumexp(dim=1, keepdim=True)


def fold(entries: Tensor, tail: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Move the random draws, which are the entries from column `exact` (N,) on, into the tail."""
    drawn = torch.arange(entries.shape[1], device=entries.device) >= exact[:, None]  # (N, K)
    mass = entries.masked_fill(~drawn, -torch.inf).logsumexp(dim=1)
    return entries.masked_fill(drawn, -torch.inf), torch.logaddexp(tail, mass)


def soften(entries: Tensor, tail: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the teacher's K entries and tail at another temperature.

       All entries are exact, and given at temperature 1.
    The result is exact for the entries
       among themselves. How the tail's mass m is spread is not
       stored; m / p_K tokens of the probability p_K are assumed, the smallest of the stored top
       entries. At a temperature above 1 this is the least that the tail can weigh. Column 0, the
       sampled token, may be far rarer than the top entries, so it counts only where it is alone.
    """
    if temperature == 1.0:
        return entries, tail
    top = entries[:, 1:].masked_fill(entries[:, 1:] == -torch.inf, torch.inf)
    no_top = entries.new_full((len(entries), 1), torch.inf)
    least = torch.cat([top, no_top], 1).amin(dim=1)  # (N,)
    least = torch.where(least == torch.inf, entries[:, 0], least)
    entries = entries / temperature
    tail = tail - least + least / temperature
    whole = torch.logaddexp(entries.logsumexp(dim=1), tail)
    return entries - whole[:, None], tail - whole


def _kl(p: Tensor, q: Tensor) -> Tensor:
    empty = p == -torch.inf
    p = p.masked_fill(empty, 0.0)  # before exp and product, whose gradients would be 0 * inf
    return torch.where(empty, 0.0, p.exp() * (p - q)).sum(dim=1)


def _mixture(p: Tensor, q: Tensor, beta: float) -> Tensor:
    """Return log(beta p + (1 - beta) q). Where both are empty it is any finite number, which is
    multiplied by 0."""
    q = q.masked_fill((p == -torch.inf) & (q == -torch.inf), 0.0)
    return torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
