"""Measures memory, time and precision of the loss against its bars. Exits 1 on a miss.

    .venv/bin/python -m benchmarks.loss [memory] [time] [error]    # minutes on 2 cores

Time is compared with TRL's fused head and with dense cross-entropy, precision with full logits in
float64. TOKENS=8192 in the environment sets the size of the memory's rows. See
benchmarks/README.md.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import table
from benchmarks.table import Measurement, Row, run_python, spread
from pipeline.losses.distillation import Objective, Teacher, distillation_loss
from pipeline.losses.divergences import forward_kl

TOKENS = int(os.environ.get("TOKENS", "8192"))
WIDE = (2048, 152_000)  # hidden size and vocabulary of the bar
SMALL = (576, 49_152)  # of the packaged model
ROUNDS = 11
SCORED = 512
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIB = 1 << 20
COMPARED = (
    ("sft", "TRL's fused head", 1.05),
    ("kd", "TRL's fused head", 1.05),
    ("sft", "dense", None),
    ("kd", "dense", None),
    ("kd with shares", "kd", None),
)


def case(
    tokens: int, width: int, vocab_size: int, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Teacher]:
    """Return hidden states in `dtype`, a head in fp32, labels, and a teacher with k entries.

    The entries hold most of the mass.
    """
    torch.manual_seed(0)
    with torch.device(DEVICE):
        hidden = torch.empty(tokens, width, dtype=dtype).normal_().requires_grad_()
        weight = torch.empty(vocab_size, width).normal_(std=2 / width**0.5).requires_grad_()
        ids = torch.randint(vocab_size // k, (tokens, k)) + torch.arange(k) * (vocab_size // k)
        logprobs = torch.cat(
            [torch.randn(tokens, k).mul_(2), torch.zeros(tokens, 1)], 1
        ).log_softmax(1)
        exact = torch.full((tokens,), k)
        known = torch.ones(tokens, dtype=torch.bool)
    return (
        hidden,
        weight,
        ids[:, 0].clone(),
        Teacher(ids, logprobs[:, :-1].clone(), logprobs[:, -1].clone(), exact, known),
    )


def memory(folder: Path) -> Iterator[Row]:
    """Measure the peak of one loss and backward pass beyond its inputs and gradients."""
    for name in TYPES:
        full = extra(TOKENS, 64, name)
        half = extra(TOKENS // 2, 16, name)
        shape = f"{name}, T={TOKENS:,} H={WIDE[0]:,} V={WIDE[1]:,}"
        yield Row(f"extra memory, {shape} K=64", "<= 1 GiB", f"{full / 1024:.2f} GiB", full <= 1024)
        yield Row(
            f"does not grow from T={TOKENS // 2:,} K=16 on",
            "<= 1.05",
            f"{full / half:.2f} (from {half / 1024:.2f} GiB)",
            full <= 1.05 * half,
        )


def extra(tokens: int, k: int, name: str) -> float:
    """Return `peak` of a fresh process, MiB."""
    code = f"from benchmarks.loss import peak; print(peak({tokens}, {k}, {name!r}))"
    return float(run_python("-c", code))


def peak(tokens: int, k: int, name: str) -> float:
    """Return how far this process's peak exceeds its inputs and gradients, MiB. Once a process."""
    # A small case first loads the libraries and starts their threads.
    hidden, weight, labels, teacher = case(4, 8, 64, 4, TYPES[name])
    distillation_loss(hidden, weight, labels, Objective(0.1), teacher).total.backward()
    hidden, weight, labels, teacher = case(tokens, *WIDE, k, TYPES[name])
    gradients = [torch.ones_like(hidden), torch.ones_like(weight)]
    before = held()
    del gradients
    distillation_loss(hidden, weight, labels, Objective(0.1), teacher).total.div(tokens).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / MIB - before
    return status("VmHWM") - before


def held() -> float:
    """Return the memory in use now, MiB."""
    return torch.cuda.memory_allocated() / MIB if DEVICE == "cuda" else status("VmRSS")


def status(name: str) -> float:
    """Return a figure of /proc/self/status, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def seconds(folder: Path) -> Iterator[Row]:
    """Time loss and backward pass of all sides on the same rows, in turns."""
    for name, dtype in TYPES.items():
        hidden, weight, labels, teacher = case(SCORED, *SMALL, 20, dtype)
        times = in_turns(contestants(hidden, weight, labels, teacher), hidden, weight)
        for side, against, bar in COMPARED:
            pairs = zip(times[side], times[against], strict=True)
            ratios = sorted(seconds / other_seconds for seconds, other_seconds in pairs)
            figure = f"{spread(ratios, 2)}, {statistics.median(times[side]) * 1000:.0f} ms"
            what = f"time of {side} / {against}, {name}, {SCORED} tokens"
            met = bar is None or table.median(ratios) <= bar
            yield Row(what, f"<= {bar}" if bar else "", figure, met)


def contestants(
    hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher
) -> dict[str, Callable[[], Tensor]]:
    """Return the loss functions to compare, by name."""
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as WIDTH

    def dense() -> Tensor:
        return torch.nn.functional.cross_entropy(
            (hidden @ weight.to(hidden.dtype).T).float(), labels, reduction="sum"
        )

    def fused() -> Tensor:
        arguments = (hidden, weight, None, labels, 1.0, WIDTH, None, 1.0, ())
        logprobs: Tensor = ChunkedLogProbFunction.apply(*arguments)[0]
        return -logprobs.sum()

    return {
        "TRL's fused head": fused,
        "dense": dense,
        "sft": lambda: distillation_loss(hidden, weight, labels, Objective()).total,
        "kd": lambda: distillation_loss(hidden, weight, labels, Objective(0.1), teacher).total,
        "kd with shares": lambda: (
            distillation_loss(hidden, weight, labels, Objective(0.1), teacher, shares=True).total
        ),
    }


def in_turns(sides: dict[str, Callable[[], Tensor]], *leaves: Tensor) -> dict[str, list[float]]:
    """Return the seconds of each side's loss and backward pass, by round, after a warm-up."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS + 1):
        for side, loss in sides.items():
            for leaf in leaves:
                leaf.grad = None
            started = time.perf_counter()
            loss().div(SCORED).backward()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            times[side].append(time.perf_counter() - started)
    return {side: seconds[1:] for side, seconds in times.items()}


def error(folder: Path) -> Iterator[Row]:
    """Compare with the definition on full logits in float64, on inputs rounded to bf16 first."""
    hidden, weight, labels, teacher = case(128, *SMALL, 20, torch.float32)
    hidden = hidden.detach().bfloat16().double().requires_grad_()
    weight = weight.detach().bfloat16().double().requires_grad_()
    for temperature in (1.0, 2.0):
        tail = "bucket" if temperature == 1.0 else "renormalise"
        objective = Objective(0.1, temperature, tail=tail)  # type: ignore[arg-type]
        reference = definition(hidden, weight, labels, objective, teacher)
        expected = reference, *torch.autograd.grad(reference, (hidden, weight))
        for name, bar in (("fp32", 1e-5), ("bf16", 1e-2)):
            rounded = hidden.detach().to(TYPES[name]).requires_grad_()
            head = weight.detach().float().requires_grad_()
            loss = distillation_loss(rounded, head, labels, objective, teacher).total
            actual = loss, *torch.autograd.grad(loss, (rounded, head))
            errors = [
                ((value.double() - truth).norm() / truth.norm()).item()
                for value, truth in zip(actual, expected, strict=True)
            ]
            figure = " ".join(f"{error:.0e}" for error in errors)
            what = f"relative error, {name}, T={temperature:.0f}: loss, two gradients"
            yield Row(what, f"<= {bar:.0e}", figure, max(errors) <= bar)


def definition(
    hidden: Tensor, weight: Tensor, labels: Tensor, objective: Objective, teacher: Teacher
) -> Tensor:
    """Return cross-entropy and forward KL of full logits: with the tail, or among the entries."""
    logits = hidden @ weight.T
    q = (logits / objective.temperature).log_softmax(1).gather(1, teacher.ids)
    p = teacher.logprobs.double() / objective.temperature
    tail = teacher.tail.double()[:, None]
    if objective.tail == "bucket":
        p = torch.cat([p, tail], 1)
        q = torch.cat([q, torch.log1p(-q.exp().sum(1, keepdim=True))], 1)
    else:
        p = p.log_softmax(1)
        q = q.log_softmax(1)
    kl = forward_kl(p, q).sum() * objective.temperature**2
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert not isinstance(objective.alpha, str)
    return objective.alpha * ce + (1 - objective.alpha) * kl


MEASUREMENTS: dict[str, Measurement] = {"memory": memory, "time": seconds, "error": error}


if __name__ == "__main__":
    print(f"{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
