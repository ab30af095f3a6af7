"""Compute the loss and its gradients from hidden states and the lm_head, in chunks of tokens.

The (N, V) logits never exist as a whole, and none is computed twice. The loss is a sum over tokens,
so the gradient of a chunk needs that chunk alone. The forward pass computes loss and gradient of
one chunk after the other, and the backward pass only scales the gradients. The idea is from Hsu et
al. 2024 (Liger Kernel), who use it for cross-entropy. It is plain torch on every device; nothing
here has been run on a GPU.

How a chunk of n tokens is computed:
1. logits z (n, V), scaled and soft-capped (`lm_head.py`);
2. the student's distribution at the K entries of the teacher and the tail, which is everything
   else as one bucket (`_distribution`);
3. cross-entropy and divergence from these few numbers, and their gradients at the
   log-probabilities of entries, tail and label (`_chunk`, `_divergence`);
4. the gradient at z from those (`_logit_gradient`, with its derivation);
5. the gradients at hidden states, weight and bias by matrix products (`_accumulate`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.losses.lm_head import (
    CHUNK_BYTES,
    LmHead,
    Logits,
    add_weight_gradient,
    scaled_gradients,
    soft_cap,
    sum_dtype,
)

Divergence = Callable[[Tensor, Tensor, slice], Tensor]


class Sums(NamedTuple):
    """Sums over tokens; `total` = ce + kd carries the gradient."""

    total: Tensor
    ce: Tensor
    kd: Tensor
    ce_grad: Tensor | None  # L2 norm of the gradient of `ce` alone at `hidden`
    kd_grad: Tensor | None


@dataclass(frozen=True)
class Terms:
    """The terms of the loss of N tokens.

    Attributes:
        labels: (N,) token ids.
        factors: (N,) by which each token's cross-entropy is multiplied.
        ids: (N, K) token ids, distinct within a row where used, arbitrary where not.
        used: (N, K) bool; the student's mass on an unused entry counts as tail.
        divergence: takes the student's `entries` (n, K) and `tail` (n,), log-probabilities at
            `temperature`, and the slice of tokens that they belong to. Returns the loss (n,) that
            is added to the cross-entropy, with a gradient of 0 at -inf. None adds nothing.
        temperature: divides the logits for the divergence, not for the cross-entropy.
    """

    labels: Tensor
    factors: Tensor
    ids: Tensor
    used: Tensor
    divergence: Divergence | None = None
    temperature: float = 1.0


def fused_loss(
    hidden: Tensor, weight: Tensor, terms: Terms, logits: Logits, shares: bool = False
) -> Sums:
    """Return the summed loss of `terms`, with softmax over the logits.

    If any gradient is needed, this call computes it too. Call backward at most once.

    Matrix products have the dtype of `hidden`. Sums, and the gradients of weight and bias until
    they are returned, are in float32 (float64 if `hidden` is). The softmax covers all rows of
    `weight`, as in the model, even those without a token in the tokenizer. Besides the gradients,
    at most CHUNK_BYTES and a few blocks of BLOCK_ELEMENTS are in memory at a time.

    Args:
        hidden: (N, H) hidden states; N may be 0.
        weight: (V, H) weight of the lm_head, in any floating type.
        shares: also measure `ce_grad` and `kd_grad`. This costs two more matrix products a chunk.
    """
    needed = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in (hidden, weight, logits.bias)
    )
    with torch.autocast(hidden.device.type, enabled=False):
        total, (ce, kd, ce_grad, kd_grad) = _Fused.apply(
            hidden, weight, logits.bias, terms, logits, shares, needed
        )
    return Sums(total, ce, kd, ce_grad if shares else None, kd_grad if shares else None)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        terms: Terms,
        logits: Logits,
        shares: bool,
        needed: tuple[bool, bool, bool],
    ) -> Any:
        head = LmHead(weight, bias, logits)
        dtype = sum_dtype(hidden)
        grads = _Grads(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=dtype) if needed[1] else None,
            torch.zeros_like(bias, dtype=dtype) if needed[2] and bias is not None else None,
        )
        # one (n, V) buffer for the logits, one for a second gradient, one for the soft-cap's slope
        count = 1 + (shares or terms.temperature != 1.0) + (logits.softcap is not None)
        rows = max(1, CHUNK_BYTES // (count * len(weight) * dtype.itemsize))
        shape = (count, min(rows, len(hidden)), len(weight))
        buffers = torch.empty(shape, dtype=dtype, device=hidden.device)
        sums = torch.zeros(2, dtype=dtype, device=hidden.device)  # ce, kd
        squares = torch.zeros(2, dtype=dtype, device=hidden.device)  # squared norms of gradients
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            states = hidden[part]
            losses, gradients = _chunk(
                head, states, terms, part, buffers[:, : len(states)], any(needed) or shares, shares
            )
            sums += losses
            if gradients:
                squares += _accumulate(grads, head, states, part, gradients, shares)
        ctx.grads = grads
        ctx.dtypes = (weight.dtype, bias.dtype if bias is not None else None)
        measured = torch.cat([sums, squares.sqrt()])
        ctx.mark_non_differentiable(measured)
        return sums[0] + sums[1], measured

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Any) -> Any:  # type: ignore[override]
        return *scaled_gradients(ctx, scale), None, None, None, None


class _Grads(NamedTuple):
    """The gradients that are needed; those of weight and bias in fp32 or float64."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _Distribution(NamedTuple):
    """A chunk's softmax at one temperature, as K entries and the tail."""

    outside: Tensor  # (n, V) proportional to the probabilities in the tail, 0 at the entries
    outside_sum: Tensor  # (n,)
    ids: Tensor  # (n, K)
    entries: Tensor  # (n, K) log-probabilities, -inf where unused
    tail: Tensor  # (n,) log-probability of the tail
    log_sum: Tensor  # (n,) log-sum-exp of the logits


class _Slopes(NamedTuple):
    """The gradient of a chunk's loss at its log-probabilities."""

    entries: Tensor  # (n, K), 0 where unused
    tail: Tensor  # (n,)
    label: Tensor  # (n,)


def _chunk(
    head: LmHead,
    states: Tensor,
    terms: Terms,
    part: slice,
    buffers: Tensor,
    needs_gradient: bool,
    shares: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Return a chunk's losses (2,), cross-entropy and divergence, and gradients at scaled logits.

    The list holds one (n, V) gradient of the sum, or one of each loss. They are views of `buffers`.
    """
    labels, factors = terms.labels[part, None], terms.factors[part]
    ids, used, temperature = terms.ids[part], terms.used[part], terms.temperature

    # 1. Logits; a soft-cap also gives the slope that the gradient is multiplied by.
    z = head.logits(states, buffers[0])
    cap = head.transform.softcap
    slope = soft_cap(z, cap, buffers[-1]) if cap is not None else None
    at_label = z.gather(1, labels)[:, 0]

    # 2. Distributions. At a temperature, the cross-entropy needs a second one, without entries.
    plain = None
    if temperature != 1.0:
        plain = _distribution(buffers[1].copy_(z), ids[:, :0], used[:, :0])
        z.div_(temperature)
    student = _distribution(z, ids, used)

    # 3. Losses, and their slopes at the log-probabilities.
    ce = factors @ (plain or student).log_sum - factors @ at_label
    kd, entries, tail = _divergence(terms.divergence, student, part, needs_gradient)
    losses = torch.stack([ce, kd])
    if not needs_gradient:
        return losses, []
    zeros = torch.zeros_like(tail)
    kd_slopes = _Slopes(entries / temperature, tail / temperature, zeros)

    # 4. Gradients at the logits. There are two if the shares are measured, or if the two losses use
    # different distributions.
    if plain is not None:
        ce_slopes = _Slopes(torch.zeros_like(entries[:, :0]), zeros, -factors)
        gradients = [
            _logit_gradient(plain, ce_slopes, labels, plain.outside),
            _logit_gradient(student, kd_slopes, labels, student.outside),
        ]
    elif shares:
        ce_slopes = _Slopes(torch.zeros_like(entries), zeros, -factors)
        gradients = [
            _logit_gradient(student, ce_slopes, labels, buffers[1]),
            _logit_gradient(student, kd_slopes, labels, student.outside),
        ]
    else:
        slopes = kd_slopes._replace(label=-factors)
        gradients = [_logit_gradient(student, slopes, labels, student.outside)]
    if slope is not None:
        gradients = [grad.mul_(slope) for grad in gradients]
    return losses, gradients


def _distribution(z: Tensor, ids: Tensor, used: Tensor) -> _Distribution:
    """Return the distribution of (n, V) logits, which are overwritten."""
    at_entries = z.gather(1, ids).masked_fill_(~used, -torch.inf)
    # Set the logits of the used entries to -inf, by a minimum with -inf. An unused slot takes part
    # with +inf, which changes nothing, because its arbitrary id may belong to a token of the tail.
    limits = torch.full_like(at_entries, torch.inf).masked_fill_(used, -torch.inf)
    z.scatter_reduce_(1, ids, limits, "amin")
    top = z.amax(dim=1).clamp_(min=torch.finfo(z.dtype).min)  # -inf if there is no tail
    outside_sum = z.sub_(top[:, None]).exp_().sum(dim=1)
    rest = outside_sum.log() + top
    log_sum = torch.logaddexp(rest, at_entries.logsumexp(dim=1))
    entries = at_entries - log_sum[:, None]
    return _Distribution(z, outside_sum, ids, entries, rest - log_sum, log_sum)


def _divergence(
    divergence: Divergence | None, student: _Distribution, part: slice, needs_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of a chunk's divergences, and its gradients at the entries and the tail."""
    entries, tail = student.entries, student.tail
    if divergence is None:
        return tail.new_zeros(()), torch.zeros_like(entries), torch.zeros_like(tail)
    with torch.set_grad_enabled(needs_gradient):
        entries = entries.detach().requires_grad_(needs_gradient)
        tail = tail.detach().requires_grad_(needs_gradient)
        value = divergence(entries, tail, part).sum()
        if not needs_gradient:
            return value, entries, tail
        grads = torch.autograd.grad(value, (entries, tail), materialize_grads=True)
    return value.detach(), *grads


def _logit_gradient(student: _Distribution, slopes: _Slopes, labels: Tensor, out: Tensor) -> Tensor:
    """Write the (n, V) gradient at the logits into `out`.

    With q = softmax(z), r the probability of the tail, q' = q outside of the entries (else 0) and
    e_i a unit vector, the log-probabilities have the gradients

        entry i: e_i - q        tail: q' / r - q        label y: e_y - q

    The slopes a_i, b and c multiply them, and with s = sum(a) + b + c the gradient is

        b / r - s times q outside of the entries, a_i - s q_i at entry i, and c more at the label.

    Here q' = r * outside / outside_sum.
    """
    total = slopes.entries.sum(dim=1) + slopes.tail + slopes.label  # (n,) s
    factor = (slopes.tail - total * student.tail.exp()) / student.outside_sum
    factor = torch.where(student.outside_sum > 0, factor, 0.0)
    grad = torch.mul(student.outside, factor[:, None], out=out)
    at_entries = slopes.entries - total[:, None] * student.entries.exp()
    grad.scatter_add_(1, student.ids, at_entries)
    return grad.scatter_add_(1, labels, slopes.label[:, None])


def _accumulate(
    grads: _Grads, head: LmHead, states: Tensor, part: slice, gradients: list[Tensor], shares: bool
) -> Tensor:
    """Add a chunk to the gradients. With `shares`, return the (2,) squared norms of the gradients
    of cross-entropy and divergence at the states."""
    squares = gradients[0].new_zeros(2)
    at_states: list[Tensor] = []
    if shares:
        at_states = [head.state_gradient(grad, states.dtype) for grad in gradients]
        squares = torch.stack([grad.square().sum() for grad in at_states])
    total = gradients[0] if len(gradients) == 1 else gradients[1].add_(gradients[0])
    if grads.hidden is not None:
        grads.hidden[part] = (
            at_states[0] + at_states[1] if shares else head.state_gradient(total, states.dtype)
        )
    if grads.weight is not None:
        add_weight_gradient(grads.weight, total, head.scaled(states))
    if grads.bias is not None:
        grads.bias.add_(total.sum(dim=0), alpha=head.transform.scale)
    return squares
