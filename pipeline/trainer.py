"""TRL's SFTTrainer with the loss of one arm: cross-entropy, or distillation from the stored top-k that the collator brings."""

from typing import Any

import torch
from torch import nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from pipeline import adapters
from pipeline.batches import COLUMNS, bearing_of, teacher_of
from pipeline.config import Arm
from pipeline.errors import PipelineError
from pipeline.losses.kd import Logits, Loss, Objective, distillation_loss

BODY_INPUTS = ("input_ids", "attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
UNKNOWN_LOGITS = ("output_multiplier",)  # what else some models do to their logits


class DistillTrainer(SFTTrainer):
    """Trains one arm. Rows come tokenised, with labels and the columns of `batches.dataset`.

    Both methods go through the same primitive, which scores unmasked positions only, so that arms differ in nothing but the loss.
    """

    def __init__(self, *, arm: Arm, **kwargs: Any):
        self.arm = arm
        super().__init__(**kwargs)
        self._redirect = _ForwardRedirection()
        self._logits = logits_of(self.model)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in COLUMNS if name not in self._signature_columns]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        unwrapped = self.accelerator.unwrap_model(model)
        shares = self.arm.method == "kd" and model.training and self._logs_now()
        loss: Loss = self._redirect(model, unwrapped, self._sum, unwrapped, inputs, shares)
        tokens = bearing_of(inputs).sum() if num_items_in_batch is None else num_items_in_batch
        mean = loss.total / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            mean = mean * self.accelerator.num_processes
        self._record(inputs, loss)
        return (mean, {}) if return_outputs else mean

    def _sum(self, model: nn.Module, inputs: dict[str, Any], shares: bool) -> Loss:
        with self.accelerator.autocast():  # the redirection goes round accelerate's own wrapper
            body = adapters.body(model)(**{name: inputs[name] for name in BODY_INPUTS if name in inputs}, use_cache=False)
            device = body.last_hidden_state.device.type
            exact = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else body.last_hidden_state.dtype
        hidden = body.last_hidden_state.to(exact)  # as a linear layer under autocast would
        bearing = bearing_of(inputs)
        return distillation_loss(
            hidden[:, :-1][bearing],
            adapters.head(model),
            inputs["labels"][:, 1:][bearing],
            self._objective(model.training),
            teacher_of(inputs),
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

    def _record(self, inputs: dict[str, Any], loss: Loss) -> None:
        """The two shares of the loss, a token, and of its gradient, in the log; a share that does nothing is seen at once."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        tokens = bearing_of(inputs).sum().clamp(min=1)
        if self.arm.method == "kd":
            metrics["loss_ce"].append((loss.ce / tokens).item())
            metrics["loss_kd"].append((loss.kd / tokens).item())
        if loss.ce_grad is not None and loss.kd_grad is not None:
            metrics["kd_gradient_share"].append((loss.kd_grad / (loss.ce_grad + loss.kd_grad).clamp(min=1e-30)).item())
        self._total_train_tokens += inputs["input_ids"].numel() if "attention_mask" not in inputs else int(inputs["attention_mask"].sum())
        metrics["num_tokens"] = [self._total_train_tokens]


def logits_of(model: Any) -> Logits:
    """What the model does to hidden states @ lm_head before they are its logits. Raises PipelineError if that is not known here."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    unknown = [name for name in UNKNOWN_LOGITS if getattr(config, name, None) not in (None, 1, 1.0)]
    if unknown:
        raise PipelineError(
            f"{type(model).__name__}: its logits are altered in a way that is not known here ({unknown[0]}); choose another student"
        )
    factor = {name: float(getattr(config, name, None) or 1.0) for name in ("logit_scale", "lm_head_multiplier", "logits_scaling")}
    return Logits(
        scale=factor["logit_scale"] * factor["lm_head_multiplier"] / factor["logits_scaling"],
        softcap=getattr(config, "final_logit_softcapping", None),
        bias=getattr(head, "bias", None),
    )


def _between(start: float, end: float | None, gone: float) -> float:
    return start if end is None else start + (end - start) * min(gone, 1.0)
