"""Matrix products with the lm_head, without a copy of it in another type.

Dimension names: n tokens of a chunk, V vocabulary, H hidden.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 24  # elements of the weight that are cast at a time
CHUNK_BYTES = 1 << 29  # of all (n, V) buffers that live at once


@dataclass(frozen=True)
class Logits:
    """How a model computes logits from x = hidden @ weight.T + bias.

    The logits are cap * tanh(scale * x / cap), or scale * x without a cap.
    """

    scale: float = 1.0
    softcap: float | None = None
    bias: Tensor | None = None  # (V,)


@dataclass(frozen=True)
class LmHead:
    """The lm_head, and its products with states and gradients."""

    weight: Tensor  # (V, H)
    bias: Tensor | None
    transform: Logits

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield the weight in `dtype`: whole if it needs no cast, otherwise in blocks of rows."""
        rows, width = self.weight.shape
        is_whole = dtype == self.weight.dtype == sum_dtype(self.weight)
        step = rows if is_whole else max(1, BLOCK_ELEMENTS // width)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            yield part, self.weight[part].to(dtype)

    def logits(self, states: Tensor, out: Tensor) -> Tensor:
        """Write (n, V) scaled logits of (n, H) states into `out`, before the soft-cap."""
        scaled = self.scaled(states)
        for part, weight in self.blocks(states.dtype):
            if states.dtype == out.dtype:
                torch.mm(scaled, weight.T, out=out[:, part])
            else:
                out[:, part] = scaled @ weight.T
        if self.bias is not None:
            out.add_(self.bias.to(out.dtype), alpha=self.transform.scale)
        return out

    def state_gradient(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the (n, H) gradient at the states, given the (n, V) gradient at the scaled logits.

        The matrix product is computed in `dtype`.
        """
        out = grad.new_zeros((len(grad), self.weight.shape[1]))
        for part, weight in self.blocks(dtype):
            _add_product(out, grad[:, part], weight)
        return self.scaled(out)

    def scaled(self, states: Tensor) -> Tensor:
        """Return the states times the scale: less work than to scale the logits."""
        return states if self.transform.scale == 1.0 else states * self.transform.scale


def add_weight_gradient(out: Tensor, grad: Tensor, states: Tensor) -> None:
    """Add `grad`.T @ `states`, that is (n, V).T @ (n, H), to `out` (V, H).

    On a CPU, torch cannot accumulate a product of bf16 in float32, so `states` become float32.
    """
    step = len(out)
    if not out.is_cuda:
        states = states.to(out.dtype)
    elif states.dtype != out.dtype:
        step = max(1, BLOCK_ELEMENTS // out.shape[1])
    for first in range(0, len(out), step):
        _add_product(out[first : first + step], grad[:, first : first + step].T, states)


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right, a product in the type of `right`, to `out`."""
    left = left.to(right.dtype)
    if right.dtype == out.dtype:
        out.addmm_(left, right)
    elif out.is_cuda:
        torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
    else:
        out.add_(left @ right)


def soft_cap(z: Tensor, cap: float, out: Tensor) -> Tensor:
    """Soft-cap (n, V) scaled logits in place, and write the slope there into `out`."""
    z.div_(cap).tanh_()
    slope = torch.mul(z, z, out=out).neg_().add_(1.0)
    z.mul_(cap)
    return slope


def cast_in_place(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast to a narrower type in the same memory, since a second copy of an lm_head is large."""
    if wide.dtype.itemsize <= dtype.itemsize:
        return wide.to(dtype)
    flat = wide.view(-1)
    out = flat.view(dtype)[: wide.numel()]
    for first in range(0, len(flat), BLOCK_ELEMENTS):
        part = slice(first, first + BLOCK_ELEMENTS)
        out[part] = flat[part].to(dtype)
    return out.view(wide.shape)


def scaled_gradients(ctx: Any, scale: Tensor) -> list[Tensor | None]:
    """Return the gradients of hidden states, weight and bias that a forward pass has computed.

    `ctx` holds them as `grads`, and as `dtypes` the types of weight and bias. They are multiplied
    by `scale` in place, so this can be called once.
    """
    assert ctx.grads is not None, (
        "call backward only once on a fused loss, since it scales the gradients in place"
    )
    hidden, weight, bias = (None if grad is None else grad.mul_(scale) for grad in ctx.grads)
    ctx.grads = None
    if weight is not None:
        weight = cast_in_place(weight, ctx.dtypes[0])
    if bias is not None:
        bias = bias.to(ctx.dtypes[1])
    return [hidden, weight, bias]


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which sums over this tensor are accumulated."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
