"""Forward KL over the whole vocabulary, from the hidden states of a live teacher, in chunks.

Dimension names: N tokens, n tokens of a chunk, V vocabulary, H hidden.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.losses.lm_head import (
    CHUNK_BYTES,
    LmHead,
    add_weight_gradient,
    scaled_gradients,
    soft_cap,
    sum_dtype,
)


def full_kl(hidden: Tensor, head: LmHead, teacher: Tensor, teacher_head: LmHead) -> Tensor:
    """Return KL(teacher || student) in nats, summed over N tokens.

    Neither (N, V) logits exist as a whole. If any gradient is needed, this call computes it too.
    Call backward at most once.

    Args:
        hidden: (N, H) hidden states of the student; its head may be trained.
        teacher: hidden states of the same tokens, of any width. No gradient reaches them.
    """
    needs_gradient = torch.is_grad_enabled()
    with torch.autocast(hidden.device.type, enabled=False):
        total: Tensor = _FullKL.apply(
            hidden, head.weight, head.bias, head, teacher.detach(), teacher_head, needs_gradient
        )
    return total


class _FullKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: LmHead,
        teacher: Tensor,
        teacher_head: LmHead,
        needs_gradient: bool,
    ) -> Tensor:
        dtype = sum_dtype(hidden)
        rows = max(1, CHUNK_BYTES // (4 * len(weight) * dtype.itemsize))
        shape = (4, min(rows, len(hidden)), len(weight))
        buffers = torch.empty(shape, dtype=dtype, device=hidden.device)
        total = torch.zeros((), dtype=dtype, device=hidden.device)
        at_hidden = torch.empty_like(hidden)
        at_weight = torch.zeros_like(weight, dtype=dtype) if needs_gradient else None
        at_bias = None if bias is None else torch.zeros_like(bias, dtype=dtype)
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            states = hidden[part]
            chunk = buffers[:, : len(states)]
            target = _log_softmax(teacher_head, teacher[part], chunk[0], chunk[3])
            value, grad = _chunk(head, states, target, chunk[1:])
            total += value
            if at_weight is None:
                continue
            at_hidden[part] = head.state_gradient(grad, states.dtype)
            add_weight_gradient(at_weight, grad, head.scaled(states))
            if at_bias is not None:
                at_bias.add_(grad.sum(dim=0), alpha=head.transform.scale)
        ctx.grads = (at_hidden, at_weight, at_bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> Any:  # type: ignore[override]
        return *scaled_gradients(ctx, scale), None, None, None, None


def _chunk(head: LmHead, states: Tensor, target: Tensor, buffers: Tensor) -> tuple[Tensor, Tensor]:
    """Return a chunk's KL and its (n, V) gradient at the student's scaled logits.

    With p and q the probabilities of teacher and student, the KL is p . (log p - log q) and its
    gradient at the logits q - p, times the slope of a soft-cap. `target` is log p, overwritten.
    """
    learned = _log_softmax(head, states, buffers[0], buffers[2])
    true = torch.exp(target, out=buffers[1])
    value = torch.linalg.vecdot(true, target.sub_(learned)).sum()
    grad = learned.exp_().sub_(true)
    return value, grad if head.transform.softcap is None else grad.mul_(buffers[2])


def _log_softmax(head: LmHead, states: Tensor, out: Tensor, slope: Tensor) -> Tensor:
    """Write (n, V) log-probabilities into `out`, and the slope of a soft-cap into `slope`."""
    z = head.logits(states, out)
    if head.transform.softcap is not None:
        soft_cap(z, head.transform.softcap, slope)
    return z.sub_(z.logsumexp(dim=1, keepdim=True))
