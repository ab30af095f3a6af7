"""TRL's SFTTrainer with the loss of one arm: cross-entropy, or distillation from the stored top-k that the collator brings."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from pipeline.config import Arm
from pipeline.errors import Diverged
from pipeline.losses.distillation import Loss, Objective, distillation_loss
from pipeline.students import lora
from pipeline.training.callbacks import Guard
from pipeline.training.collation import BODY_INPUTS, COLUMNS, ByLength, loss_mask, stored_teacher
from pipeline.training.model_checks import check_logits, logits_of
from pipeline.training.validation import HeldOut

NO_WEIGHT = 1e-9  # a sum of weights that is 0 belongs to a loss that is 0


class DistillTrainer(SFTTrainer):
    """Trains one arm. Rows come tokenised, with labels and the columns of `batches.dataset`.

    Both methods go through the same primitive, which scores unmasked positions only, so that arms differ in nothing but the loss.
    What is logged is summed on the device, and fetched from there at a logged step only.
    """

    control: Any

    def __init__(
        self,
        *,
        arm: Arm,
        guard: Guard | None = None,
        held_out: HeldOut | None = None,
        **kwargs: Any,
    ):
        self.arm, self._guard, self._held_out = arm, guard, held_out
        super().__init__(**kwargs)
        self._redirect = _ForwardRedirection()
        self._logits = logits_of(self.model)
        check_logits(self.model, self._logits)
        self._sums = torch.zeros(
            5, dtype=torch.float64, device=self.args.device
        )  # CE, KD, tokens, KD's shares of gradients, their number
        self._summed_to = 0  # the step of the last log
        self._seconds = {"loading": 0.0, "away": 0.0}
        self._began = time.perf_counter()

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in COLUMNS if name not in self._signature_columns]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        unwrapped = self.accelerator.unwrap_model(model)
        shares = self.arm.method == "kd" and self._logs_now()
        loss: Loss = self._redirect(model, unwrapped, self._sum, unwrapped, inputs, shares)
        weight = inputs["weights"].sum() if num_items_in_batch is None else num_items_in_batch
        weight = weight.to(loss.total.device).clamp(min=NO_WEIGHT)
        mean = loss.total / weight
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            mean = (
                mean * self.accelerator.num_processes
            )  # DDP takes the mean of what the processes bring
        self._add(inputs, loss, weight)
        return (mean, {}) if return_outputs else mean

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss by weight over all held-out rows, exact whatever the batches and processes, and what the student answers by itself."""
        assert self._held_out is not None
        with self._aside(), torch.no_grad():
            self.model.eval()
            metrics = self._held_out_loss(self._held_out) | self._own_answers(self._held_out)
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training and self.state.global_step > max(
            self._summed_to, self._initial_global_step
        ):
            logs.update(self._fetched())
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return ByLength(
            lengths,
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            self.args.data_seed,
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        innermost = kwargs["train_dataloader"].batch_sampler
        while hasattr(innermost, "batch_sampler"):
            innermost = innermost.batch_sampler
        if hasattr(
            innermost.sampler, "set_epoch"
        ):  # where batches are both skipped and shared out, no one else tells it
            innermost.sampler.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        samples = super().get_batch_samples(*args, **kwargs)
        self._seconds["loading"] += time.perf_counter() - began
        return samples

    def _get_num_items_in_batch(
        self, batches: list[dict[str, Any]], device: Any
    ) -> torch.Tensor | None:
        """The weights' sum over all processes, which is what a loss is divided by: a token of weight 0 is none."""
        began = time.perf_counter()
        weight = (
            torch.stack([batch["weights"].sum() for batch in batches]).sum().to(device)
            if batches
            else None
        )
        if weight is not None and self.args.average_tokens_across_devices:
            weight = self.accelerator.gather(weight).sum()
        self._seconds["loading"] -= (
            time.perf_counter() - began
        )  # part of the above, but here the processes wait for one another
        return weight

    @property
    def loading_share(self) -> float:
        """The share of training's time that went into reading and collating rows; evaluation and checkpoints count in neither."""
        return self._seconds["loading"] / (
            time.perf_counter() - self._began - self._seconds["away"]
        )

    def check_weights(self) -> None:
        """Raises Diverged if a weight is no number: such a model must never be saved."""
        finite = torch.stack(
            [
                torch.isfinite(weight).all()
                for weight in self.model.parameters()
                if weight.requires_grad
            ]
        )
        if not finite.all():
            raise Diverged(self.state.global_step, "a weight is not finite")

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._began, self._summed_to = time.perf_counter(), 0
        return super()._inner_training_loop(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self._aside():
            self.check_weights()
            best = self.state.best_global_step == self.state.global_step
            if (
                best or self._guard is None or not self._guard.away(self.state)
            ):  # what may be running away is nothing to go on from
                super()._save_checkpoint(model, trial)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        tied = (
            getattr(self.model, "all_tied_weights_keys", None) or {}
        )  # stored once, under the other name
        super()._issue_warnings_after_load(
            load_result._replace(
                missing_keys=[name for name in load_result.missing_keys if name not in tied]
            )
        )

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """For what is no step of training."""
        began = time.perf_counter()
        yield
        self._seconds["away"] += time.perf_counter() - began

    def _held_out_loss(self, held_out: HeldOut) -> dict[str, float]:
        unwrapped = self.accelerator.unwrap_model(self.model)
        sums = torch.zeros(4, dtype=torch.float64, device=self.args.device)
        for batch in held_out.batches(
            self.accelerator.process_index, self.accelerator.num_processes
        ):
            inputs = self._prepare_inputs(batch)
            loss = self._sum(unwrapped, inputs, shares=False)
            sums += torch.stack([loss.total, loss.ce, loss.kd, inputs["weights"].sum()])
        total, ce, kd, weight = self.accelerator.reduce(sums, "sum").tolist()
        weight = max(weight, NO_WEIGHT)
        shares = (
            {"eval_loss_ce": ce / weight, "eval_loss_kd": kd / weight}
            if self.arm.method == "kd"
            else {}
        )
        return {"eval_loss": total / weight, **shares}

    def _own_answers(self, held_out: HeldOut) -> dict[str, float]:
        """Each process asks every so-manieth seed."""
        if not held_out.asked:
            return {}
        mine = held_out.asked[self.accelerator.process_index :: self.accelerator.num_processes]
        with self.accelerator.autocast():
            found = gather_object(
                held_out.examiner.ask(self.accelerator.unwrap_model(self.model), mine)
            )
        order = {seed.id: place for place, seed in enumerate(held_out.asked)}
        answers = sorted(found, key=lambda answer: order[answer.id])
        if self.is_world_process_zero():
            held_out.record(self.state.global_step, answers)
        scores = [answer.score for answer in answers if answer.score is not None]
        return {"eval_score": sum(scores) / len(scores)} if held_out.scored else {}

    def _sum(self, model: nn.Module, inputs: dict[str, Any], shares: bool) -> Loss:
        with self.accelerator.autocast():  # the redirection goes round accelerate's own wrapper
            body = lora.body(model)(
                **{name: inputs[name] for name in BODY_INPUTS if name in inputs}, use_cache=False
            )
            device = body.last_hidden_state.device.type
            exact = (
                torch.get_autocast_dtype(device)
                if torch.is_autocast_enabled(device)
                else body.last_hidden_state.dtype
            )
        hidden = body.last_hidden_state.to(exact)  # as a linear layer under autocast would
        bearing = loss_mask(inputs)
        return distillation_loss(
            hidden[:, :-1][bearing],
            lora.head(model),
            inputs["labels"][:, 1:][bearing],
            self._objective(model.training),
            stored_teacher(inputs),
            weights=inputs["weights"],
            logits=self._logits,
            shares=shares,
        )

    def _objective(self, training: bool) -> Objective:
        """What is minimised at this step; a held-out loss is always by the last step's, so that its values can be compared."""
        arm = self.arm
        if arm.method == "sft":
            return Objective()
        gone = self.state.global_step / max(self.state.max_steps - 1, 1) if training else 1.0
        return Objective(
            alpha=_between(arm.alpha, arm.alpha_end, gone),
            temperature=_between(arm.temperature, arm.temperature_end, gone),
            divergence=arm.divergence,
            beta=arm.beta,
            tail=arm.tail,
        )

    def _logs_now(self) -> bool:
        step = self.state.global_step + 1
        return step == 1 or step % max(int(self.args.logging_steps), 1) == 0

    def _add(self, inputs: dict[str, Any], loss: Loss, weight: torch.Tensor) -> None:
        seen = (
            inputs["attention_mask"].sum()
            if "attention_mask" in inputs
            else torch.tensor(inputs["input_ids"].numel(), device=weight.device)
        )
        entries = [loss.ce / weight, loss.kd / weight, seen, *self._gradient_share(loss, weight)]
        self._sums += torch.stack([entry.detach().double() for entry in entries])

    def _gradient_share(self, loss: Loss, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if loss.ce_grad is None or loss.kd_grad is None:
            return torch.zeros_like(like), torch.zeros_like(like)
        return loss.kd_grad / (loss.ce_grad + loss.kd_grad).clamp(min=1e-30), torch.ones_like(like)

    def _fetched(self) -> dict[str, float]:
        """The two shares of the loss, by weight, and of its gradient since the last log; a share that does nothing is seen at once."""
        ce, kd, tokens, share, shares = self.accelerator.reduce(self._sums, "sum").tolist()
        steps = self.state.global_step - max(self._summed_to, self._initial_global_step)
        self._sums.zero_()
        self._summed_to = self.state.global_step
        before = next(
            (
                entry["num_tokens"]
                for entry in reversed(self.state.log_history)
                if "num_tokens" in entry
            ),
            0,
        )
        logs: dict[str, float] = {
            "num_tokens": int(before + tokens),
            "loading_share": self.loading_share,
        }
        if self.arm.method == "kd":
            logs |= {"loss_ce": ce / steps, "loss_kd": kd / steps}
        return logs | ({"kd_gradient_share": share / shares} if shares else {})


def _between(start: float, end: float | None, gone: float) -> float:
    return start if end is None else start + (end - start) * min(gone, 1.0)
