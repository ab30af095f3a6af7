"""Does the loss keep its bars of memory, time and precision? Prints a table of bar and figure, and exits 1 on a miss.

    .venv/bin/python -m benchmarks.loss [memory] [time] [error]      # all by default; some minutes on 2 cores

TOKENS=8192 in the environment is the size of the memory's rows. See benchmarks/README.md.
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
WIDE = (2048, 152_000)  # hidden states, vocabulary: those of the bar
SMALL = (576, 49_152)  # of the packaged model
ROUNDS, SCORED = 11, 512
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
    """Hidden states in `dtype`, a head in fp32, labels, and a teacher whose k entries hold most of the mass."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        hidden = torch.empty(tokens, width, dtype=dtype).normal_().requires_grad_()
        weight = torch.empty(vocab_size, width).normal_(std=2 / width**0.5).requires_grad_()
        ids = torch.randint(vocab_size // k, (tokens, k)) + torch.arange(k) * (vocab_size // k)
        logprobs = torch.cat(
            [torch.randn(tokens, k).mul_(2), torch.zeros(tokens, 1)], 1
        ).log_softmax(1)
        exact, known = torch.full((tokens,), k), torch.ones(tokens, dtype=torch.bool)
    return (
        hidden,
        weight,
        ids[:, 0].clone(),
        Teacher(ids, logprobs[:, :-1].clone(), logprobs[:, -1].clone(), exact, known),
    )


def memory(folder: Path) -> Iterator[Row]:
    """Peak of one loss and backward pass beyond its inputs and the gradients that it leaves; a fresh process each."""
    for name in TYPES:
        full, half = (extra(tokens, k, name) for tokens, k in ((TOKENS, 64), (TOKENS // 2, 16)))
        shape = f"{name}, T={TOKENS:,} H={WIDE[0]:,} V={WIDE[1]:,}"
        yield Row(f"extra memory, {shape} K=64", "<= 1 GiB", f"{full / 1024:.2f} GiB", full <= 1024)
        yield Row(
            f"does not grow from T={TOKENS // 2:,} K=16 on",
            "<= 1.05",
            f"{full / half:.2f} (from {half / 1024:.2f} GiB)",
            full <= 1.05 * half,
        )


def extra(tokens: int, k: int, name: str) -> float:
    """MiB, measured in a fresh process."""
    code = f"from benchmarks.loss import peak; print(peak({tokens}, {k}, {name!r}))"
    return float(run_python("-c", code))


def peak(tokens: int, k: int, name: str) -> float:
    """MiB by which this process's peak exceeds what it has with inputs and gradients in memory. Once a process."""
    tiny = case(4, 8, 64, 4, TYPES[name])
    distillation_loss(
        *tiny[:3], Objective(0.1), tiny[3]
    ).total.backward()  # libraries and their threads
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
    return torch.cuda.memory_allocated() / MIB if DEVICE == "cuda" else status("VmRSS")


def status(name: str) -> float:
    """MiB, of this process, as the kernel counts."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def seconds(folder: Path) -> Iterator[Row]:
    """Loss and backward pass on the same rows, in turns."""
    for name, dtype in TYPES.items():
        hidden, weight, labels, teacher = case(SCORED, *SMALL, 20, dtype)
        times = in_turns(contestants(hidden, weight, labels, teacher), hidden, weight)
        for side, against, bar in COMPARED:
            ratios = sorted(
                mine / theirs for mine, theirs in zip(times[side], times[against], strict=True)
            )
            figure = f"{spread(ratios, 2)}, {statistics.median(times[side]) * 1000:.0f} ms"
            what = f"time of {side} / {against}, {name}, {SCORED} tokens"
            yield Row(
                what, f"<= {bar}" if bar else "", figure, bar is None or table.median(ratios) <= bar
            )


def contestants(
    hidden: Tensor, weight: Tensor, labels: Tensor, teacher: Teacher
) -> dict[str, Callable[[], Tensor]]:
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as WIDTH

    def whole_logits() -> Tensor:
        return torch.nn.functional.cross_entropy(
            (hidden @ weight.to(hidden.dtype).T).float(), labels, reduction="sum"
        )

    return {
        "TRL's fused head": lambda: (
            -ChunkedLogProbFunction.apply(hidden, weight, None, labels, 1.0, WIDTH, None, 1.0, ())[
                0
            ].sum()
        ),
        "dense": whole_logits,
        "sft": lambda: distillation_loss(hidden, weight, labels, Objective()).total,
        "kd": lambda: distillation_loss(hidden, weight, labels, Objective(0.1), teacher).total,
        "kd with shares": lambda: (
            distillation_loss(hidden, weight, labels, Objective(0.1), teacher, shares=True).total
        ),
    }


def in_turns(sides: dict[str, Callable[[], Tensor]], *leaves: Tensor) -> dict[str, list[float]]:
    """Seconds of each side's loss and backward pass, round by round, after a warm-up."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS + 1):
        for side, loss in sides.items():
            for leaf in leaves:
                leaf.grad = None
            began = time.perf_counter()
            loss().div(SCORED).backward()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            times[side].append(time.perf_counter() - began)
    return {side: found[1:] for side, found in times.items()}


def error(folder: Path) -> Iterator[Row]:
    """Against the definition, from whole logits in float64, on inputs that are rounded to bf16 first."""
    hidden, weight, labels, teacher = case(128, *SMALL, 20, torch.float32)
    hidden, weight = (one.detach().bfloat16().double().requires_grad_() for one in (hidden, weight))
    for temperature in (1.0, 2.0):
        objective = Objective(
            0.1, temperature, tail="bucket" if temperature == 1.0 else "renormalise"
        )
        reference = dense(hidden, weight, labels, objective, teacher)
        expected = reference, *torch.autograd.grad(reference, (hidden, weight))
        for name, bar in (("fp32", 1e-5), ("bf16", 1e-2)):
            mine = (
                hidden.detach().to(TYPES[name]).requires_grad_(),
                weight.detach().float().requires_grad_(),
            )
            loss = distillation_loss(*mine, labels, objective, teacher).total
            found = loss, *torch.autograd.grad(loss, mine)
            errors = [
                ((one.double() - other).norm() / other.norm()).item()
                for one, other in zip(found, expected, strict=True)
            ]
            figure = " ".join(f"{one:.0e}" for one in errors)
            what = f"relative error, {name}, T={temperature:.0f}: loss, two gradients"
            yield Row(what, f"<= {bar:.0e}", figure, max(errors) <= bar)


def dense(
    hidden: Tensor, weight: Tensor, labels: Tensor, objective: Objective, teacher: Teacher
) -> Tensor:
    """Forward KL, at temperature 1 with a tail, at another among the entries, which needs no word on how the tail softens."""
    logits = hidden @ weight.T
    q = (logits / objective.temperature).log_softmax(1).gather(1, teacher.ids)
    p, tail = teacher.logprobs.double() / objective.temperature, teacher.tail.double()[:, None]
    if objective.tail == "bucket":
        buckets = (
            torch.cat([p, tail], 1),
            torch.cat([q, torch.log1p(-q.exp().sum(1, keepdim=True))], 1),
        )
    else:
        buckets = p.log_softmax(1), q.log_softmax(1)
    ce = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return (
        objective.alpha * ce
        + (1 - objective.alpha) * objective.temperature**2 * forward_kl(*buckets).sum()
    )


MEASUREMENTS: dict[str, Measurement] = {"memory": memory, "time": seconds, "error": error}


if __name__ == "__main__":
    print(f"{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    sys.exit(table.main(MEASUREMENTS, sys.argv[1:]))
