"""The fused loss compared with its definition from whole logits in float64: value and gradients."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses import fused, lm_head
from pipeline.losses.distillation import (
    ALPHAS,
    Logits,
    Loss,
    Objective,
    Teacher,
    distillation_loss,
)
from pipeline.losses.divergences import DIVERGENCES, forward_kl, soften
from pipeline.storage import topk

N, H, V, K = 9, 16, 60, 5
DTYPE = torch.float64
KD = Objective(alpha=0.0)


def student(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden, weight, labels."""
    torch.manual_seed(seed)
    weight = (torch.randn(V, H, dtype=DTYPE) * 0.5).requires_grad_()
    return torch.randn(N, H, dtype=DTYPE, requires_grad=True), weight, torch.randint(V, (N,))


def teacher(seed: int = 0) -> Teacher:
    """Some rows use fewer than K entries, some entries are draws, two tokens are unknown, and
    unused slots hold garbage."""
    torch.manual_seed(seed)
    whole = torch.randn(N, V, dtype=DTYPE).mul(2).log_softmax(1)
    ids = torch.stack([torch.randperm(V)[:K] for _ in range(N)])
    logprobs = whole.gather(1, ids)
    logprobs[::3, 3:] = -torch.inf
    tail = (1 - logprobs.exp().sum(1)).log()
    known = torch.arange(N) % 5 != 4
    ids[::3, 3:], logprobs[~known], tail[~known] = 10**9, torch.nan, torch.nan
    return Teacher(ids, logprobs, tail, torch.arange(N) % K + 1, known)


def cast(dtype: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_(tensor.requires_grad) for tensor in tensors]


def gradients(loss: Loss, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.total, inputs)


def error(computed: Tensor, reference: Tensor) -> float:
    return float((computed.double() - reference).norm() / reference.norm())


def by_definition(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    objective: Objective,
    known: Teacher,
    weights: Tensor,
    logits: Logits,
) -> tuple[Tensor, Tensor]:
    """Return the weighted cross-entropy and divergence from whole logits, token by token."""
    z = (hidden @ weight.T + (0.0 if logits.bias is None else logits.bias)) * logits.scale
    z = z if logits.softcap is None else logits.softcap * torch.tanh(z / logits.softcap)
    sharp, soft = z.log_softmax(1), (z / objective.temperature).log_softmax(1)
    ce = kd = hidden.sum() * 0
    for row in range(len(labels)):
        alpha = alpha_by_definition(objective.alpha, known, row) if known.known[row] else 1.0
        ce = ce - alpha * weights[row] * sharp[row, labels[row]]
        if known.known[row]:
            value = divergence_by_definition(soft[row], objective, known, row)
            kd = kd + (1 - alpha) * weights[row] * objective.temperature**2 * value
    return ce, kd


def alpha_by_definition(alpha: float | str, known: Teacher, row: int) -> float:
    p = [value.exp().item() for value in (*known.logprobs[row], known.tail[row])]
    if alpha == "confidence":
        return p[0]
    if alpha == "entropy":
        return math.exp(sum(value * math.log(value) for value in p if value > 0))
    assert isinstance(alpha, float)
    return alpha


def divergence_by_definition(q: Tensor, objective: Objective, known: Teacher, row: int) -> Tensor:
    is_linear = objective.divergence in ("forward_kl", "cross_entropy")
    linear = is_linear and (objective.temperature, objective.tail) == (1.0, "bucket")
    used = known.logprobs[row] != -torch.inf
    if not linear:
        used = used & (torch.arange(K) < known.exact[row])
    entries, tail = known.logprobs[row, used], known.tail[row]
    tail = tail if linear else (1 - entries.exp().sum()).log()
    entries, tail = soften(entries[None], tail[None], objective.temperature)
    ids = known.ids[row, used]
    p = torch.cat([entries[0].exp(), tail.exp()])
    q = torch.cat([q[ids].exp(), 1 - q[ids].exp().sum()[None]])
    if objective.tail == "renormalise" or objective.divergence == "mse":
        p, q = p[:-1] / p[:-1].sum(), q[:-1] / q[:-1].sum()
    m = objective.beta * p + (1 - objective.beta) * q
    values = {
        "forward_kl": lambda: (p * (p / q).log()).sum(),
        "cross_entropy": lambda: -(p * q.log()).sum(),
        "reverse_kl": lambda: (q * (q / p).log()).sum(),
        "jsd": lambda: (
            objective.beta * p * (p / m).log() + (1 - objective.beta) * q * (q / m).log()
        ).sum(),
        "skew_kl": lambda: (p * (p / m).log()).sum(),
        "total_variation": lambda: (p - q).abs().sum() / 2,
        "mse": lambda: (p / q).log().var(correction=0),
    }
    return values[objective.divergence]()


@pytest.mark.parametrize("altered", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("tail", ["bucket", "renormalise"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_equals_the_definition(
    divergence: str, tail: str, temperature: float, altered: bool
) -> None:
    """Any divergence, tail, temperature or kind of logits may have a wrong value, gradient or
    share."""
    hidden, weight, labels = student()
    bias, weights = torch.randn(V, dtype=DTYPE, requires_grad=True), torch.rand(N, dtype=DTYPE)
    objective, known = Objective(0.3, temperature, divergence, 0.2, tail), teacher()
    logits = Logits(0.7, 3.0, bias) if altered else Logits()
    ce, kd = by_definition(hidden, weight, labels, objective, known, weights, logits)
    inputs = (hidden, weight, bias) if altered else (hidden, weight)
    expected, ce_grad, kd_grad = (
        torch.autograd.grad(value, inputs, retain_graph=True) for value in (ce + kd, ce, kd)
    )
    for dtype, limit in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        casts = cast(dtype, *inputs)
        logits = Logits(0.7, 3.0, casts[2]) if altered else Logits()
        for shares in (False, True):
            loss = distillation_loss(
                casts[0], casts[1], labels, objective, known, weights.to(dtype), logits, shares
            )
            assert torch.stack([loss.ce, loss.kd]).tolist() == pytest.approx(
                [ce.item(), kd.item()], rel=limit
            )
            for grad, reference in zip(gradients(loss, *casts), expected, strict=True):
                assert error(grad, reference) <= limit
        assert loss.ce_grad is not None
        assert loss.kd_grad is not None
        norms = [ce_grad[0].norm().item(), kd_grad[0].norm().item()]
        assert [loss.ce_grad.item(), loss.kd_grad.item()] == pytest.approx(norms, rel=limit)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_error_is_that_of_the_products(
    weight_dtype: torch.dtype, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over ten seeds the error was at most 0.5 %; sums in bfloat16, or blocks of the weight that
    are cast wrongly, would give more."""
    monkeypatch.setattr(lm_head, "BLOCK_ELEMENTS", 7 * H)
    *exact, labels = student()
    hidden, weight = (
        tensor.detach().to(torch.bfloat16).double().requires_grad_() for tensor in exact
    )
    objective, known = Objective(0.3, temperature), teacher()
    ce, kd = by_definition(hidden, weight, labels, objective, known, torch.ones(N), Logits())
    expected = torch.autograd.grad(ce + kd, (hidden, weight))
    casts = cast(torch.bfloat16, hidden)[0], cast(weight_dtype, weight)[0]
    loss = distillation_loss(*casts, labels, objective, known)
    assert loss.total.item() == pytest.approx((ce + kd).item(), rel=2e-3)
    dtypes = (torch.bfloat16, weight_dtype)
    for grad, reference, dtype in zip(gradients(loss, *casts), expected, dtypes, strict=True):
        assert grad.dtype == dtype
        assert error(grad, reference) <= 0.01


@pytest.mark.parametrize("alpha", ["confidence", "entropy"])
@pytest.mark.parametrize("divergence", ["forward_kl", "mse"])
def test_alpha_of_each_token_equals_the_definition(alpha: str, divergence: str) -> None:
    """An alpha per token must reach both terms, and a token without a distribution, whose row is
    NaN, must count fully."""
    hidden, weight, labels = student()
    known, weights = teacher(), torch.rand(N, dtype=DTYPE)
    objective = Objective(alpha, 1.5, divergence)
    ce, kd = by_definition(hidden, weight, labels, objective, known, weights, Logits())
    loss = distillation_loss(hidden, weight, labels, objective, known, weights, shares=True)
    torch.testing.assert_close(torch.stack([loss.ce, loss.kd]), torch.stack([ce, kd]))
    expected = torch.autograd.grad(ce + kd, (hidden, weight))
    torch.testing.assert_close(gradients(loss, hidden, weight), expected)


def test_sure_teacher_gives_the_hard_label_and_an_unsure_one_the_soft() -> None:
    """Swapped, the mixture would drop the teacher's doubt where it has any. By hand."""
    logprobs = torch.tensor([[1.0, 0.0], [0.5, 0.25], [0.1, 0.8]]).log()
    tail = torch.tensor([0.0, 0.25, 0.1]).log()
    ids, exact = torch.tensor([[0, 1]] * 3), torch.full((3,), 2)
    known = Teacher(ids, logprobs, tail, exact, torch.ones(3) > 0)
    assert ALPHAS["confidence"](known).tolist() == pytest.approx([1.0, 0.5, 0.1])
    entropies = [0.0, 1.5 * math.log(2), -0.2 * math.log(0.1) - 0.8 * math.log(0.8)]
    expected = [math.exp(-value) for value in entropies]
    assert ALPHAS["entropy"](known).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.3, *ALPHAS])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_is_that_of_finite_differences(divergence: str, alpha: float | str) -> None:
    """The hand-written gradient may be wrong. (gradcheck asks for a gradient twice, which is
    refused.)"""
    hidden, weight, labels = student()
    objective, logits = Objective(alpha, 1.7, divergence), Logits(1.3, 4.0)

    def value(h: Tensor, w: Tensor) -> Loss:
        return distillation_loss(h, w, labels, objective, teacher(), logits=logits)

    steps = [torch.randn_like(tensor) for tensor in (hidden, weight)]
    ahead, behind = (
        value(hidden + e * steps[0], weight + e * steps[1]).total.item() for e in (1e-5, -1e-5)
    )
    grads = gradients(value(hidden, weight), hidden, weight)
    slope = sum((grad * step).sum().item() for grad, step in zip(grads, steps, strict=True))
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("shares", [False, True])
def test_chunks_change_nothing(shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk may hold one token, some, or all; its size must not change the loss."""
    hidden, weight, labels = student()
    results = []
    for rows in (1, 4, 100):
        monkeypatch.setattr(fused, "CHUNK_BYTES", 3 * 8 * V * rows)
        loss = distillation_loss(
            hidden,
            weight,
            labels,
            Objective(0.3, 2.0),
            teacher(),
            logits=Logits(softcap=5.0),
            shares=shares,
        )
        results.append((*loss[: 5 if shares else 3], *gradients(loss, hidden, weight)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """Record the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_whole_logits_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that grows with tokens times vocabulary is the reason for the fused loss."""
    monkeypatch.setattr(fused, "CHUNK_BYTES", 2 * 4 * V * 10)
    monkeypatch.setattr(lm_head, "BLOCK_ELEMENTS", 6 * H)
    hidden = torch.randn(200, H, dtype=torch.bfloat16, requires_grad=True)
    known = Teacher(
        torch.arange(2).expand(200, 2),
        torch.full((200, 2), -1.0),
        torch.zeros(200),
        torch.ones(200),
        torch.ones(200) > 0,
    )
    with Largest() as largest:
        distillation_loss(
            hidden, torch.randn(V, H), torch.arange(200) % V, Objective(0.5, 2.0), known
        ).total.backward()
    assert largest.elements == 200 * H


def test_weight_of_two_is_twice_the_token() -> None:
    """A weight must reach both parts of the loss, and 0 must remove a token."""
    hidden, weight, labels = student()
    known, weights = teacher(), torch.tensor([2.0, 0.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    twice = torch.tensor([0, 0, 2, 3, 4, 4, 5, 6, 7, 8])
    weighted = distillation_loss(hidden, weight, labels, Objective(0.3), known, weights)
    repeated = Teacher(
        *(getattr(known, name)[twice] for name in ("ids", "logprobs", "tail", "exact", "known"))
    )
    again = distillation_loss(hidden[twice], weight, labels[twice], Objective(0.3), repeated)
    torch.testing.assert_close(weighted[:3], again[:3])
    torch.testing.assert_close(gradients(weighted, weight), gradients(again, weight))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_token_without_teacher_is_plain_cross_entropy(divergence: str) -> None:
    """A row without a distribution must not reach the loss, whatever it holds, and alpha must not
    weigh it."""
    hidden, weight, labels = student()
    known = replace(teacher(), known=torch.zeros(N, dtype=torch.bool))
    for tail in ("bucket", "renormalise"):
        loss = distillation_loss(
            hidden, weight, labels, Objective(0.3, 2.0, divergence, tail=tail), known
        )
        alone = distillation_loss(hidden, weight, labels, Objective())
        assert loss.kd == 0
        torch.testing.assert_close(loss[:3], alone[:3])
        torch.testing.assert_close(
            gradients(loss, hidden, weight), gradients(alone, hidden, weight)
        )


@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_side_gets_no_gradient(frozen: int) -> None:
    """LoRA freezes the head: its gradient must cost nothing, and the other must stay the same."""
    both = student()
    expected = gradients(distillation_loss(*both, KD, teacher()), *both[:2])[1 - frozen]
    sides = list(student()[:2])
    sides[frozen] = sides[frozen].detach()
    loss = distillation_loss(sides[0], sides[1], both[2], KD, teacher())
    torch.testing.assert_close(gradients(loss, sides[1 - frozen])[0], expected)
    with torch.no_grad():
        assert distillation_loss(*both, KD, teacher()).total == loss.total


def test_no_tokens_give_zero_and_touch_everything() -> None:
    """A process with an empty batch must still take part in the exchange of gradients."""
    hidden, weight, labels = student()
    none = Teacher(
        *(getattr(teacher(), name)[:0] for name in ("ids", "logprobs", "tail", "exact", "known"))
    )
    for known in (none, None):
        loss = distillation_loss(hidden[:0], weight, labels[:0], KD, known, shares=True)
        assert loss.total == 0
        grads = gradients(loss, hidden, weight)
        assert [grad.shape for grad in grads] == [hidden.shape, weight.shape]
        assert not any(grad.any() for grad in grads)


def test_gradient_is_handed_out_once() -> None:
    """The gradient is scaled in place; a second request would silently scale it again."""
    hidden, weight, labels = student()
    loss = distillation_loss(hidden, weight, labels, Objective())
    mean = torch.autograd.grad(loss.total / N, hidden, retain_graph=True)[0]
    torch.testing.assert_close(
        mean * N, gradients(distillation_loss(hidden, weight, labels, Objective()), hidden)[0]
    )
    with pytest.raises(AssertionError, match="once"):
        loss.total.backward()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_student_equal_to_teacher_has_no_loss_and_no_gradient(divergence: str) -> None:
    """A divergence must have its minimum where student and teacher are equal."""
    hidden, weight, labels = student()
    logprobs = (hidden @ weight.T).log_softmax(1).detach()[:, :K]
    same = Teacher(
        torch.arange(K).expand(N, K),
        logprobs,
        (1 - logprobs.exp().sum(1)).log(),
        torch.full((N,), K),
        torch.ones(N) > 0,
    )
    loss = distillation_loss(hidden, weight, labels, replace(KD, divergence=divergence), same)
    buckets = torch.cat([same.logprobs, same.tail[:, None]], 1)
    entropy = -(buckets.exp() * buckets).sum().item()
    least = entropy if divergence == "cross_entropy" else 0.0
    assert loss.total.item() == pytest.approx(least, abs=1e-12)
    if divergence != "total_variation":  # which has a kink there
        assert gradients(loss, hidden)[0].abs().max() < 1e-12


@pytest.mark.parametrize(
    "objective",
    [replace(KD, divergence=name) for name in DIVERGENCES] + [replace(KD, temperature=2.0)],
    ids=str,
)
def test_draws_count_as_tail_where_the_loss_is_not_linear(objective: Objective) -> None:
    """A draw stands for many tokens; as one token of their joint probability it would be the most
    likely."""
    hidden, weight, labels = student()
    ids, logprobs = torch.arange(K).expand(N, K), torch.full((N, K), 0.15).log()
    known = Teacher(
        ids, logprobs, torch.full((N,), 0.25).log(), torch.full((N,), 2), torch.ones(N) > 0
    )
    merged = replace(
        known, ids=ids[:, :2], logprobs=logprobs[:, :2], tail=torch.full((N,), 0.7).log()
    )
    drawn, folded = (
        distillation_loss(hidden, weight, labels, objective, stored).total.item()
        for stored in (known, merged)
    )
    assert (drawn == pytest.approx(folded)) is not objective.uses_draws


def test_gradient_of_forward_kl_is_right_on_average_over_the_draws() -> None:
    """The promise of the .topk file: draws add noise that averages out over tokens, and no bias."""
    hidden, weight, labels = student()
    whole = torch.randn(N, V, dtype=DTYPE).mul(1.5).log_softmax(1)
    order = whole.argsort(dim=1, descending=True)
    ranked = whole.gather(1, order).exp().numpy()
    exact = ranked >= 1 / 16
    rarer = ranked * ~exact
    expected = gradients(Loss(*dense_forward_kl(hidden, weight, whole)), hidden)[0]
    total = torch.zeros_like(hidden)
    rounds = 2000
    for seed in range(rounds):
        offsets = torch.rand(N, generator=torch.Generator().manual_seed(seed), dtype=DTYPE).numpy()
        draws = topk._draw(rarer, 1 / 16, offsets)
        shares = torch.tensor(exact * ranked + draws * (rarer.sum(1) / draws.sum(1))[:, None])
        known = Teacher(
            order,
            shares.log(),
            torch.full((N,), -torch.inf),
            torch.tensor(exact.sum(1)),
            torch.ones(N) > 0,
        )
        total += gradients(distillation_loss(hidden, weight, labels, KD, known), hidden)[0]
    assert error(total / rounds, expected) < 0.02


def dense_forward_kl(
    hidden: Tensor, weight: Tensor, whole: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    kd = forward_kl(whole, (hidden @ weight.T).log_softmax(1)).sum()
    return kd, kd * 0, kd


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_of_a_small_vocabulary_kept_leaves_no_tail(divergence: str, temperature: float) -> None:
    """An empty tail must not turn the gradient into NaN."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 4, requires_grad=True), torch.randn(3, 4)
    ids = torch.arange(3).expand(2, 3)
    none, all_three = torch.full((2,), -torch.inf), torch.full((2,), 3)
    known = Teacher(ids, torch.randn(2, 3).log_softmax(1), none, all_three, torch.ones(2) > 0)
    loss = distillation_loss(
        hidden, weight, ids[:, 0], Objective(0.1, temperature, divergence), known
    )
    assert torch.isfinite(loss.total)
    assert torch.isfinite(gradients(loss, hidden)[0]).all()
