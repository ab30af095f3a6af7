"""Divergences, and how a teacher's distribution is prepared for them."""

import pytest
import torch

from pipeline.losses.divergences import (
    DIVERGENCES,
    cross_entropy,
    fold,
    forward_kl,
    jsd,
    mse,
    reverse_kl,
    skew_kl,
    soften,
    total_variation,
)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_empty_buckets_add_nothing(divergence: str) -> None:
    """0 log 0 is 0, also in both gradients: unused entries are such buckets, and NaN would spread
    from them."""
    p = torch.tensor([[0.0, -torch.inf, -torch.inf]], requires_grad=True)
    q = torch.tensor([[-0.5, -1.0, -torch.inf]], requires_grad=True)
    filled = DIVERGENCES[divergence](p[:, :2], q[:, :2], 0.3)
    value = DIVERGENCES[divergence](p, q, 0.3)
    assert value.item() == pytest.approx(filled.item())
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(value.sum(), (p, q)))


def test_divergences_go_over_into_one_another() -> None:
    """Papers and libraries swap the meaning of beta."""
    p, q = torch.randn(2, 4, 6, dtype=torch.float64).log_softmax(-1)
    small = 1e-6
    torch.testing.assert_close(jsd(p, q, small) / small, forward_kl(p, q), rtol=1e-4, atol=0)
    torch.testing.assert_close(jsd(p, q, 1 - small) / small, reverse_kl(p, q), rtol=1e-4, atol=0)
    torch.testing.assert_close(skew_kl(p, q, small), forward_kl(p, q), rtol=1e-4, atol=0)
    torch.testing.assert_close(jsd(p, q, 0.5), jsd(q, p, 0.5))
    assert (jsd(p, q, 0.0), jsd(p, q, 1.0))[0].equal(forward_kl(p, q))
    assert jsd(p, q, 1.0).equal(reverse_kl(p, q))
    assert skew_kl(p, q, 0.0).equal(forward_kl(p, q))
    assert (total_variation(p, q) <= (forward_kl(p, q) / 2).sqrt()).all()  # Pinsker


def test_soft_targets_have_the_gradient_of_forward_kl() -> None:
    """Cross-entropy with soft targets differs from forward KL by the teacher's entropy alone."""
    p, q = torch.randn(2, 4, 6, dtype=torch.float64).log_softmax(-1)
    q.requires_grad_()
    entropy = -(p.exp() * p).sum(1)
    torch.testing.assert_close(cross_entropy(p, q), forward_kl(p, q) + entropy)
    grads = [torch.autograd.grad(loss(p, q).sum(), q) for loss in (cross_entropy, forward_kl)]
    torch.testing.assert_close(*grads)


def test_mse_compares_logits() -> None:
    """Over a whole vocabulary it is the mean squared difference of centred logits. A constant in
    the logits, or logarithms of their sum, must not count."""
    teacher, student = torch.randn(2, 3, 50, dtype=torch.float64)
    gap = (teacher - teacher.mean(1, keepdim=True)) - (student - student.mean(1, keepdim=True))
    expected = gap.square().mean(1)
    value = mse(teacher.log_softmax(1), (student + 3.0).log_softmax(1))
    torch.testing.assert_close(value, expected)


def test_folding_keeps_the_mass() -> None:
    """A frame without draws, without exact entries beyond the first, or with an empty tail lost
    mass."""
    entries = torch.tensor([[0.5, 0.3, 0.0], [0.5, 0.2, 0.1], [0.6, 0.4, 0.0]]).log()
    head, tail = fold(entries, torch.tensor([0.2, 0.2, 0.0]).log(), torch.tensor([2, 1, 2]))
    assert head.exp().flatten().tolist() == pytest.approx(
        [0.5, 0.3, 0.0, 0.5, 0.0, 0.0, 0.6, 0.4, 0.0]
    )
    assert tail.exp().tolist() == pytest.approx([0.2, 0.5, 0.0])


def test_softening_keeps_a_distribution_and_the_order_of_the_entries() -> None:
    """Above temperature 1 the tail must gain, and the ratios of entries are exact."""
    entries, tail = torch.tensor([[0.6, 0.3]]).log(), torch.tensor([0.1]).log()
    soft, rest = soften(entries, tail, 2.0)
    assert (soft.exp().sum() + rest.exp()).item() == pytest.approx(1.0)
    assert (soft[0, 0] - soft[0, 1]).item() == pytest.approx(
        (entries[0, 0] - entries[0, 1]).item() / 2
    )
    assert rest.item() > tail.item()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 0.8, 1.5, 4.0])
def test_softened_tail_is_on_its_side_of_the_true_one(temperature: float) -> None:
    """Below temperature 1 the tail's estimate is an upper bound, above 1 a lower one. In float32 a
    low temperature must not underflow to NaN."""
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 3
    ranked = logits.log_softmax(1).sort(dim=1, descending=True).values
    entries, tail = ranked[:, :8], ranked[:, 8:].logsumexp(1)
    soft, rest = soften(entries, tail, temperature)
    true = (logits / temperature).log_softmax(1).sort(dim=1, descending=True).values
    assert torch.isfinite(soft).all()
    whole = torch.cat([soft, rest[:, None]], 1).exp().sum(1)
    torch.testing.assert_close(whole, torch.ones(6))
    torch.testing.assert_close(soft - soft[:, :1], (true - true[:, :1])[:, :8])
    side = 1 if temperature < 1 else -1
    assert (side * (rest - true[:, 8:].logsumexp(1)) >= 0).all()


def test_rare_sampled_token_does_not_blow_up_the_tail() -> None:
    """At T=2 a sampled token of 1e-6 made the tail 96 % of the target."""
    common = torch.tensor([[0.9, 0.05, 0.02]]).log()
    rare = torch.cat([torch.tensor([[1e-6]]).log(), common], 1)
    tail = torch.tensor([0.03]).log()
    with_rare = soften(rare, tail, 2.0)[1].exp().item()
    without = soften(common, tail, 2.0)[1].exp().item()
    assert with_rare == pytest.approx(without, rel=0.05)
    alone, rest = soften(torch.tensor([[0.7]]).log(), torch.tensor([0.3]).log(), 2.0)
    assert (alone.exp().sum() + rest.exp()).item() == pytest.approx(1.0)
