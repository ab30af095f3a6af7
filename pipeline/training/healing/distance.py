"""The distance of a cut student from the whole model: outputs, and the states of its layers.

Dimension names: B rows, T tokens of a row, N tokens of a batch, P pairs of layers, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.losses.full_kl import full_kl
from pipeline.losses.hidden_states import hidden_state_loss
from pipeline.losses.lm_head import LmHead
from pipeline.training.healing.text import Ids
from pipeline.training.live_teacher import captured
from pipeline.training.model_checks import logits_of


def distances(
    student: Any, teacher: Any, rows: Sequence[Ids], kept: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """Return (2,) sums over all tokens: KL(teacher || student) in nats, distance of hidden states.

    Args:
        kept: for each of the student's layers the teacher's layer whose states it should have.
            Empty: the second sum is 0.
        dtype: of products; autocast, if it is not float32.
    """
    ids, mask = _padded(rows, student.device)
    with torch.autocast(student.device.type, dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            true, last = _states(teacher, ids, mask, kept)
        learned, first = _states(student, ids, mask, range(len(kept)))
    kl = full_kl(first.to(dtype), _head(student), last.to(dtype), _head(teacher))
    if not kept:
        return torch.stack([kl, torch.zeros_like(kl)])
    weights = torch.ones(len(first), device=first.device)
    hidden = hidden_state_loss(torch.stack(learned), torch.stack(true), weights, "mse")
    return torch.stack([kl, hidden])


def _padded(rows: Sequence[Ids], device: Any) -> tuple[Tensor, Tensor]:
    """Return (B, T) ids, filled up with 0, and the mask that is 1 at real tokens."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row)
        mask[number, : len(row)] = 1
    return ids.to(device), mask.to(device)


def _states(
    model: Any, ids: Tensor, mask: Tensor, numbers: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Return the hidden states (N, H) after each of some layers, and those before the lm_head."""
    chosen = mask.bool()
    names = [f"layers.{number}" for number in numbers]
    with captured(model.base_model, names, lambda name, states: states[chosen]) as seen:
        body = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return [seen[name] for name in names], body.last_hidden_state[chosen]


def _head(model: Any) -> LmHead:
    transform = logits_of(model)
    return LmHead(model.get_output_embeddings().weight, transform.bias, transform)
