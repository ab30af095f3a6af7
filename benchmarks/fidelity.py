"""How small the stored logprobs are, and how far the gradient that they give is from that of the whole distributions.

    .venv/bin/python benchmarks/fidelity.py RUN

RUN is a run folder whose generate stage is finished. The teacher's whole distributions are made again with transformers in float32, at
every position of as many samples as give POSITIONS positions; so the angle also holds what bfloat16 and another engine make different.
The student is that of the run's config, untrained and after half an epoch of SFT on the run's rows. The angle is between the gradients of
the lm_head's weights: from the stored frames by `losses.kd.distillation_loss`, and from the whole distributions by forward KL.
"""

import copy
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.losses.distillation import Objective, distillation_loss
from pipeline.models import resolve
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.records import Sample
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopK, TopKFolder
from pipeline.students import build
from pipeline.training.collation import stack

POSITIONS = int(os.environ.get("POSITIONS", "8192"))
BATCH = 16
LEARNING_RATE = 2e-4


@dataclass
class Case:
    """Everything at N positions: the teacher's last hidden states and head, and what a student's training rows are."""

    hidden: Tensor  # (N, H)
    head: Tensor  # (V, H)
    labels: Tensor  # (N,)
    rows: list[tuple[list[int], list[int]]]  # the student's prompt, the completion


@dataclass(frozen=True)
class Fidelity:
    bytes_a_token: float
    entries_a_token: float
    untrained: float  # degrees
    half_trained: float
    positions: int


def measure(folder: str | Path) -> Fidelity:
    """Of a run folder."""
    torch.manual_seed(0)
    run_dir = Path(folder)
    config = Config.model_validate(read_json(run_dir / "generate" / "begun.json")["config"])
    samples = take(run_dir)
    case = prepare(config, run_dir, samples)
    frames = TopKFolder(run_dir / "generate")
    stored = [frames.topk_of(sample) for sample in samples]
    counts = read_json(run_dir / "generate" / "manifest.json")["counts"]
    log = run_dir / "generate" / "engine.log"  # vLLM's own words are no capture
    files = sum(
        path.stat().st_size
        for path in (run_dir / "generate").rglob("*")
        if path.is_file() and path != log
    )
    angles = [
        angle(case, stored, *student, dense_gradient(case, *student))
        for student in student_states(config, case)
    ]
    entries = sum(int((topk.logprobs != -np.inf).sum()) for topk in stored) / len(case.labels)
    return Fidelity(
        files / counts["completion_tokens"], entries, angles[0], angles[1], len(case.labels)
    )


def take(run_dir: Path) -> list[Sample]:
    """The first samples that have POSITIONS positions together."""
    found: list[Sample] = []
    for sample in (rows := Samples(run_dir / "generate")).take(0, len(rows)):
        found.append(sample)
        if sum(len(one.token_ids or ()) for one in found) >= POSITIONS:
            break
    return found


def prepare(config: Config, run_dir: Path, samples: Sequence[Sample]) -> Case:
    path = resolve.model_path(config.teacher.model)
    tokenizer = Tokenizer(path)
    asked = prompts.load(run_dir / "generate" / "prompts" / "0.md")
    seen = prompts.load(config.train.prompt)
    teacher = load_weights(path, config.teacher.revision, torch.float32).eval()
    encoded = [
        (tokenizer.encode(asked.render(s.seed, tokenizer.control_tokens)), list(s.token_ids or ()))
        for s in samples
    ]
    rows = [
        (tokenizer.encode(seen.render(s.seed, tokenizer.control_tokens)), list(s.token_ids or ()))
        for s in samples
    ]
    with torch.no_grad():
        hidden = torch.cat(list(completion_states(teacher, encoded)))
    labels = torch.tensor([token for _, completion in encoded for token in completion])
    return Case(hidden, teacher.get_output_embeddings().weight.detach().clone(), labels, rows)


def completion_states(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[Tensor]:
    """(T, H) for each row: the states that predict its completion. What all prompts begin with is run once."""
    begins = [prompt[:-1] for prompt, _ in rows]
    shared = next(at for at, tokens in enumerate(zip_longest(*begins)) if len(set(tokens)) > 1)
    cache = (
        model.base_model(torch.tensor([rows[0][0][:shared]]), use_cache=True).past_key_values
        if shared > 64
        else None
    )
    shared = shared if cache is not None else 0
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        texts = [(prompt + completion)[shared:] for prompt, completion in part]
        width = max(map(len, texts))
        past = copy.deepcopy(cache)
        if past is not None:
            past.batch_repeat_interleave(len(part))
        ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
        mask = torch.tensor(
            [[1] * (shared + len(text)) + [0] * (width - len(text)) for text in texts]
        )
        states = model.base_model(
            ids, attention_mask=mask, past_key_values=past, use_cache=past is not None
        ).last_hidden_state
        for row, (prompt, completion) in enumerate(part):
            begin = len(prompt) - shared - 1
            yield states[row, begin : begin + len(completion)].float()


def student_states(config: Config, case: Case) -> Iterator[tuple[Tensor, Tensor]]:
    """((N, H) states, (V, H) head) of the student, untrained and after half an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(config.run_dir)
        path = (
            build.build(
                config, Path(folder), run_dir / "filter" / "kept", run_dir / "generate"
            ).model
            or folder
        )
        student = load_weights(str(path), None, torch.float32)
    for trained in (False, True):
        if trained:
            train(student, case.rows[: len(case.rows) // 2])
        with torch.no_grad():
            states = torch.cat(list(completion_states(student, case.rows)))
        yield states, student.get_output_embeddings().weight.detach().clone()


def train(student: Any, rows: Sequence[tuple[list[int], list[int]]]) -> None:
    """SFT, one pass."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        width = max(len(prompt) + len(completion) for prompt, completion in part)
        ids = torch.tensor([(p + c) + [0] * (width - len(p) - len(c)) for p, c in part])
        bearing = torch.tensor(
            [[len(p) - 1 <= at < len(p) + len(c) - 1 for at in range(width)] for p, c in part]
        )
        states = student.base_model(ids, use_cache=False).last_hidden_state[bearing]
        labels = torch.tensor([token for _, completion in part for token in completion])
        loss = distillation_loss(
            states, student.get_output_embeddings().weight, labels, Objective()
        ).total / len(labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def dense_gradient(case: Case, states: Tensor, head: Tensor) -> Tensor:
    """(V, H) gradient of the student's head from the whole distributions."""
    dense = torch.zeros_like(head)
    for part in torch.arange(len(states)).split(512):
        difference = (states[part] @ head.T).softmax(1) - (case.hidden[part] @ case.head.T).softmax(
            1
        )
        dense.addmm_(difference.T, states[part])
    return dense


def angle(case: Case, stored: Sequence[TopK], states: Tensor, head: Tensor, dense: Tensor) -> float:
    """Degrees between the gradients of the student's head from the stored frames and from the whole distributions."""
    weight = head.clone().requires_grad_()
    distillation_loss(
        states, weight, case.labels, Objective(alpha=0.0), stack(stored)
    ).total.backward()
    assert weight.grad is not None
    cosine = torch.nn.functional.cosine_similarity(
        weight.grad.flatten().double(), dense.flatten().double(), dim=0
    )
    return math.degrees(math.acos(min(1.0, float(cosine))))


if __name__ == "__main__":
    print(measure(sys.argv[1]))
