"""Heal a cut student, in a loop of its own, and save it.

The loss is forward KL over the whole vocabulary, plus the distance of the hidden states after each
layer from those after the layer it came from. A deep cut goes in rounds of cutting and distilling;
the whole model is the teacher in each. Source: Muralidharan et al. 2024, "Compact Language Models
via Pruning and Knowledge Distillation" (Minitron).

One process does this, on one GPU if there is one.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Config
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError, Stopped
from pipeline.execution.contract import Job
from pipeline.execution.paths import CHECKPOINTS
from pipeline.execution.progress import Progress
from pipeline.execution.signals import deferred
from pipeline.models import resolve, saving
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config, load_weights
from pipeline.storage.files import read_json, sync_folder, write_atomic, write_json
from pipeline.students import build, layers, vocabulary_trimming
from pipeline.students.checks import meta_model
from pipeline.students.rounds import rounds
from pipeline.students.source import source
from pipeline.training.healing import text as texts
from pipeline.training.healing.distance import distances
from pipeline.training.healing.plan import Batch, plan, rate_factor
from pipeline.training.healing.text import Text
from pipeline.training.model_checks import check_logits, logits_of
from pipeline.training.schedule import by_width
from pipeline.training.trl_arguments import arithmetic

log = logging.getLogger(__name__)

LABEL = "train init: heal"
HIDDEN_WEIGHT = 1.0  # of the hidden states' distance, beside the KL
BATCH = 16  # rows, where train.batch_size is open
LEARNING_RATE = 5e-4  # peak; it falls with the width as that of the arms
BETAS, MAX_NORM = (0.9, 0.95), 1.0
CUT, STATE, DONE = "cut", "healing.json", "healed.json"  # in RUN/train/init/checkpoints


def heal(job: Job, samples: Path, frames: Path) -> dict[str, Any]:
    """Cut the student, heal it and save it in RUN/train/init/model; return counts.

    A killed run continues from its last checkpoint. The checkpoints are deleted at the end.

    samples, frames: as of `build.build`.
    Raises PipelineError, before it loads weights, for text or layers that leave nothing to heal.
    """
    folder = job.folder / CHECKPOINTS
    if (folder / DONE).exists():  # killed before its manifest was written
        return dict(read_json(folder / DONE))
    check(job.config)
    cut = folder / CUT
    counts = _cut(job, cut, samples, frames)
    work = _Work(job, cut, counts["layers"], texts.load(job.config, Tokenizer(str(cut))))
    work.learn()
    counts["heal"] = work.counts()
    _save(job, cut, work.model)
    write_json(folder / DONE, counts)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    return counts


def check(config: Config) -> None:
    """Raise PipelineError if there is no text, or no layer was cut, for student.heal."""
    texts.check(config)
    name, revision = source(config)
    student = config.student
    total = load_config(resolve.model_path(name), revision).get_text_config().num_hidden_layers
    layers.check(name, total, student.layers, student.keep_layers)
    layers.check_cut(name, total, student.layers or len(student.keep_layers or ()))


class _Work:
    """The models, the plan and the state of one healing."""

    def __init__(self, job: Job, cut: Path, kept: Sequence[int], text: Text):
        self._job, self._cut, self._text = job, cut, text
        self._settings = job.config.train
        heal = job.config.student.heal
        assert heal
        name, self._revision = source(job.config)
        self._name = resolve.model_path(name)
        self._dtype = arithmetic(self._settings)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        whole = load_config(self._name, self._revision).get_text_config()
        self._rate = heal.learning_rate or by_width(LEARNING_RATE, whole.hidden_size)
        self._batch_size = self._settings.batch_size or BATCH
        self._rounds = plan(
            list(map(len, text.train)),
            rounds(whole.num_hidden_layers, kept, heal.rounds),
            heal.tokens,
            self._batch_size * self._settings.accumulate,
            self._settings.seed,
        )
        # what a checkpoint holds
        self.model: Any = None
        self._optimizer: Any = None
        self._step = self._done = self._round = 0  # _done: steps of the rounds before
        self._before = 0.0
        self._history: list[dict[str, float]] = []

    @cached_property
    def _steps(self) -> int:
        return sum(len(part.batches) for part in self._rounds)

    @cached_property
    def _teacher(self) -> Any:
        return self._whole(self._dtype).eval().requires_grad_(False).to(self._device)

    def learn(self) -> None:
        """Run all steps that are missing."""
        self._start()
        progress = Progress(LABEL, self._steps, self._step, unit="steps")
        with deferred() as signals:
            while self._step < self._steps:
                if self._step == self._done + len(self._rounds[self._round].batches):
                    self._next_round()
                batch = self._rounds[self._round].batches[self._step - self._done]
                entry = self._learn_step(batch)
                self._step += 1
                progress.add(1, self._tokens([batch]))
                progress.show({name: f"{value:.3g}" for name, value in entry.items()})
                self._record(entry)
                if signals or self._step % self._settings.save_steps == 0:
                    self._write_checkpoint()
                if signals:
                    raise Stopped(signals[0])
        progress.show(last=True)

    def counts(self) -> dict[str, Any]:
        """Measure the healed student and return what the manifest says of it."""
        learned = self._tokens(batch for part in self._rounds for batch in part.batches)
        passes = learned / self._text.tokens
        first, last = self._history[0]["loss"], self._history[-1]["loss"]
        after = self._held_out_kl()
        lines = [json.dumps(entry) + "\n" for entry in self._history]
        write_atomic(self._job.folder / "history.jsonl", "".join(lines))
        log.info(
            f"{LABEL}: {learned:,} tokens in {passes:.1f} passes; loss {first:.3f} -> {last:.3f}; "
            f"held-out KL {self._before:.3f} -> {after:.3f} nats/token"
        )
        return {
            "tokens": learned,
            "passes": round(passes, 2),
            "rounds": len(self._rounds),
            "steps": self._steps,
            "loss_first": round(first, 4),
            "loss_last": round(last, 4),
            "held_out_kl_before": round(self._before, 4),
            "held_out_kl": round(after, 4),
        }

    def _whole(self, dtype: Any) -> Any:
        """Load the model before the cut, with the student's vocabulary."""
        model = load_weights(self._name, self._revision, dtype)
        vocabulary = Vocabulary.read(self._cut)
        if vocabulary is not None and Vocabulary.read(self._name) is None:
            vocabulary_trimming.trim(model, self._name, vocabulary)
        return model

    def _start(self) -> None:
        """Load the last checkpoint; without one, measure the cut and start the first round."""
        checkpoint = next(reversed(_checkpoints(self._job)), None)
        if checkpoint is not None:
            log.info(f"{LABEL}: continues from {checkpoint.name}")
            self._load_checkpoint(checkpoint)
            return
        sizes = " -> ".join(str(len(part.kept)) for part in self._rounds)
        log.info(
            f"{LABEL}: {self._text.tokens:,} tokens of text, {self._steps:,} steps, "
            f"{len(self._rounds)} rounds (layers left: {sizes})"
        )
        self._train(load_weights(str(self._cut), None, torch.float32))
        check_logits(self.model, logits_of(self.model))
        self._before = self._held_out_kl()
        if len(self._rounds) > 1:  # the first round has more layers than the cut student
            whole = self._whole(torch.float32)
            self._keep(whole, self._rounds[0].kept)
            self._train(whole)

    def _next_round(self) -> None:
        before = self._rounds[self._round]
        self._round += 1
        self._done += len(before.batches)
        after = self._rounds[self._round].kept
        self._keep(self.model, [before.kept.index(layer) for layer in after])
        self._train(self.model)

    def _keep(self, model: Any, kept: Sequence[int]) -> None:
        layers.keep(model, self._name, kept)
        layers.check_saved(model, self._name, meta_model(model.config))

    def _train(self, model: Any) -> None:
        """Train this model from now on, with a new optimiser."""
        if self._settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        self.model = model.to(self._device)
        parameters = model.parameters()
        self._optimizer = torch.optim.AdamW(parameters, betas=BETAS, weight_decay=0.0)

    def _learn_step(self, batch: Batch) -> dict[str, float]:
        """Do one optimiser step; return its losses, means over the tokens of the batch.

        Raises PipelineError if a gradient is not finite.
        """
        part = self._rounds[self._round]
        rate = self._rate * rate_factor(self._step - self._done, len(part.batches))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(self._settings.seed + self._step)  # for dropout
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        means = torch.zeros(2, device=self._device)
        for first in range(0, len(batch), self._batch_size):
            rows = [self._text.train[number] for number in batch[first : first + self._batch_size]]
            sums = distances(self.model, self._teacher, rows, part.kept, self._dtype)
            mean = sums / self._tokens([batch])
            (mean[0] + HIDDEN_WEIGHT * mean[1]).backward()
            means += mean.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        if not torch.isfinite(norm):
            raise PipelineError(
                f"{LABEL}: step {self._step + 1}: a gradient is not finite; lower "
                f"student.heal.learning_rate (it is {self._rate:.2g}), and start again with --redo"
            )
        self._optimizer.step()
        kl, hidden = means.tolist()
        loss = kl + HIDDEN_WEIGHT * hidden
        return {"loss": loss, "kl": kl, "hidden": hidden, "learning_rate": rate}

    def _record(self, entry: dict[str, float]) -> None:
        """Keep every train.log_steps-th entry of history.jsonl, and the first and the last."""
        if self._step in (1, self._steps) or self._step % self._settings.log_steps == 0:
            self._history.append({"step": self._step, "round": self._round + 1, **entry})

    def _held_out_kl(self) -> float:
        """Return the mean KL on the held-out rows, in nats/token."""
        self.model.eval()
        rows = sorted(self._text.held_out, key=len)
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(rows), self._batch_size):
                batch = rows[first : first + self._batch_size]
                total += distances(self.model, self._teacher, batch, (), self._dtype)[0].item()
        return total / sum(map(len, rows))

    def _tokens(self, batches: Iterable[Batch]) -> int:
        return sum(len(self._text.train[number]) for batch in batches for number in batch)

    def _write_checkpoint(self) -> None:
        """Write a checkpoint, completely or not at all, and remove the older ones."""
        older = _checkpoints(self._job)
        partial = self._job.folder / CHECKPOINTS / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        saving.save(self.model, partial)
        with saving.writing(partial):
            torch.save(self._optimizer.state_dict(), partial / "optimizer.pt")
        state: dict[str, Any] = {"step": self._step, "done": self._done, "round": self._round}
        state |= {"before": self._before, "history": self._history}
        write_json(partial / STATE, state)
        partial.rename(partial.with_name(f"checkpoint-{self._step}"))
        sync_folder(partial.parent)
        for path in older:
            shutil.rmtree(path)

    def _load_checkpoint(self, folder: Path) -> None:
        state = read_json(folder / STATE)
        self._step, self._done, self._round = state["step"], state["done"], state["round"]
        self._before, self._history = state["before"], state["history"]
        self._train(load_weights(str(folder), None, torch.float32))
        stored = torch.load(folder / "optimizer.pt", map_location=self._device, weights_only=True)
        self._optimizer.load_state_dict(stored)


def _cut(job: Job, folder: Path, samples: Path, frames: Path) -> dict[str, Any]:
    """Build the cut student in `folder` unless it is there; return its counts."""
    stored = folder.with_suffix(".json")
    if not stored.exists():
        write_json(stored, build.build(job.config, folder, samples, frames).counts)
    return dict(read_json(stored))


def _checkpoints(job: Job) -> list[Path]:
    found = (job.folder / CHECKPOINTS).glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _save(job: Job, cut: Path, model: Any) -> None:
    """Save the model with the files of the cut one and in its number format, or not at all."""
    partial = job.folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(cut, partial, ignore=shutil.ignore_patterns("*.safetensors*"))
    saving.save(model.to(load_config(str(cut), None).dtype), partial)
    shutil.rmtree(job.folder / "model", ignore_errors=True)
    partial.rename(job.folder / "model")
    sync_folder(job.folder)
