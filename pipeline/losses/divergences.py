"""Divergences between a teacher p and a student q over the same buckets.

Each takes log-probabilities (N, B) and returns (N,) nats. With a tail, B = K + 1. A bucket of
log-probability -inf has no mass and adds 0 to the value and to both gradients, since 0 log 0 = 0.
`mse` has no tail and is in nats squared.
Only `jsd` and `skew_kl` use `beta`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

RAREST = -25.0  # nats; the lowest log-probability of the .topk file


def forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(p || q), which is large if the student misses what the teacher writes.

    It is linear in p. Source: Hinton et al. 2015.
    """
    return _kl(teacher, student)


def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """Return -sum of p log q, the cross-entropy with the teacher's probabilities as soft targets.

    It is forward KL plus the entropy of p, so its gradient is the same. Its value is comparable
    with the cross-entropy on the text. Source: Hinton et al. 2015.
    """
    empty = teacher == -torch.inf
    p = teacher.masked_fill(empty, 0.0)  # masked first, as in _kl
    return -torch.where(empty, 0.0, p.exp() * student).sum(dim=1)


def reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(q || p), which is large if the student writes what the teacher would not.

    It would be infinite where the teacher has no mass. Stored logprobs are rounded and do not tell
    no mass from very little, so such buckets count as e^-25. Source: Gu et al. 2024, MiniLLM.
    """
    return _kl(student, teacher.clamp(min=RAREST))


def jsd(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Return the generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD, eq. 1):
    beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q.

    As beta goes to 0, jsd / beta goes to forward KL; as it goes to 1, jsd / (1 - beta) goes to
    reverse KL. At 0 and 1 jsd itself is 0, so these limits are returned instead, as is usual for
    GKD. The scale therefore jumps there.
    """
    if beta == 0.0:
        return forward_kl(teacher, student)
    if beta == 1.0:
        return reverse_kl(teacher, student)
    mixture = _mixture(teacher, student, beta)
    return beta * _kl(teacher, mixture) + (1.0 - beta) * _kl(student, mixture)


def skew_kl(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Return KL(p || beta p + (1 - beta) q), 0 <= beta < 1 (Ko et al. 2024, DistiLLM, eq. 4).

    It is forward KL at beta = 0. Otherwise it is at most -log(beta).
    """
    return forward_kl(teacher, student if beta == 0.0 else _mixture(teacher, student, beta))


def total_variation(teacher: Tensor, student: Tensor) -> Tensor:
    """Return half of the sum of |p - q|, at most 1 (Wen et al. 2023, f-Distill)."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(dim=1)


def mse(teacher: Tensor, student: Tensor) -> Tensor:
    """Return the mean squared difference of the logits over the teacher's entries, in nats squared.

    Logits are known up to a constant, so each side is centred: its mean over these entries is
    subtracted. All entries count alike, however rare. One entry alone has no difference. Source:
    Ba & Caruana 2014, Do Deep Nets Really Need to be Deep?, over the whole vocabulary.
    """
    used = teacher != -torch.inf
    count = used.sum(dim=1, keepdim=True).clamp(min=1)
    gap = torch.where(used, student - teacher, 0.0)
    centred = torch.where(used, gap - gap.sum(dim=1, keepdim=True) / count, 0.0)
    return centred.square().sum(dim=1) / count[:, 0]


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": lambda teacher, student, beta: forward_kl(teacher, student),
    "cross_entropy": lambda teacher, student, beta: cross_entropy(teacher, student),
    "reverse_kl": lambda teacher, student, beta: reverse_kl(teacher, student),
    "jsd": jsd,
    "skew_kl": skew_kl,
    "total_variation": lambda teacher, student, beta: total_variation(teacher, student),
    "mse": lambda teacher, student, beta: mse(teacher, student),
}


def renormalise(entries: Tensor) -> Tensor:
    """Return (N, K) log-probabilities whose probabilities sum to 1 over the entries.

    Each row must have an entry that is not -inf.
    """
    return entries - entries.logsumexp(dim=1, keepdim=True)


def fold(entries: Tensor, tail: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Move the random draws into the tail. They are the entries from column `exact` (N,) on."""
    drawn = torch.arange(entries.shape[1], device=entries.device) >= exact[:, None]  # (N, K)
    mass = entries.masked_fill(~drawn, -torch.inf).logsumexp(dim=1)
    return entries.masked_fill(drawn, -torch.inf), torch.logaddexp(tail, mass)


def soften(entries: Tensor, tail: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the teacher's K entries and tail at another temperature.

    The arguments are at temperature 1, and all entries must be exact. The ratios between entries
    are then exact too. The tail's weight is an estimate, because the file does not store how the
    tail's mass m is spread. The estimate assumes m / p_K tokens of probability p_K, the smallest
    stored one, which no token of the tail exceeds. Above temperature 1 the true weight is at least
    that, below 1 at most, since x^(1/T) is then convex. p_K leaves out column 0, the sampled token,
    which may be far rarer than the others, unless it is the only entry.
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
    p = p.masked_fill(empty, 0.0)  # masked first, because the gradients below would be 0 * inf
    return torch.where(empty, 0.0, p.exp() * (p - q)).sum(dim=1)


def _mixture(p: Tensor, q: Tensor, beta: float) -> Tensor:
    """Return log(beta p + (1 - beta) q). Where p and q are both 0, return any finite number, since
    it is multiplied by 0."""
    q = q.masked_fill((p == -torch.inf) & (q == -torch.inf), 0.0)
    return torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
