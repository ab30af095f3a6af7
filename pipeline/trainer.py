"""TRL's SFTTrainer with one more loss: distillation from the stored top-k, which the collator reads frame by frame."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipeline.config import Arm
from pipeline.encode import IGNORED, bearing
from pipeline.errors import PipelineError
from pipeline.losses.kd import Loss, cross_entropy, sparse_kd
from pipeline.progress import Progress
from pipeline.records import Frame
from pipeline.topk import TopK, TopKFolder

ALTERED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")


class Collator:
    """TRL's collator and, with `frames`, the teacher's distributions of all unmasked tokens of the batch, in their order.

    topk_ids (N, K), topk_logprobs (N, K) with -inf where a token has fewer entries, topk_tail (N,).
    """

    def __init__(self, pad_token_id: int, frames: TopKFolder | None):
        self._base = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)
        self._frames = frames

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = self._base(rows)
        if self._frames is not None:
            batch.update(_stack([self._frames.frame(Frame(**row["frame"]), bearing(row["labels"])) for row in rows]))
        return batch


def _stack(topks: list[TopK]) -> dict[str, Tensor]:
    width = max(topk.ids.shape[1] for topk in topks)

    def widen(array: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)

    return {
        "topk_ids": torch.from_numpy(np.concatenate([widen(topk.ids, 0) for topk in topks])),
        "topk_logprobs": torch.from_numpy(np.concatenate([widen(topk.logprobs, -np.inf) for topk in topks])),
        "topk_tail": torch.from_numpy(np.concatenate([topk.tail for topk in topks])),
    }


class DistillTrainer(SFTTrainer):
    """Trains one arm. Rows come tokenised, with labels.

    Both methods go through the same primitive, which scores unmasked positions only, so that arms differ in nothing but the loss. A model
    that alters its logits (soft-cap, scale) is trained by sft with TRL's own loss, and refused under kd.
    """

    def __init__(self, *, arm: Arm, **kwargs: Any):
        self.arm = arm
        super().__init__(**kwargs)
        self._redirect = _ForwardRedirection()
        self._altered = _altered_logits(self.model)
        if self._altered and arm.method == "kd":
            raise PipelineError(f"{type(self.model).__name__}: kd does not know its logits ({self._altered}); train it with method: sft")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "frame" not in self._signature_columns:
            self._signature_columns += ["frame"]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if self._altered:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        unwrapped = self.accelerator.unwrap_model(model)
        loss: Loss = self._redirect(model, unwrapped, self._sum, unwrapped, inputs)
        tokens = (inputs["labels"][:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        mean = loss.total / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            mean = mean * self.accelerator.num_processes
        self._record(inputs, loss)
        return mean

    def _sum(self, model: nn.Module, inputs: dict[str, Any]) -> Loss:
        with self.accelerator.autocast():  # the redirection goes round accelerate's own wrapper
            body = model.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
            device = body.last_hidden_state.device.type
            exact = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else body.last_hidden_state.dtype
        hidden = body.last_hidden_state.to(exact)  # as a linear layer under autocast would
        labels = inputs["labels"][:, 1:]
        bearing = labels != IGNORED
        hidden, weight, labels = hidden[:, :-1][bearing], model.get_output_embeddings().weight, labels[bearing]
        if self.arm.method == "sft":
            return cross_entropy(hidden, weight, labels)
        return sparse_kd(
            hidden,
            weight,
            labels,
            inputs["topk_ids"],
            inputs["topk_logprobs"],
            inputs["topk_tail"],
            alpha=self.arm.alpha,
            temperature=self.arm.temperature,
        )

    def _record(self, inputs: dict[str, Any], loss: Loss) -> None:
        """The two shares of the loss, a token, in the log; a share that does nothing is seen at once."""
        mode = "train" if self.model.training else "eval"
        tokens = (inputs["labels"][:, 1:] != IGNORED).sum().clamp(min=1)
        if self.arm.method == "kd":
            self._metrics[mode]["loss_ce"].append((loss.ce / tokens).item())
            self._metrics[mode]["loss_kd"].append((loss.kd / tokens).item())
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


def _altered_logits(model: Any) -> str | None:
    """What stands between hidden states @ lm_head and the model's logits, if anything does."""
    config = model.config.get_text_config()
    altered = [name for name in ALTERED_LOGITS if getattr(config, name, None) not in (None, 1, 1.0)]
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        altered.append("bias of the lm_head")
    return altered[0] if altered else None


class Reporter(TrainerCallback):
    """The trainer's progress as one line: step, loss, its two shares, learning rate, tokens/s, ETA."""

    def __init__(self, label: str):
        self._label = label
        self._progress: Progress | None = None
        self._last: dict[str, object] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress = Progress(self._label, state.max_steps, state.global_step, unit="steps")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        names = {"loss": "loss", "loss_ce": "ce", "loss_kd": "kd", "learning_rate": "lr"}
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
