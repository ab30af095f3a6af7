"""Relations among tokens and rows: by hand, by finite differences, and for equal sides."""

import math

import pytest
import torch
from torch import Tensor

from pipeline.losses import relations

COUNTS = [3, 0, 2]  # tokens of three rows
WEIGHTS = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0], dtype=torch.float64)


def states(width: int, seed: int, rows: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, dtype=torch.float64, generator=generator)


def maps(heads: int, seed: int) -> list[Tensor]:
    """Return causal maps whose rows also attend to a prompt, so they sum to less than 1."""
    sizes = (3, 2)
    return [causal(states(heads * size**2, seed, 1).view(heads, size, size)) for size in sizes]


def causal(logits: Tensor) -> Tensor:
    future = torch.ones_like(logits[0], dtype=torch.bool).triu(1)
    return 0.7 * logits.masked_fill(future, -torch.inf).softmax(2)


def test_projection_loss_equals_its_definition() -> None:
    """Tokens of different rows must not relate, and each query counts with its own weight."""
    student, teacher = states(8, 0), states(8, 1)
    expected = 0.0
    for begin, end in ((0, 3), (3, 5)):
        for query in range(begin, end):
            p, q = (
                (side[begin:end] @ side[query] / math.sqrt(8)).softmax(0)
                for side in (teacher, student)
            )
            expected += float(WEIGHTS[query] * (p * (p / q).log()).sum())
    loss = relations.projection_loss(student, teacher, WEIGHTS, COUNTS)
    assert loss.item() == pytest.approx(expected)


def test_map_loss_leaves_out_the_prompt() -> None:
    """Prompts differ, so only attention within the completion can be compared."""
    student, teacher = maps(2, 0), maps(2, 1)
    expected, place = 0.0, 0
    for learned, true in zip(student, teacher, strict=True):
        for query in range(learned.shape[1]):
            p, q = (side[:, query, : query + 1] / 0.7 for side in (true, learned))
            expected += float(WEIGHTS[place] * (p * (p / q).log()).sum() / 2)
            place += 1
    assert relations.map_loss(student, teacher, WEIGHTS).item() == pytest.approx(expected)


def test_instance_loss_by_hand() -> None:
    """A right triangle against an equilateral one: its mean, its Huber losses and its weights."""
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, math.sqrt(3)]], dtype=torch.float64)
    distances = [3 / 4, 5 / 4, 4 / 4]  # over their mean, 4; all are 1 on the teacher's side
    cosines = [0.0, 3 / 5, 4 / 5]  # all are 1 / 2 on the teacher's side
    expected = sum((distance - 1) ** 2 / 2 for distance in distances) / 3
    expected += 2 * sum((cosine - 0.5) ** 2 / 2 for cosine in cosines) / 3
    assert relations.instance_loss(student, teacher).item() == pytest.approx(expected)
    pair = relations.instance_loss(student[:2], teacher[:2])
    assert pair.item() == relations.instance_loss(student[:1], teacher[:1]).item() == 0.0


def test_gradients() -> None:
    """A wrong gradient would still lower a loss, only slower."""
    student = states(4, 0).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(
        lambda side: relations.projection_loss(side, states(8, 1), WEIGHTS, COUNTS), (student,)
    )
    assert check(lambda side: relations.instance_loss(side, states(6, 1)), (student,))
    logits = states(9, 0).view(5, 3, 3).requires_grad_()
    true, weights = maps(3, 1)[:1], WEIGHTS[:3]
    assert check(lambda side: relations.map_loss([causal(side)], true, weights), (logits,))


def test_equal_sides_have_no_loss_and_no_gradient() -> None:
    """A student that equals its teacher must not be moved, nor become NaN at equal rows."""
    side = torch.cat([states(64, 0)[:4], states(64, 0)[:1]]).float().requires_grad_()
    learned = [one.requires_grad_() for one in maps(2, 0)]
    loss = (
        relations.projection_loss(side, side.detach(), WEIGHTS, COUNTS)
        + relations.instance_loss(side, side.detach())
        + relations.map_loss(learned, [one.detach() for one in learned], WEIGHTS)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    for tensor in (side, *learned):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("student", "teacher", "heads"), [(576, 576, 18), (192, 960, 6), (24, 32, 1), (100, 150, 2)]
)
def test_relation_heads_divide_both_widths(student: int, teacher: int, heads: int) -> None:
    """Keys of grouped-query attention and unlike widths must still be split evenly."""
    assert relations.relation_heads(student, teacher) == heads


def test_means_leave_out_rows_without_tokens() -> None:
    """A row without a token would have the mean NaN."""
    found = relations.row_means(states(4, 0), COUNTS)
    assert found.shape == (2, 4)
    assert torch.allclose(found[1], states(4, 0)[3:].mean(0))
