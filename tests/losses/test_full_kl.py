"""Forward KL over the whole vocabulary against its definition, in float64."""

import pytest
import torch
from torch import Tensor

from pipeline.losses import full_kl as module
from pipeline.losses.full_kl import full_kl
from pipeline.losses.lm_head import LmHead, Logits

N, V, H, W = 7, 11, 5, 6  # tokens, vocabulary, widths of student and teacher


def drawn(softcap: float | None, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Return states, weight and bias of a student, states and weight of a teacher."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, H), (V, H), (V,), (N, W), (V, W)]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def chunked(tensors: list[Tensor], softcap: float | None) -> Tensor:
    hidden, weight, bias, teacher, teacher_weight = tensors
    head = LmHead(weight, bias, Logits(0.7, softcap, bias))
    return full_kl(hidden, head, teacher, LmHead(teacher_weight, None, Logits(1.3, softcap)))


def dense(tensors: list[Tensor], softcap: float | None) -> Tensor:
    hidden, weight, bias, teacher, teacher_weight = tensors
    z, t = 0.7 * (hidden @ weight.T + bias), 1.3 * (teacher @ teacher_weight.T)
    if softcap is not None:
        z, t = softcap * torch.tanh(z / softcap), softcap * torch.tanh(t / softcap)
    p = t.softmax(1)
    return (p * (t.log_softmax(1) - z.log_softmax(1))).sum()


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("rows", [3, 100])
def test_value_and_gradients_equal_the_definition(
    softcap: float | None, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is forgotten or counted twice, or a soft-cap or scale without its slope."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * V * 8 * rows)
    found = [tensor.requires_grad_() for tensor in drawn(softcap)]
    expected = [tensor.detach().clone().requires_grad_() for tensor in found]
    (3 * chunked(found, softcap)).backward()
    (3 * dense(expected, softcap)).backward()
    assert chunked(found, softcap).item() == pytest.approx(dense(expected, softcap).item())
    for number in range(3):
        assert found[number].grad is not None
        assert torch.allclose(found[number].grad, expected[number].grad, atol=1e-12)
    assert found[3].grad is None  # the teacher's


def test_gradient_equals_finite_differences() -> None:
    """The definition in the other test could share a mistake with the code."""
    tensors = drawn(None)
    hidden = tensors[0].requires_grad_()
    chunked(tensors, None).backward()
    step = torch.zeros_like(hidden)
    step[2, 1] = 1e-5
    with torch.no_grad():
        sides = [chunked([hidden + sign * step, *tensors[1:]], None) for sign in (1, -1)]
    assert hidden.grad is not None
    assert hidden.grad[2, 1].item() == pytest.approx(
        ((sides[0] - sides[1]) / 2e-5).item(), rel=1e-6
    )


def test_equal_models_have_no_distance() -> None:
    """Rounding must not push a student away from a teacher that it equals."""
    hidden, weight = drawn(None, torch.float32)[:2]
    head = LmHead(weight, None, Logits())
    hidden.requires_grad_()
    value = full_kl(hidden, head, hidden, head)
    value.backward()
    assert hidden.grad is not None
    assert value.item() == 0.0
    assert not hidden.grad.any()
