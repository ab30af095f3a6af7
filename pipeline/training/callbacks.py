"""What goes on beside the steps of training: progress, a term that does nothing, a loss that runs away, the end of improvement."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.config import Arm
from pipeline.errors import Diverged
from pipeline.execution.progress import Progress

log = logging.getLogger(__name__)

IDLE_SHARE = 0.01
IDLE_LOGS = 10  # logged steps in a row
RUNAWAY_FACTOR, RUNAWAY_NATS = 3.0, 1.0  # times the first logged loss, and nats above it
RUNAWAY_LOGS = 3  # logged steps in a row
REMEDIES = (  # of a term that does nothing; at which alpha it is meant to
    ("CE", 0.0, "Raise the arm's alpha if cross-entropy is wanted; alpha: 0 is distillation alone"),
    ("KD", 1.0, "Lower the arm's alpha, or train it with method: sft"),
)

Logs = dict[str, float]


class Reporter(TrainerCallback):
    """The trainer's progress as one line: step, loss, its two shares, learning rate, held-out loss, tokens/s, ETA."""

    def __init__(self, label: str):
        self._label = label
        self._progress: Progress | None = None
        self._last: dict[str, object] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._progress = Progress(self._label, state.max_steps, state.global_step, unit="steps")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        names = {
            "loss": "loss",
            "loss_ce": "ce",
            "loss_kd": "kd",
            "kd_gradient_share": "kd gradient",
            "learning_rate": "lr",
        }
        names |= {"eval_loss": "held-out loss", "eval_score": "held-out score"}
        self._last |= {
            short: f"{float(logs[name]):.3g}"
            for name, short in names.items()
            if name in (logs or {})
        }
        if self._progress is not None and "num_tokens" in (logs or {}):
            self._progress.tokens = int(logs["num_tokens"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.add(1)
            self._progress.show(self._last)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.show(self._last, last=True)


class IdleWarning(TrainerCallback):
    """Says once if one of the two terms gives less than a hundredth of the loss or of its gradient for long, and was meant to do more."""

    def __init__(self, label: str, arm: Arm):
        self._label = label
        ends = {arm.alpha, arm.alpha if arm.alpha_end is None else arm.alpha_end}
        self._remedies = {term: remedy for term, none, remedy in REMEDIES if ends != {none}}
        self._idle: dict[str, int] = {}
        self._said: set[str] = set()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        for name, share in _shares(logs or {}).items():
            if name[:2] not in self._remedies:
                continue
            self._idle[name] = self._idle.get(name, 0) + 1 if share < IDLE_SHARE else 0
            if (
                self._idle[name] == IDLE_LOGS
                and name not in self._said
                and state.is_world_process_zero
            ):
                self._said.add(name)
                log.warning(
                    f"{self._label}: for {IDLE_LOGS} logged steps the {name} was under {IDLE_SHARE:.0%}; it does nothing. "
                    f"{self._remedies[name[:2]]}"
                )


class Guard(TrainerCallback):
    """Ends training when a loss is no number any more, or has run away. Raises Diverged.

    `steady`: whether the objective stays the same; the value of one that moves says nothing.
    """

    def __init__(self, warmup: float, steady: bool):
        self._warmup, self._steady = warmup, steady

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **kwargs: Any,
    ) -> None:
        for key, name in (("loss", "loss"), ("eval_loss", "held-out loss")):
            if not math.isfinite((logs or {}).get(key, 0.0)):
                raise Diverged(state.global_step, f"the {name} is {logs[key]}")
        if self.away(state) >= RUNAWAY_LOGS:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            raise Diverged(
                state.global_step,
                f"the loss is {losses[-1]:.3g}, for {RUNAWAY_LOGS} logged steps far above its first, {losses[0]:.3g}",
            )

    def away(self, state: TrainerState) -> int:
        """How many of the last logged steps in a row are too high."""
        return (
            runaway(state.log_history, math.ceil(self._warmup * state.max_steps))
            if self._steady
            else 0
        )


class Patience(TrainerCallback):
    """Has the best weights saved, and ends training after `patience` looks without anything better."""

    def __init__(self, metric: str, greater: bool, patience: int):
        self._metric, self._greater, self._patience = metric, greater, patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save = control.should_save or self._since(state.log_history) == 0
        control.should_training_stop = control.should_training_stop or self.is_used_up(
            state.log_history
        )

    def is_used_up(self, history: Sequence[Logs]) -> bool:
        return self._since(history) >= self._patience

    def _since(self, history: Sequence[Logs]) -> int:
        return since_best(
            [entry[self._metric] for entry in history if self._metric in entry], self._greater
        )


def runaway(history: Sequence[Logs], warmup_steps: int) -> int:
    """How many of the last logged losses in a row are above RUNAWAY_FACTOR times the first and at least RUNAWAY_NATS above it, both: a
    student that begins close to its teacher has a first loss of nearly nothing. The warm-up does not count."""
    logged = [entry for entry in history if "loss" in entry]
    limit = (
        max(RUNAWAY_FACTOR * logged[0]["loss"], logged[0]["loss"] + RUNAWAY_NATS)
        if logged
        else math.inf
    )
    count = 0
    while (
        count < len(logged)
        and logged[-1 - count]["loss"] > limit
        and logged[-1 - count]["step"] > warmup_steps
    ):
        count += 1
    return count


def since_best(values: Sequence[float], greater: bool) -> int:
    """How many values came after the first best one."""
    best = (max if greater else min)(values, default=None)
    return 0 if best is None else len(values) - 1 - values.index(best)


def _shares(logs: Logs) -> Logs:
    found: Logs = {}
    if "loss_kd" in logs:
        whole = max(logs["loss_ce"] + logs["loss_kd"], 1e-30)
        found |= {
            "CE term's share of the loss": logs["loss_ce"] / whole,
            "KD term's share of the loss": logs["loss_kd"] / whole,
        }
    if "kd_gradient_share" in logs:
        share = logs["kd_gradient_share"]
        found |= {
            "CE term's share of the gradient": 1.0 - share,
            "KD term's share of the gradient": share,
        }
    return found
