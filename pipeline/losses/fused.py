"""The one primitive: hidden states and lm_head weights to a loss of the few log-probabilities that it needs, with its gradients.

Never holds [N, V], and makes no logits twice. The loss is a sum over tokens, so a chunk's gradient is known as soon as its loss is:
the forward pass computes both, chunk by chunk, and the backward pass only scales (the idea of Hsu et al. 2024, Liger Kernel, for
cross-entropy). Plain torch on every device; nothing here has been run on a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 1 << 29  # of all [n, V] buffers that live at once
BLOCK_ELEMENTS = 1 << 24  # of the weight, where it has to be cast

Divergence = Callable[[Tensor, Tensor, slice], Tensor]


@dataclass(frozen=True)
class Logits:
    """How a model makes logits of x = hidden @ weight.T + bias: cap * tanh(scale * x / cap), or scale * x without a cap."""

    scale: float = 1.0
    softcap: float | None = None
    bias: Tensor | None = None  # (V,)


class Sums(NamedTuple):
    """Sums over tokens; `total` = ce + kd carries the gradient."""

    total: Tensor
    ce: Tensor
    kd: Tensor
    ce_grad: Tensor | None  # L2 norm of the gradient of `ce` alone at `hidden`
    kd_grad: Tensor | None


@dataclass(frozen=True)
class Terms:
    """What the loss of N tokens is made of.

    Attributes:
        labels: (N,) token ids.
        factors: (N,) of each token's cross-entropy.
        ids: (N, K) token ids, distinct within a row where used; what stands in an unused slot does not matter.
        used: (N, K) bool; entries that are False come out as -inf and count as tail.
        divergence: takes the student's `entries` (n, K) and `tail` (n,), log-probabilities at `temperature`, and which tokens they
            are; gives the loss (n,) that is added to the cross-entropy, with a gradient of 0 at what is -inf. None: nothing is added.
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
    """The summed loss of `terms` under softmax of the logits; its gradients are made at once, where any are wanted.

    The matrix products are in the type of `hidden`; sums, and the gradients of `weight` and bias until they are handed out, are in fp32
    (float64 for float64). All rows of `weight` count in the softmax, as in the model, also those beyond the tokenizer. The gradient can
    be asked for once. Beside the gradients, at most CHUNK_BYTES and a few blocks of BLOCK_ELEMENTS live at a time.

    Args:
        hidden: (N, H); N may be 0.
        weight: (V, H) of the lm_head, in any floating type.
        shares: measure `ce_grad` and `kd_grad`, for two more products of a chunk with `weight`.
    """
    needed = tuple(
        torch.is_grad_enabled() and wanted is not None and wanted.requires_grad
        for wanted in (hidden, weight, logits.bias)
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
        head, kind = _Head(weight, bias, logits), _exact(hidden)
        grads = _Grads(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=kind) if needed[1] else None,
            torch.zeros_like(bias, dtype=kind) if needed[2] and bias is not None else None,
        )
        buffers = (2 if shares or terms.temperature != 1.0 else 1) + (logits.softcap is not None)
        rows = max(1, CHUNK_BYTES // (buffers * len(weight) * kind.itemsize))
        space = torch.empty(
            (buffers, min(rows, len(hidden)), len(weight)), dtype=kind, device=hidden.device
        )
        sums = torch.zeros(
            4, dtype=kind, device=hidden.device
        )  # ce, kd, the squared norms of their gradients
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            states = hidden[part]
            losses, parts = _chunk(
                head, states, terms, part, space[:, : len(states)], any(needed) or shares, shares
            )
            sums[:2] += losses
            if parts:
                sums[2:] += _collect(grads, head, states, part, parts, shares)
        ctx.grads, ctx.kinds = grads, (weight.dtype, bias.dtype if bias is not None else None)
        ctx.mark_non_differentiable(detached := torch.cat([sums[:2], sums[2:].sqrt()]))
        return sums[0] + sums[1], detached

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Any) -> Any:  # type: ignore[override]
        assert ctx.grads is not None, (
            "the gradient of a fused loss can be asked for once, since it is scaled in place"
        )
        hidden, weight, bias = (
            grad.mul_(scale) if grad is not None else None for grad in ctx.grads
        )
        ctx.grads = None
        weight = _narrow(weight, ctx.kinds[0]) if weight is not None else None
        bias = bias.to(ctx.kinds[1]) if bias is not None else None
        return hidden, weight, bias, None, None, None, None


class _Grads(NamedTuple):
    """What is wanted of the gradients, the last two in fp32 or float64."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _View(NamedTuple):
    """A chunk's distribution, at one temperature, as its entries and the rest."""

    outside: (
        Tensor  # (n, V) in proportion to the probabilities of what is no entry, 0 at the entries
    )
    total: Tensor  # (n,) its sum
    ids: Tensor  # (n, K)
    entries: Tensor  # (n, K) log-probabilities, -inf where unused
    tail: Tensor  # (n,) log of all that is not in the entries
    whole: Tensor  # (n,) log-sum-exp of the logits


class _Pull(NamedTuple):
    """The gradient of a chunk's loss at its log-probabilities."""

    entries: Tensor  # (n, K), 0 where unused
    tail: Tensor  # (n,)
    label: Tensor  # (n,)


@dataclass(frozen=True)
class _Head:
    weight: Tensor  # (V, H)
    bias: Tensor | None
    logits: Logits

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """The weight in `dtype`: whole where nothing has to be cast, otherwise some rows at a time."""
        rows, width = self.weight.shape
        step = (
            rows
            if dtype == self.weight.dtype == _exact(self.weight)
            else max(1, BLOCK_ELEMENTS // width)
        )
        for first in range(0, rows, step):
            part = slice(first, first + step)
            yield part, self.weight[part].to(dtype)

    def fill(self, states: Tensor, out: Tensor) -> Tensor:
        """(n, V) scaled logits of (n, H) states, before the soft-cap."""
        scaled = self.scaled(states)
        for part, weight in self.blocks(states.dtype):
            if states.dtype == out.dtype:
                torch.mm(scaled, weight.T, out=out[:, part])
            else:
                out[:, part] = scaled @ weight.T
        return (
            out if self.bias is None else out.add_(self.bias.to(out.dtype), alpha=self.logits.scale)
        )

    def at_states(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, H) gradient at the states, of an (n, V) one at the scaled logits; the product is in `dtype`."""
        out = grad.new_zeros((len(grad), self.weight.shape[1]))
        for part, weight in self.blocks(dtype):
            _add_product(out, grad[:, part], weight)
        return self.scaled(out)

    def scaled(self, states: Tensor) -> Tensor:
        """States rather than logits are scaled: they are fewer."""
        return states if self.logits.scale == 1.0 else states * self.logits.scale


def _chunk(
    head: _Head,
    states: Tensor,
    terms: Terms,
    part: slice,
    space: Tensor,
    gradient: bool,
    shares: bool,
) -> tuple[Tensor, list[Tensor]]:
    """A chunk's (2,) cross-entropy and divergence, and their (n, V) gradients at the scaled logits, as one or one by one; in `space`."""
    z, labels, ids, used = (
        head.fill(states, space[0]),
        terms.labels[part, None],
        terms.ids[part],
        terms.used[part],
    )
    slope = _cap(z, head.logits.softcap, space[-1]) if head.logits.softcap is not None else None
    at_label = z.gather(1, labels)[:, 0]
    plain = _view(space[1].copy_(z), ids[:, :0], used[:, :0]) if terms.temperature != 1.0 else None
    view = _view(z.div_(terms.temperature) if plain else z, ids, used)
    factors = terms.factors[part]
    ce = factors @ (plain or view).whole - factors @ at_label
    kd, entries, tail = _diverge(terms.divergence, view, part, gradient)
    if not gradient:
        return torch.stack([ce, kd]), []
    label = _Pull(torch.zeros_like(entries), torch.zeros_like(tail), -factors)
    others = _Pull(entries / terms.temperature, tail / terms.temperature, torch.zeros_like(tail))
    if plain is not None:
        none = label._replace(entries=label.entries[:, :0])
        parts = [
            _spread(plain, none, labels, plain.outside),
            _spread(view, others, labels, view.outside),
        ]
    elif shares:
        parts = [
            _spread(view, label, labels, space[1]),
            _spread(view, others, labels, view.outside),
        ]
    else:
        parts = [_spread(view, others._replace(label=label.label), labels, view.outside)]
    return torch.stack([ce, kd]), [one if slope is None else one.mul_(slope) for one in parts]


def _cap(z: Tensor, cap: float, out: Tensor) -> Tensor:
    """Soft-cap `z` in place; (n, V) the slope there."""
    z.div_(cap).tanh_()
    slope = torch.mul(z, z, out=out).neg_().add_(1.0)
    z.mul_(cap)
    return slope


def _view(z: Tensor, ids: Tensor, used: Tensor) -> _View:
    """The distribution of (n, V) logits, which are overwritten."""
    at = z.gather(1, ids).masked_fill_(~used, -torch.inf)
    # an unused slot must not hide the id that it happens to name
    z.scatter_reduce_(1, ids, torch.full_like(at, torch.inf).masked_fill_(used, -torch.inf), "amin")
    top = z.amax(dim=1).clamp_(min=torch.finfo(z.dtype).min)  # there may be nothing outside
    total = z.sub_(top[:, None]).exp_().sum(dim=1)
    rest = total.log() + top
    whole = torch.logaddexp(rest, at.logsumexp(dim=1))
    return _View(z, total, ids, at - whole[:, None], rest - whole, whole)


def _diverge(
    divergence: Divergence | None, view: _View, part: slice, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of a chunk's divergences, and its gradients at the entries and the tail."""
    if divergence is None:
        return view.tail.new_zeros(()), torch.zeros_like(view.entries), torch.zeros_like(view.tail)
    with torch.set_grad_enabled(gradient):
        inputs = (
            view.entries.detach().requires_grad_(gradient),
            view.tail.detach().requires_grad_(gradient),
        )
        value = divergence(*inputs, part).sum()
        if not gradient:
            return value, *inputs
        entries, tail = torch.autograd.grad(value, inputs, materialize_grads=True)
    return value.detach(), entries, tail


def _spread(view: _View, pull: _Pull, labels: Tensor, out: Tensor) -> Tensor:
    """(n, V) gradient at the logits. With softmax q, its part outside of the entries r: entry -> e - q, tail -> r - q, label -> y - q."""
    against = pull.entries.sum(dim=1) + pull.tail + pull.label  # (n,) pulls at q
    outside = torch.where(view.total > 0, (pull.tail - against * view.tail.exp()) / view.total, 0.0)
    grad = torch.mul(view.outside, outside[:, None], out=out)
    grad.scatter_add_(1, view.ids, pull.entries - against[:, None] * view.entries.exp())
    return grad.scatter_add_(1, labels, pull.label[:, None])


def _collect(
    grads: _Grads, head: _Head, states: Tensor, part: slice, parts: list[Tensor], shares: bool
) -> Tensor:
    """Add a chunk to the gradients. (2,) squared norms of the gradients of the loss's parts at the states, where asked for."""
    norms = parts[0].new_zeros(2)
    apart = [head.at_states(one, states.dtype) for one in parts] if shares else []
    if shares:
        norms = torch.stack([one.square().sum() for one in apart])
    whole = parts[0] if len(parts) == 1 else parts[1].add_(parts[0])
    if grads.hidden is not None:
        grads.hidden[part] = apart[0] + apart[1] if shares else head.at_states(whole, states.dtype)
    if grads.weight is not None:
        _add_weight(grads.weight, whole, head.scaled(states))
    if grads.bias is not None:
        grads.bias.add_(whole.sum(dim=0), alpha=head.logits.scale)
    return norms


def _add_weight(out: Tensor, grad: Tensor, states: Tensor) -> None:
    """(V, H) += (n, V).T @ (n, H). CPUs have no product of bf16 that stays in fp32, so there it is one of fp32."""
    step = (
        max(1, BLOCK_ELEMENTS // out.shape[1])
        if out.is_cuda and states.dtype != out.dtype
        else len(out)
    )
    states = states if out.is_cuda else states.to(out.dtype)
    for first in range(0, len(out), step):
        _add_product(out[first : first + step], grad[:, first : first + step].T, states)


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """out += left @ right, a product in the type of `right`."""
    left = left.to(right.dtype)
    if right.dtype == out.dtype:
        out.addmm_(left, right)
    elif out.is_cuda:
        torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
    else:
        out.add_(left @ right)


def _narrow(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """`wide` in another type; a narrower one in the same memory, since two copies of a lm_head are too many."""
    if wide.dtype.itemsize <= dtype.itemsize:
        return wide.to(dtype)
    flat, out = wide.view(-1), wide.view(-1).view(dtype)[: wide.numel()]
    for first in range(0, len(flat), BLOCK_ELEMENTS):
        part = slice(first, first + BLOCK_ELEMENTS)
        out[part] = flat[part].to(dtype)
    return out.view(wide.shape)


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
