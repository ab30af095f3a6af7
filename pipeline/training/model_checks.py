"""Check the trainer's assumptions about a student on a few tokens, before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.losses.distillation import Logits
from pipeline.students import lora
from pipeline.training.collation import BODY_INPUTS, COLUMNS, Collator

# names in model configs: factors of the logits with their exponents, and soft-caps
SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
LENGTHS = (7, 5)  # tokens of the packed samples in `check_packing`
# largest relative error that counts as rounding; that of a GPU's tf32 is below the first
ROUNDING, ROUNDING_16_BIT = 1e-3, 5e-2


def logits_of(model: Any) -> Logits:
    """Return how the model computes logits from hidden states @ lm_head, by its config."""
    config = model.config.get_text_config()
    scale = 1.0
    for name, exponent in SCALES.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            scale *= value**exponent
    caps = [cap for name in CAPS if (cap := getattr(config, name, None))]
    return Logits(
        scale=float(scale),
        softcap=caps[0] if caps else None,
        bias=getattr(model.get_output_embeddings(), "bias", None),
    )


def check_logits(model: Any, logits: Logits) -> None:
    """Raise PipelineError if the loss would compute other logits than the model does.

    The loss (`losses.fused`) computes them from hidden states, lm_head and `logits`.
    """
    if _would_be_changed(model):
        return
    name = type(lora.plain(model)).__name__
    ids = _token_ids(model, 4)[None]  # (1, 4)
    with _inference(model):
        body = lora.body(model)(input_ids=ids, use_cache=False)
        states = getattr(body, "last_hidden_state", None)
        if states is None or model.get_output_embeddings() is None:
            raise PipelineError(
                f"{name}: its hidden states or its lm_head are not found; choose another student"
            )
        actual = model(input_ids=ids, use_cache=False).logits
        computed = (states.to(actual.dtype) @ lora.head(model).to(actual.dtype).T).float()
        if logits.bias is not None:
            computed = computed + logits.bias.float()
        computed = logits.scale * computed
        if logits.softcap is not None:
            computed = logits.softcap * torch.tanh(computed / logits.softcap)
    if not _are_close(model, computed, actual):
        bias = "no" if logits.bias is None else "yes"
        raise PipelineError(
            f"{name}: its logits are not what its config says (scale {logits.scale:g}, soft-cap "
            f"{logits.softcap}, bias {bias}); choose another student"
        )


def check_packing(model: Any) -> None:
    """Raise PipelineError if samples packed into one row see one another in this model."""
    if _would_be_changed(model):
        return
    ids = [token for length in LENGTHS for token in _token_ids(model, length).tolist()]
    row: dict[str, Any] = {"input_ids": ids, "labels": ids, "seq_lengths": LENGTHS}
    batch = Collator(0, None, packed=True)([row | dict.fromkeys(COLUMNS, [0] * len(ids))])
    inputs = {name: _to(batch[name], model.device) for name in BODY_INPUTS if name in batch}
    body = lora.body(model)
    with _inference(model):
        samples = inputs["input_ids"].split(LENGTHS, dim=1)
        states = [body(input_ids=sample, use_cache=False).last_hidden_state for sample in samples]
        alone = torch.cat(states, dim=1)
        try:
            packed = body(**inputs, use_cache=False).last_hidden_state
        except TypeError:  # the model's forward takes no positions, so it cannot separate samples
            packed = torch.zeros_like(alone)
    if not _are_close(model, packed, alone):
        name = type(lora.plain(model)).__name__
        raise PipelineError(
            f"train.packing: a {name} lets samples that share a row see one another; "
            "set train.packing: false"
        )


def _would_be_changed(model: Any) -> bool:
    """Return True if inference would reorder the weights, as bitsandbytes does on a CPU."""
    return bool(getattr(model, "is_loaded_in_4bit", False)) and model.device.type == "cpu"


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def _token_ids(model: Any, count: int) -> Tensor:
    """Return (count,) ids spread over the vocabulary, away from special ones at its ends."""
    rows = model.get_input_embeddings().weight.shape[0]
    return torch.arange(1, count + 1, device=model.device) * rows // (count + 2)


def _to(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _are_close(model: Any, computed: Tensor, actual: Tensor) -> bool:
    # 4-bit weights may compute in 16 bits
    is_4bit = getattr(model, "is_loaded_in_4bit", False)
    limit = ROUNDING if actual.dtype == torch.float32 and not is_4bit else ROUNDING_16_BIT
    difference = (computed.float() - actual.float()).norm()
    return bool(difference <= limit * actual.float().norm())
