"""The one primitive: hidden states and lm_head weights to the few log-probabilities that a loss needs.

Never holds [N, V]: tokens go through in chunks, and the backward pass makes each chunk's logits again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 25  # logits of one chunk, 128 MiB in fp32


class SparseLogprobs(NamedTuple):
    """What a token's distribution looks like through K entries: log-probabilities, at the temperature asked for."""

    entries: Tensor  # (N, K)
    tail: Tensor  # (N,) log of all that is not in the entries
    label: Tensor  # (N,) of the label, at temperature 1


def sparse_logprobs(hidden: Tensor, weight: Tensor, labels: Tensor, ids: Tensor, used: Tensor, temperature: float = 1.0) -> SparseLogprobs:
    """Log-probabilities of softmax(hidden @ weight.T / temperature) at `ids`, of the rest together, and of the labels.

    Args:
        hidden: (N, H).
        weight: (V, H) of the lm_head.
        labels: (N,) token ids.
        ids: (N, K) token ids, distinct within a row where used.
        used: (N, K) bool; entries that are False come out as -inf and count as tail.
        temperature: divides the logits for `entries` and `tail`, not for `label`.

    The matrix products are in the type of `hidden`; sums and the gradient of `weight` are in fp32 (float64 for float64).
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return SparseLogprobs(*_SparseLogprobs.apply(hidden, weight, labels, ids, used, temperature))


class _SparseLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, ids: Tensor, used: Tensor, temperature: float) -> Any:
        exact = _exact(hidden)
        entries = torch.empty(ids.shape, dtype=exact, device=hidden.device)
        tail = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        label = torch.empty_like(tail)
        cast = weight.to(hidden.dtype)
        for part in _chunks(len(hidden), len(weight)):
            logits = _logits(hidden[part], cast)  # (n, V)
            picked = logits.gather(1, labels[part, None])[:, 0]
            if temperature != 1.0:
                label[part] = picked - logits.logsumexp(dim=1)
                logits /= temperature
            at = logits.gather(1, ids[part]).masked_fill_(~used[part], -torch.inf)  # (n, K)
            rest = _hide(logits, ids[part], used[part]).logsumexp(dim=1)  # (n,)
            whole = torch.logaddexp(rest, at.logsumexp(dim=1)) if at.shape[1] else rest
            if temperature == 1.0:
                label[part] = picked - whole
            entries[part] = at - whole[:, None]
            tail[part] = rest - whole
        ctx.save_for_backward(hidden, weight, labels, ids, used)
        ctx.temperature = temperature
        return entries, tail, label

    @staticmethod
    def backward(ctx: Any, grad_entries: Tensor, grad_tail: Tensor, grad_label: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, labels, ids, used = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        cast = weight.to(hidden.dtype)
        grad_weight = torch.zeros(weight.shape, dtype=_exact(hidden), device=weight.device)
        for part in _chunks(len(hidden), len(weight)):
            grad = _grad_logits(
                _logits(hidden[part], cast), labels[part], ids[part], used[part], ctx.temperature,
                grad_entries[part], grad_tail[part], grad_label[part],
            )  # fmt: skip
            grad_hidden[part] = grad.to(hidden.dtype) @ cast
            grad_weight.addmm_(grad.T, hidden[part].to(grad.dtype))
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None


def _grad_logits(
    logits: Tensor, labels: Tensor, ids: Tensor, used: Tensor, temperature: float, entries: Tensor, tail: Tensor, label: Tensor
) -> Tensor:
    """(n, V) gradient of the logits. With softmax q and its tail r: entries_k -> e_k - q, tail -> r - q, label -> e_y - q."""
    entries = entries.masked_fill(~used, 0.0)
    if temperature == 1.0:
        total = entries.sum(dim=1) + tail + label
        grad = -total[:, None] * logits.softmax(dim=1)
        grad.scatter_add_(1, labels[:, None], label[:, None])
        scaled = logits
    else:
        scaled = logits / temperature
        grad = (-(entries.sum(dim=1) + tail) / temperature)[:, None] * scaled.softmax(dim=1)
        grad -= label[:, None] * logits.softmax(dim=1)
        grad.scatter_add_(1, labels[:, None], label[:, None])
    grad.scatter_add_(1, ids, entries / temperature)
    outside = _hide(scaled, ids, used)
    # a tail of nothing has no gradient; its softmax would be 0/0
    grad += (tail / temperature)[:, None] * outside.softmax(dim=1).nan_to_num_(0.0)
    return grad


def _hide(logits: Tensor, ids: Tensor, used: Tensor) -> Tensor:
    """The logits with the used entries at -inf, in place. An unused entry must not hide the id that it happens to name."""
    if not ids.shape[1]:
        return logits
    at = logits.gather(1, ids)
    hidden = at.masked_fill(used, -torch.inf)
    logits.scatter_reduce_(1, ids, hidden, "amin")
    return logits


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    return (hidden @ weight.T).to(_exact(hidden))


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _chunks(rows: int, vocab_size: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocab_size)
    return [slice(first, first + size) for first in range(0, rows, size)]
