"""What is told while a student learns: progress, and a distillation term that does nothing."""

from typing import Any

import click
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.progress import Progress

IDLE_SHARE = 0.01
IDLE_LOGS = 10  # logged steps in a row


class Reporter(TrainerCallback):
    """The trainer's progress as one line: step, loss, its two shares, learning rate, tokens/s, ETA."""

    def __init__(self, label: str):
        self._label = label
        self._progress: Progress | None = None
        self._last: dict[str, object] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress = Progress(self._label, state.max_steps, state.global_step, unit="steps")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        names = {"loss": "loss", "loss_ce": "ce", "loss_kd": "kd", "kd_gradient_share": "kd gradient", "learning_rate": "lr"}
        self._last = {short: f"{float(logs[name]):.3g}" for name, short in names.items() if name in (logs or {})} or self._last
        if self._progress is not None and "num_tokens" in (logs or {}):
            self._progress.tokens = int(logs["num_tokens"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self._progress is not None
        self._progress.add(1)
        self._progress.show(self._last)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self._progress is not None
        self._progress.show(self._last, last=True)


class IdleWarning(TrainerCallback):
    """Says once if one of the two terms has given less than a hundredth of the loss or of its gradient for long."""

    def __init__(self, label: str):
        self._label = label
        self._idle: dict[str, int] = {}
        self._said: set[str] = set()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        for name, share in _shares(logs or {}).items():
            self._idle[name] = self._idle.get(name, 0) + 1 if share < IDLE_SHARE else 0
            if self._idle[name] == IDLE_LOGS and name not in self._said:
                self._said.add(name)
                click.echo(
                    f"{self._label}: for {IDLE_LOGS} logged steps the {name} was under {IDLE_SHARE:.0%}; it does nothing. "
                    "Change the arm's alpha, or train it with method: sft",
                    err=True,
                )


def _shares(logs: dict[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    if "loss_kd" in logs:
        whole = max(logs["loss_ce"] + logs["loss_kd"], 1e-30)
        found |= {"CE term's share of the loss": logs["loss_ce"] / whole, "KD term's share of the loss": logs["loss_kd"] / whole}
    if "kd_gradient_share" in logs:
        share = logs["kd_gradient_share"]
        found |= {"CE term's share of the gradient": 1.0 - share, "KD term's share of the gradient": share}
    return found
