"""Measures the size of the stored logprobs, and the error of the gradient that they give.

    .venv/bin/python benchmarks/fidelity.py RUN

RUN is a run folder whose generate stage is finished. The error is the angle between two gradients
of the weights of the lm_head: from the stored frames by `distillation_loss`, and from the teacher's
full distributions by forward KL. transformers computes the full distributions again in float32, at
POSITIONS positions; the angle therefore includes the differences of bfloat16 and of the engine. The
student is that of the run's config, untrained and after half an epoch of SFT on the run's rows.
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
from pipeline.data.prompts import Prompt
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
Encoded = tuple[list[int], list[int]]  # tokens of the prompt, of the completion


@dataclass
class Case:
    """The teacher's last hidden states and head, and the student's rows, at N positions."""

    hidden: Tensor  # (N, H)
    head: Tensor  # (V, H)
    labels: Tensor  # (N,)
    rows: list[Encoded]  # with the student's prompt


@dataclass(frozen=True)
class Fidelity:
    """Size of the stored logprobs, and the angles in degrees of both students."""

    bytes_a_token: float
    entries_a_token: float
    untrained: float
    half_trained: float
    positions: int


def measure(folder: str | Path) -> Fidelity:
    """Measure the generate stage of a run folder."""
    torch.manual_seed(0)
    run_dir = Path(folder)
    config = Config.model_validate(read_json(run_dir / "generate" / "begun.json")["config"])
    samples = take(run_dir)
    case = prepare(config, run_dir, samples)
    frames = TopKFolder(run_dir / "generate")
    stored = [frames.topk_of(sample) for sample in samples]
    counts = read_json(run_dir / "generate" / "manifest.json")["counts"]
    log = run_dir / "generate" / "engine.log"
    paths = (path for path in (run_dir / "generate").rglob("*") if path.is_file() and path != log)
    nbytes = sum(path.stat().st_size for path in paths)
    angles = [
        angle(case, stored, states, head, full_gradient(case, states, head))
        for states, head in student_states(config, case)
    ]
    entries = sum(int((topk.logprobs != -np.inf).sum()) for topk in stored)
    return Fidelity(
        bytes_a_token=nbytes / counts["completion_tokens"],
        entries_a_token=entries / len(case.labels),
        untrained=angles[0],
        half_trained=angles[1],
        positions=len(case.labels),
    )


def take(run_dir: Path) -> list[Sample]:
    """Return the first samples, of POSITIONS positions together."""
    rows = Samples(run_dir / "generate")
    samples: list[Sample] = []
    positions = 0
    for sample in rows.take(0, len(rows)):
        samples.append(sample)
        positions += len(sample.token_ids or ())
        if positions >= POSITIONS:
            break
    return samples


def prepare(config: Config, run_dir: Path, samples: Sequence[Sample]) -> Case:
    """Run the teacher over the samples, and encode them for the student."""
    path = resolve.model_path(config.teacher.model)
    tokenizer = Tokenizer(path)
    teacher_prompt = prompts.load(run_dir / "generate" / "prompts" / "0.md")
    student_prompt = prompts.load(config.train.prompt)
    teacher = load_weights(path, config.teacher.revision, torch.float32).eval()
    encoded = encode(samples, teacher_prompt, tokenizer)
    rows = encode(samples, student_prompt, tokenizer)
    with torch.no_grad():
        hidden = torch.cat(list(completion_states(teacher, encoded)))
    labels = torch.tensor([token for _, completion in encoded for token in completion])
    return Case(hidden, teacher.get_output_embeddings().weight.detach().clone(), labels, rows)


def encode(samples: Sequence[Sample], prompt: Prompt, tokenizer: Tokenizer) -> list[Encoded]:
    """Return the tokens of prompt and completion of each sample."""
    rows = []
    for sample in samples:
        rendered = prompt.render(sample.seed, tokenizer.control_tokens)
        rows.append((tokenizer.encode(rendered), list(sample.token_ids or ())))
    return rows


def completion_states(model: Any, rows: Sequence[Encoded]) -> Iterator[Tensor]:
    """Yield the states (T, H) that predict the completion of each row.

    The common beginning of all prompts is run once.
    """
    columns = enumerate(zip_longest(*(prompt[:-1] for prompt, _ in rows)))
    shared = next(place for place, tokens in columns if len(set(tokens)) > 1)
    cache = None
    if shared > 64:
        prefix = torch.tensor([rows[0][0][:shared]])
        cache = model.base_model(prefix, use_cache=True).past_key_values
    else:
        shared = 0
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
    """Yield states (N, H) and head (V, H) of the student, untrained and after half an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(config.run_dir)
        kept = run_dir / "filter" / "kept"
        start = build.build(config, Path(folder), kept, run_dir / "generate")
        student = load_weights(str(start.model or folder), None, torch.float32)
    for trained in (False, True):
        if trained:
            train(student, case.rows[: len(case.rows) // 2])
        with torch.no_grad():
            states = torch.cat(list(completion_states(student, case.rows)))
        yield states, student.get_output_embeddings().weight.detach().clone()


def train(student: Any, rows: Sequence[Encoded]) -> None:
    """Train by SFT, once over the rows."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        width = max(len(prompt) + len(completion) for prompt, completion in part)
        ids = torch.tensor([(p + c) + [0] * (width - len(p) - len(c)) for p, c in part])
        predicts = torch.zeros(ids.shape, dtype=torch.bool)  # a token of the completion
        for row, (prompt, completion) in enumerate(part):
            predicts[row, len(prompt) - 1 : len(prompt) + len(completion) - 1] = True
        states = student.base_model(ids, use_cache=False).last_hidden_state[predicts]
        labels = torch.tensor([token for _, completion in part for token in completion])
        loss = distillation_loss(
            states, student.get_output_embeddings().weight, labels, Objective()
        ).total / len(labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def full_gradient(case: Case, states: Tensor, head: Tensor) -> Tensor:
    """Return the gradient (V, H) of the student's head from the full distributions."""
    gradient = torch.zeros_like(head)
    for part in torch.arange(len(states)).split(512):
        student = (states[part] @ head.T).softmax(1)
        teacher = (case.hidden[part] @ case.head.T).softmax(1)
        gradient.addmm_((student - teacher).T, states[part])
    return gradient


def angle(case: Case, stored: Sequence[TopK], states: Tensor, head: Tensor, full: Tensor) -> float:
    """Return the degrees between the gradient from the stored frames and the full one."""
    weight = head.clone().requires_grad_()
    distillation_loss(
        states, weight, case.labels, Objective(alpha=0.0), stack(stored)
    ).total.backward()
    assert weight.grad is not None
    cosine = torch.nn.functional.cosine_similarity(
        weight.grad.flatten().double(), full.flatten().double(), dim=0
    )
    return math.degrees(math.acos(min(1.0, float(cosine))))


if __name__ == "__main__":
    print(measure(sys.argv[1]))
