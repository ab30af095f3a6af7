"""How near a student is to its teacher, token by token, for measuring rather than for training.

Dimension names: N tokens, K entries of a token, V vocabulary, H hidden.
"""

import torch
from torch import Tensor

from pipeline.losses.distillation import Teacher
from pipeline.losses.divergences import RAREST, fold, forward_kl
from pipeline.losses.fused import BLOCK_ELEMENTS, Logits, Terms, fused_loss


def token_kl(hidden: Tensor, weight: Tensor, teacher: Teacher, logits: Logits) -> Tensor:
    """(N,) forward KL of the student from the teacher over its exact entries and one bucket of all else, nats; what lies within the bucket
    is not seen, so this is a lower bound of the whole KL.

    Args:
        hidden: (N, H) of the student; `weight` (V, H) of its lm_head.
        teacher: of the same N tokens, all of them known.
    """
    entries, tail = fold(teacher.logprobs, teacher.tail, teacher.exact)
    whole = torch.cat([entries, tail[:, None]], 1)
    found = hidden.new_zeros(len(hidden))

    def keep(head: Tensor, rest: Tensor, part: slice) -> Tensor:
        student = torch.cat([head, rest[:, None]], 1).clamp(
            min=RAREST
        )  # far from what it rules out, not endlessly
        found[part] = forward_kl(whole[part], student).to(found.dtype)
        return found[part]

    with torch.no_grad():
        fused_loss(
            hidden,
            weight,
            Terms(teacher.ids[:, 0], found * 0.0, teacher.ids, entries != -torch.inf, keep),
            logits,
        )
    return found


def most_likely(hidden: Tensor, weight: Tensor, logits: Logits) -> Tensor:
    """(N,) id of each token that the student would write; a scale and a soft-cap do not change which that is."""
    best, ids = (
        hidden.new_full((len(hidden),), -torch.inf),
        torch.zeros(len(hidden), dtype=torch.long, device=hidden.device),
    )
    step = max(1, BLOCK_ELEMENTS // max(len(hidden), weight.shape[1]))
    for first in range(0, len(weight), step):
        part = slice(first, first + step)
        z = hidden @ weight[part].to(hidden.dtype).T
        top, place = (z if logits.bias is None else z + logits.bias[part].to(z.dtype)).max(dim=1)
        ids = torch.where(top > best, place + first, ids)
        best = torch.maximum(best, top)
    return ids
