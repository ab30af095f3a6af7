"""Callbacks of the trainer: progress, a warning about an idle term, divergence, early stopping."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from pipeline.config import Arm
from pipeline.config.white_box import TERMS
from pipeline.errors import Diverged
from pipeline.execution.progress import Progress
from pipeline.training import distributed

log = logging.getLogger(__name__)

IDLE_SHARE = 0.01
IDLE_LOGS = 10  # consecutive logged steps
RUNAWAY_FACTOR, RUNAWAY_NATS = 3.0, 1.0  # times the first logged loss, and nats above it
RUNAWAY_LOGS = 3  # consecutive logged steps
REMEDIES = (  # of an idle term, unless the arm's alpha has this value and turns it off
    ("CE", 0.0, "Raise the arm's alpha if cross-entropy is wanted; alpha: 0 is distillation alone"),
    ("KD", 1.0, "Give the arm a lower alpha, such as 0.1, or train it with method: sft"),
)
WHITE_BOX_REMEDY = "Raise the arm's {0}.weight, or leave {0} out"
SHOWN = {  # logged values in the progress line
    "loss": "loss",
    "loss_ce": "ce",
    "loss_kd": "kd",
    **{f"loss_{name}": name for name in TERMS},
    "kd_gradient_share": "kd gradient",
    "learning_rate": "lr",
    "eval_loss": "held-out loss",
    "eval_score": "held-out score",
}

Logs = dict[str, float]


class Reporter(TrainerCallback):
    """Show progress as one line: step, loss and its parts, learning rate, tokens/s, remaining."""

    def __init__(self, label: str):
        self._label = label
        self._progress: Progress | None = None
        self._values: dict[str, object] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._progress = Progress(self._label, state.max_steps, state.global_step, unit="steps")

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        logs: Logs = kwargs["logs"]
        for name, short in SHOWN.items():
            if name in logs:
                self._values[short] = f"{float(logs[name]):.3g}"
        if self._progress is not None and "num_tokens" in logs:
            self._progress.tokens = int(logs["num_tokens"])

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.add(1)
            self._progress.show(self._values)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.show(self._values, last=True)


class IdleWarning(TrainerCallback):
    """Warn once if a term stays under 1 % of the loss or of its gradient although the arm does not
    turn it off."""

    def __init__(self, label: str, arm: Arm):
        self._label = label
        alphas = {arm.alpha, arm.alpha if arm.alpha_end is None else arm.alpha_end}
        # with alpha: answer, a reply of a label alone has hardly any KD term, and that is as meant
        remedies = REMEDIES if arm.method == "kd" and arm.alpha != "answer" else ()
        self._remedies = {term: remedy for term, off, remedy in remedies if alphas != {off}}
        self._remedies |= {term: WHITE_BOX_REMEDY.format(term) for term in arm.white_box}
        self._idle: dict[str, int] = {}
        self._warned: set[str] = set()

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        for name, share in _shares(kwargs["logs"]).items():
            remedy = self._remedies.get(name.split()[0])
            if remedy is None:
                continue
            self._idle[name] = self._idle.get(name, 0) + 1 if share < IDLE_SHARE else 0
            if self._idle[name] < IDLE_LOGS or name in self._warned:
                continue
            self._warned.add(name)
            if state.is_world_process_zero:
                log.warning(
                    f"{self._label}: for {IDLE_LOGS} logged steps the {name} was under "
                    f"{IDLE_SHARE:.0%}; it does nothing. {remedy}"
                )


class Guard(TrainerCallback):
    """Raise Diverged when a loss is NaN or infinite, or runs away.

    `steady`: the objective stays the same. The values of one that changes cannot be compared.
    """

    def __init__(self, warmup: float, steady: bool):
        self._warmup = warmup
        self._steady = steady

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        logs: Logs = kwargs["logs"]
        for key, name in (("loss", "loss"), ("eval_loss", "held-out loss")):
            if not math.isfinite(logs.get(key, 0.0)):
                raise Diverged(state.global_step, f"the {name} is {logs[key]}")
        if self.runaway_logs(state) >= RUNAWAY_LOGS:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            raise Diverged(
                state.global_step,
                f"the loss is {losses[-1]:.3g}, for {RUNAWAY_LOGS} logged steps far above its "
                f"first, {losses[0]:.3g}",
            )

    def runaway_logs(self, state: TrainerState) -> int:
        """Count the last consecutive logged losses that are too high."""
        if not self._steady:
            return 0
        return runaway(state.log_history, math.ceil(self._warmup * state.max_steps))


class SaveAndStop(TrainerCallback):
    """After a signal, end the optimiser step, write a checkpoint and stop, whatever save_steps is.

    `received` is the list of `signals.deferred`. All processes of an arm stop at the same step.
    """

    def __init__(self, label: str, received: Sequence[int]):
        self._label = label
        self._received = received

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not distributed.any_process(bool(self._received)):
            return
        if state.is_world_process_zero and not control.should_training_stop:
            log.info(f"{self._label}: stops after step {state.global_step:,}, with a checkpoint")
        control.should_save = control.should_training_stop = True


class Patience(TrainerCallback):
    """Save the best weights, and stop after `patience` evaluations without an improvement."""

    def __init__(self, metric: str, greater: bool, patience: int):
        self._metric = metric
        self._greater = greater
        self._patience = patience

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._since_best(state.log_history) == 0:
            control.should_save = True
        if self.is_used_up(state.log_history):
            control.should_training_stop = True

    def is_used_up(self, history: Sequence[Logs]) -> bool:
        """Return whether training should stop."""
        return self._since_best(history) >= self._patience

    def _since_best(self, history: Sequence[Logs]) -> int:
        values = [entry[self._metric] for entry in history if self._metric in entry]
        return since_best(values, self._greater)


def runaway(history: Sequence[Logs], warmup_steps: int) -> int:
    """Count the last consecutive logged losses, after the warm-up, that are both above
    RUNAWAY_FACTOR times the first and RUNAWAY_NATS above it.

    The second condition is for a student that starts close to its teacher: its first loss is
    nearly 0.
    """
    logged = [entry for entry in history if "loss" in entry]
    if not logged:
        return 0
    first = logged[0]["loss"]
    limit = max(RUNAWAY_FACTOR * first, first + RUNAWAY_NATS)
    count = 0
    for entry in reversed(logged):
        if not (entry["loss"] > limit and entry["step"] > warmup_steps):  # true of NaN too
            break
        count += 1
    return count


def since_best(values: Sequence[float], greater: bool) -> int:
    """Count the values after the first best one."""
    if not values:
        return 0
    best = max(values) if greater else min(values)
    return len(values) - 1 - values.index(best)


def _shares(logs: Logs) -> Logs:
    terms = {"CE": "loss_ce", "KD": "loss_kd", **{name: f"loss_{name}" for name in TERMS}}
    losses = {name: logs[key] for name, key in terms.items() if key in logs}
    total = max(sum(losses.values()), 1e-30)
    shares = {f"{name} term's share of the loss": loss / total for name, loss in losses.items()}
    if "kd_gradient_share" in logs:
        shares["CE term's share of the gradient"] = 1.0 - logs["kd_gradient_share"]
        shares["KD term's share of the gradient"] = logs["kd_gradient_share"]
    return shares
