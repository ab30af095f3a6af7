"""Distances between hidden states: by hand, by finite differences, and for equal states."""

import math

import pytest
import torch

from pipeline.losses.hidden_states import DISTANCES, hidden_state_loss

TEACHER = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)  # (N, H)
STUDENT = torch.tensor([[4.0, 3.0], [2.0, 0.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 0.5], dtype=torch.float64)


def test_values_by_hand() -> None:
    """A distance could be normalised by the wrong side, or forget the weights of the tokens."""
    # cos is 24 / 25 and 0; squared differences are 2 and 8, the teacher's squares 25 and 4
    cosine = hidden_state_loss(STUDENT, TEACHER, WEIGHTS, "cosine")
    mse = hidden_state_loss(STUDENT, TEACHER, WEIGHTS, "mse")
    assert cosine.item() == pytest.approx(1 / 25 + 0.5)
    assert mse.item() == pytest.approx(2 / 25 + 0.5 * 8 / 4)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients(distance: str) -> None:
    """A wrong gradient would still lower a loss, only slower."""
    torch.manual_seed(0)
    student = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    weights = torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda states: hidden_state_loss(states, teacher, weights, distance), (student,)
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_states_have_no_loss(distance: str) -> None:
    """A student that equals its teacher must not be moved away from it."""
    states = torch.randn(2, 3, 8, requires_grad=True)
    loss = hidden_state_loss(states, states.detach().clone(), torch.ones(3), distance)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert states.grad is not None
    assert states.grad.abs().max() < 1e-6


@pytest.mark.parametrize("distance", DISTANCES)
def test_states_of_zero_are_finite(distance: str) -> None:
    """A state of only zeros, as at a dead token, must not make the whole step NaN."""
    states = torch.zeros(2, 4, requires_grad=True)
    loss = hidden_state_loss(states, torch.zeros(2, 4), torch.ones(2), distance)
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    assert states.grad is not None
    assert states.grad.isfinite().all()


def test_pairs_are_averaged_and_bf16_is_summed_in_float32() -> None:
    """More pairs of layers must not mean a heavier loss, nor bf16 states a loss of two digits."""
    once = hidden_state_loss(STUDENT, TEACHER, WEIGHTS)
    twice = hidden_state_loss(STUDENT.expand(2, 2, 2), TEACHER.expand(2, 2, 2), WEIGHTS)
    assert twice.item() == pytest.approx(once.item())
    short = hidden_state_loss(STUDENT.bfloat16(), TEACHER.bfloat16(), WEIGHTS)
    assert short.dtype == torch.float32
    assert short.item() == pytest.approx(once.item(), abs=1e-6)


def test_no_token_has_no_loss() -> None:
    """A batch without a token that has a loss would give a mean of nothing, NaN."""
    assert hidden_state_loss(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), torch.ones(0)).item() == 0
