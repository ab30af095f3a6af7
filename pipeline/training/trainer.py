"""The trainer of one arm: TRL's SFTTrainer with our loss, validation and measurements.

The loss is cross-entropy, or distillation from the stored top-k that the collator reads.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from pipeline.config import Arm
from pipeline.errors import Diverged
from pipeline.losses.distillation import HALF, Loss, Objective, distillation_loss
from pipeline.models import saving
from pipeline.students import lora
from pipeline.training.callbacks import Guard
from pipeline.training.collation import BODY_INPUTS, COLUMNS, ByLength, loss_mask, stored_teacher
from pipeline.training.live_teacher import LiveTeacher
from pipeline.training.model_checks import check_logits, logits_of
from pipeline.training.teacher_rows import shared
from pipeline.training.trl_hooks import HookedTrainer
from pipeline.training.validation import HeldOut

MIN_WEIGHT = 1e-9  # divisor where all weights are 0, and the loss with them


class DistillTrainer(HookedTrainer):
    """Train one arm on tokenised rows with labels, the columns of `collation.dataset`.

    SFT and KD use the same primitive, which scores unmasked positions only, so arms differ in the
    loss alone. Logged values are summed on the device and read at logged steps only, because
    reading waits for the device.
    """

    token_columns = COLUMNS

    def __init__(
        self,
        *,
        arm: Arm,
        guard: Guard | None = None,
        held_out: HeldOut | None = None,
        teacher: LiveTeacher | None = None,
        **kwargs: Any,
    ):
        self.arm = arm
        self._teacher = teacher
        self._guard = guard
        self._held_out = held_out
        super().__init__(**kwargs)
        self._logits = logits_of(self.model)
        check_logits(self.model, self._logits)
        # CE, KD, tokens, sum of KD's gradient shares, number of those shares, white-box terms
        size = 5 + len(arm.white_box)
        self._sums = torch.zeros(size, dtype=torch.float64, device=self.args.device)
        self._summed_to = 0  # the step of the last log
        self._loading_seconds = 0.0
        self._paused_seconds = 0.0
        self._started = time.perf_counter()

    def begin_training(self) -> None:
        self._started = time.perf_counter()
        self._summed_to = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch divided by the weight of the whole optimiser step."""
        shares = self.arm.method == "kd" and self._is_logged_step()
        loss, terms = self.call_in_forward(model, self._loss_and_terms, inputs, shares)
        weight = inputs["weights"].sum() if num_items_in_batch is None else num_items_in_batch
        weight = weight.to(loss.total.device).clamp(min=MIN_WEIGHT)
        mean = sum(terms.values(), loss.total) / weight
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            mean = mean * self.accelerator.num_processes  # DDP averages over the processes
        self._add_to_sums(inputs, loss, terms, weight)
        return (mean, {}) if return_outputs else mean

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Log the held-out loss, a weighted mean over all rows, and the score of the student's own
        answers. The batch size and the number of processes do not change them.

        White-box terms are left out, so that the loss can be compared with an arm without them.
        """
        assert self._held_out is not None
        with self._paused(), torch.no_grad():
            self.model.eval()
            metrics = self._held_out_loss(self._held_out) | self._answer_score(self._held_out)
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was measured since the last log."""
        if self.model.training and self.state.global_step > self._logged_step:
            logs.update(self._take_sums())
        super().log(logs, start_time)

    def make_sampler(self) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super().make_sampler()
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        rows = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return ByLength(lengths, rows, self.args.data_seed)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Time how long the batches of an optimiser step take to load."""
        started = time.perf_counter()
        samples = super().get_batch_samples(*args, **kwargs)
        self._loading_seconds += time.perf_counter() - started
        return samples

    def loss_divisor(self, batches: list[dict[str, Any]], device: Any) -> Tensor | None:
        """Return the sum of the token weights over all processes. A token of weight 0 does not
        count, so that arms with different weights have comparable losses."""
        if not batches:
            return None
        started = time.perf_counter()
        weight = torch.stack([batch["weights"].sum() for batch in batches]).sum().to(device)
        if self.args.average_tokens_across_devices:
            weight = self.accelerator.gather(weight).sum()
        # get_batch_samples calls this, but here the processes wait for one another
        self._loading_seconds -= time.perf_counter() - started
        return weight

    @property
    def loading_share(self) -> float:
        """The share of training time spent on reading and collating rows. Evaluation and
        checkpoints count as neither."""
        elapsed = time.perf_counter() - self._started
        return self._loading_seconds / (elapsed - self._paused_seconds)

    def check_weights(self) -> None:
        """Raise Diverged if a weight is NaN or infinite: such a model must never be saved."""
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        if not torch.stack([torch.isfinite(weight).all() for weight in trained]).all():
            raise Diverged(self.state.global_step, "a weight is not finite")

    def save_checkpoint(self, write: Callable[[], None]) -> None:
        """Save unless the loss is running away, since training could not continue from there."""
        with self._paused():
            self.check_weights()
            is_best = self.state.best_global_step == self.state.global_step
            if is_best or self._guard is None or not self._guard.runaway_logs(self.state):
                folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                with saving.writing(folder):
                    if self._teacher and self.is_world_process_zero():
                        # before `write`, whose last file says that the checkpoint is complete
                        self._teacher.save(self.accelerator.unwrap_model(self.model), folder)
                    write()
                if self.is_world_process_zero():
                    saving.share(folder)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Time what is not a training step."""
        started = time.perf_counter()
        yield
        self._paused_seconds += time.perf_counter() - started

    def _held_out_loss(self, held_out: HeldOut) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model)
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        sums = torch.zeros(4, dtype=torch.float64, device=self.args.device)
        for batch in held_out.batches(rank, processes):
            inputs = self.to_device(batch)
            loss = self._loss(model, inputs, shares=False)
            sums += torch.stack([loss.total, loss.ce, loss.kd, inputs["weights"].sum()])
        total, ce, kd, weight = self.accelerator.reduce(sums, "sum").tolist()
        weight = max(weight, MIN_WEIGHT)
        metrics = {"eval_loss": total / weight}
        if self.arm.method == "kd":
            metrics |= {"eval_loss_ce": ce / weight, "eval_loss_kd": kd / weight}
        return metrics

    def _answer_score(self, held_out: HeldOut) -> dict[str, float]:
        """Let the student answer held-out inputs, divided among the processes, and score them."""
        if not held_out.answered:
            return {}
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        seeds = held_out.answered[rank::processes]
        with self.accelerator.autocast():
            model = self.accelerator.unwrap_model(self.model)
            gathered = gather_object(held_out.examiner.ask(model, seeds))
        order = {seed.id: place for place, seed in enumerate(held_out.answered)}
        answers = sorted(gathered, key=lambda answer: order[answer.id])
        if self.is_world_process_zero():
            held_out.record(self.state.global_step, answers)
        scores = [answer.score for answer in answers if answer.score is not None]
        return {"eval_score": sum(scores) / len(scores)} if held_out.scored else {}

    def _loss_and_terms(
        self, model: nn.Module, inputs: dict[str, Any], shares: bool
    ) -> tuple[Loss, dict[str, Tensor]]:
        """Return the loss of a batch and its white-box terms by name, summed over its tokens."""
        if self._teacher is None:
            return self._loss(model, inputs, shares), {}
        with self._teacher.watching(model) as seen:
            loss = self._loss(model, inputs, shares)
        with self.accelerator.autocast():
            return loss, self._teacher.terms(model, seen, shared(inputs))

    def _loss(self, model: nn.Module, inputs: dict[str, Any], shares: bool) -> Loss:
        """Return the loss of a batch, summed over its tokens."""
        # call_in_forward replaces the forward that accelerate put autocast around
        with self.accelerator.autocast():
            body_inputs = {name: inputs[name] for name in BODY_INPUTS if name in inputs}
            states = lora.body(model)(**body_inputs, use_cache=False).last_hidden_state  # (B, T, H)
            device = states.device.type
            if torch.is_autocast_enabled(device):  # cast as a linear layer would
                states = states.to(torch.get_autocast_dtype(device))
        mask = loss_mask(inputs)  # (B, T - 1)
        return distillation_loss(
            states[:, :-1][mask],
            lora.head(model),
            inputs["labels"][:, 1:][mask],
            self._objective(model.training),
            stored_teacher(inputs),
            weights=inputs["weights"],
            logits=self._logits,
            shares=shares,
        )

    def _objective(self, training: bool) -> Objective:
        """Return what is minimised at this step. A held-out loss always uses the objective of the
        last step, so that its values can be compared."""
        arm = self.arm
        if arm.method == "sft":
            return Objective()
        progress = self.state.global_step / max(self.state.max_steps - 1, 1) if training else 1.0
        alpha = arm.alpha
        if arm.alpha_end is not None:
            start = HALF if isinstance(alpha, str) else alpha
            alpha = _between(start, arm.alpha_end, progress)
        return Objective(
            alpha=alpha,
            temperature=_between(arm.temperature, arm.temperature_end, progress),
            divergence=arm.divergence,
            beta=arm.beta,
            tail=arm.tail,
        )

    def _is_logged_step(self) -> bool:
        step = self.state.global_step + 1
        return step == 1 or step % max(int(self.args.logging_steps), 1) == 0

    @property
    def _logged_step(self) -> int:
        """The step up to which sums were logged, or at which this process started."""
        return max(self._summed_to, self.first_step)

    def _add_to_sums(
        self, inputs: dict[str, Any], loss: Loss, terms: dict[str, Tensor], weight: Tensor
    ) -> None:
        if "attention_mask" in inputs:
            tokens = inputs["attention_mask"].sum()
        else:
            tokens = torch.tensor(inputs["input_ids"].numel(), device=weight.device)
        share, counted = torch.zeros_like(weight), torch.zeros_like(weight)
        if loss.ce_grad is not None and loss.kd_grad is not None:
            share = loss.kd_grad / (loss.ce_grad + loss.kd_grad).clamp(min=1e-30)
            counted = torch.ones_like(weight)
        entries = [loss.ce / weight, loss.kd / weight, tokens, share, counted]
        entries += [term / weight for term in terms.values()]
        self._sums += torch.stack([entry.detach().double() for entry in entries])

    def _take_sums(self) -> dict[str, float]:
        """Return the parts of the loss, and those of the gradient of CE and KD, since the last log,
        and start new sums. They show a term that does nothing."""
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        ce, kd, tokens, share, shares, *terms = sums
        steps = self.state.global_step - self._logged_step
        self._sums.zero_()
        self._summed_to = self.state.global_step
        counts = [log["num_tokens"] for log in self.state.log_history if "num_tokens" in log]
        logged_tokens = counts[-1] if counts else 0
        logs: dict[str, float] = {
            "num_tokens": int(logged_tokens + tokens),
            "loading_share": self.loading_share,
        }
        if self.arm.method == "kd" or terms:
            logs["loss_ce"] = ce / steps
        if self.arm.method == "kd":
            logs["loss_kd"] = kd / steps
        for name, term in zip(self.arm.white_box, terms, strict=True):
            logs[f"loss_{name}"] = term / steps
        if shares:
            logs["kd_gradient_share"] = share / shares
        return logs


def _between(start: float, end: float | None, progress: float) -> float:
    return start if end is None else start + (end - start) * min(progress, 1.0)
