"""The sparse loss against a dense one in float64, gradients too."""

import pytest
import torch
from torch import Tensor

from pipeline.losses import sparse
from pipeline.losses.divergence import forward_kl, soften
from pipeline.losses.kd import Loss, Objective, Teacher, distillation_loss

N, H, V, K = 9, 16, 60, 5


def sparse_kd(
    hidden: Tensor, weight: Tensor, labels: Tensor, ids: Tensor, logprobs: Tensor, tail: Tensor, alpha: float, temperature: float = 1.0
) -> Loss:
    exact, known = torch.full_like(labels, ids.shape[1]), torch.ones_like(labels, dtype=torch.bool)
    return distillation_loss(hidden, weight, labels, Objective(alpha, temperature), Teacher(ids, logprobs, tail, exact, known))


def inputs(dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, labels, ids, teacher entries, teacher tail; some rows use fewer than K entries."""
    torch.manual_seed(seed)
    hidden = torch.randn(N, H, dtype=dtype, requires_grad=True)
    weight = (torch.randn(V, H, dtype=dtype) * 0.5).requires_grad_()
    teacher = torch.randn(N, V, dtype=dtype).mul(2).log_softmax(1)
    ids = torch.stack([torch.randperm(V)[:K] for _ in range(N)])
    entries = teacher.gather(1, ids)
    entries[::3, 2:] = -torch.inf
    ids[::3, 2:] = ids[::3, :1]  # unused slots name an id that is used
    tail = (1 - entries.exp().sum(1)).log()
    return hidden, weight, ids[:, 0].clone(), ids, entries, tail


def dense(
    hidden: Tensor, weight: Tensor, labels: Tensor, ids: Tensor, entries: Tensor, tail: Tensor, alpha: float, temperature: float
) -> Tensor:
    """The same loss with the whole vocabulary in memory, by definition."""
    logits = hidden @ weight.T
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    student = (logits / temperature).softmax(1)
    teacher, rest = soften(entries, tail, temperature)
    total = hidden.new_zeros(())
    for row in range(len(labels)):
        used = entries[row] != -torch.inf
        q = student[row, ids[row, used]]
        p = teacher[row, used].exp()
        total = total + (p * (p / q).log()).sum() + rest[row].exp() * (rest[row] - (1 - q.sum()).log())
    return alpha * ce + (1 - alpha) * temperature**2 * total


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("chunk", [V, 3 * V, 1 << 20])
def test_sparse_equals_dense(alpha: float, temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and both gradients, with one chunk and with many."""
    monkeypatch.setattr(sparse, "CHUNK_BYTES", 16 * chunk)
    args = inputs(torch.float64)
    ours = sparse_kd(*args, alpha, temperature).total
    theirs = dense(*args, alpha, temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    for mine, reference in zip(torch.autograd.grad(ours, args[:2]), torch.autograd.grad(theirs, args[:2]), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


def test_fp32_is_within_a_hundred_thousandth_of_float64() -> None:
    """The precision that the project promises."""
    args = inputs(torch.float64)
    single = tuple(a.float().detach().requires_grad_(a.requires_grad) if a.is_floating_point() else a for a in args)
    exact, rounded = (sparse_kd(a[0], a[1], a[2], a[3], a[4], a[5], 0.3).total for a in (args, single))
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-5)
    for mine, reference in zip(torch.autograd.grad(rounded, single[:2]), torch.autograd.grad(exact, args[:2]), strict=True):
        assert (mine.double() - reference).norm() <= 1e-5 * reference.norm()


def test_student_equal_to_teacher_has_no_loss_and_no_gradient() -> None:
    """The minimum of the divergence is where it must be."""
    hidden, weight, labels, ids, entries, _ = inputs(torch.float64)
    full = (hidden @ weight.T).log_softmax(1).detach()
    used = entries != -torch.inf
    entries = full.gather(1, ids).masked_fill(~used, -torch.inf)
    tail = (1 - entries.exp().sum(1)).log()
    loss = sparse_kd(hidden, weight, labels, ids, entries, tail, alpha=0.0).total
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.grad(loss, hidden)[0].abs().max() < 1e-12


def test_bucket_without_teacher_mass_adds_nothing() -> None:
    """0 log 0 is 0, also where the student has no mass either; its gradient is no NaN."""
    teacher = torch.tensor([[0.0, -torch.inf]])
    student = torch.tensor([[-0.1, -torch.inf]], requires_grad=True)
    loss = forward_kl(teacher, student).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.1)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_softening_keeps_a_distribution_and_the_order_of_the_entries() -> None:
    """Above 1 the tail gains; the ratios of entries are exact."""
    entries, tail = torch.tensor([[0.6, 0.3]]).log(), torch.tensor([0.1]).log()
    soft, rest = soften(entries, tail, 2.0)
    assert (soft.exp().sum() + rest.exp()).item() == pytest.approx(1.0)
    assert (soft[0, 0] - soft[0, 1]).item() == pytest.approx((entries[0, 0] - entries[0, 1]).item() / 2)
    assert rest.item() > tail.item()


def test_rare_sampled_token_does_not_blow_up_the_tail() -> None:
    """At T=2 a sampled token of 1e-6 once made the tail 96 % of the target."""
    common = torch.tensor([[0.9, 0.05, 0.02]]).log()
    rare = torch.cat([torch.tensor([[1e-6]]).log(), common], 1)
    tail = torch.tensor([0.03]).log()
    with_rare, without = soften(rare, tail, 2.0)[1].exp().item(), soften(common, tail, 2.0)[1].exp().item()
    assert with_rare == pytest.approx(without, rel=0.05)
    alone, rest = soften(torch.tensor([[0.7]]).log(), torch.tensor([0.3]).log(), 2.0)
    assert (alone.exp().sum() + rest.exp()).item() == pytest.approx(1.0)


def test_all_of_a_small_vocabulary_kept_leaves_no_tail() -> None:
    """A tail of nothing must not turn the gradient into NaN."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 4, requires_grad=True), torch.randn(3, 4)
    teacher = torch.randn(2, 3).log_softmax(1)
    ids = torch.arange(3).expand(2, 3)
    loss = sparse_kd(hidden, weight, ids[:, 0], ids, teacher, torch.full((2,), -torch.inf), alpha=0.0).total
    assert torch.isfinite(torch.autograd.grad(loss, hidden)[0]).all()
