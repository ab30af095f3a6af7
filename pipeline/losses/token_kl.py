"""Measure how close a student is to its teacher, token by token. This is not a training loss.

Dimension names: N tokens, K entries of a token, V vocabulary, H hidden.
"""

import torch
from torch import Tensor

from pipeline.losses.distillation import Teacher
from pipeline.losses.divergences import RAREST, fold, forward_kl
from pipeline.losses.fused import Terms, fused_loss
from pipeline.losses.lm_head import BLOCK_ELEMENTS, Logits


def token_kl(hidden: Tensor, weight: Tensor, teacher: Teacher, logits: Logits) -> Tensor:
    """Return the forward KL from the teacher to the student, (N,) in nats.

    The exact entries are compared one by one, and all other tokens as one bucket. Differences
    within the bucket are not measured, so the value is a lower bound of the KL over all tokens.

    Args:
        hidden: (N, H) hidden states of the student.
        weight: (V, H) weight of the student's lm_head.
        teacher: distributions of the same N tokens. Every token must have one.
    """
    entries, tail = fold(teacher.logprobs, teacher.tail, teacher.exact)
    buckets = torch.cat([entries, tail[:, None]], 1)
    values = hidden.new_zeros(len(hidden))

    def measure(head: Tensor, rest: Tensor, part: slice) -> Tensor:
        # the clamp keeps the KL finite where the student gives a token the probability 0
        student = torch.cat([head, rest[:, None]], 1).clamp(min=RAREST)
        values[part] = forward_kl(buckets[part], student).to(values.dtype)
        return values[part]

    no_ce = torch.zeros_like(values)
    terms = Terms(teacher.ids[:, 0], no_ce, teacher.ids, entries != -torch.inf, measure)
    with torch.no_grad():
        fused_loss(hidden, weight, terms, logits)
    return values


def most_likely(hidden: Tensor, weight: Tensor, logits: Logits) -> Tensor:
    """Return (N,) ids of the student's most likely tokens.

    Scale and soft-cap are left out, because they do not change the order of the logits.
    """
    best = hidden.new_full((len(hidden),), -torch.inf)
    ids = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    step = max(1, BLOCK_ELEMENTS // max(len(hidden), weight.shape[1]))
    for first in range(0, len(weight), step):
        part = slice(first, first + step)
        z = hidden @ weight[part].to(hidden.dtype).T
        if logits.bias is not None:
            z = z + logits.bias[part].to(z.dtype)
        top, place = z.max(dim=1)
        ids = torch.where(top > best, place + first, ids)
        best = torch.maximum(best, top)
    return ids
