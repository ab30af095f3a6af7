"""What the trainer takes for granted of a student, tried on a few tokens before the first step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.losses.distillation import Logits
from pipeline.students import lora
from pipeline.training.collation import BODY_INPUTS, COLUMNS, Collator

SCALES = {
    "logit_scale": 1,
    "lm_head_multiplier": 1,
    "logits_scaling": -1,
}  # factors by their names in configs, and their exponents
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
LENGTHS = (7, 5)  # tokens of the samples that must not see one another
ROUNDING, ROUNDING_16_BIT = (
    1e-3,
    5e-2,
)  # norm of a difference by the norm; a GPU's tf32 is within the first


def logits_of(model: Any) -> Logits:
    """What the model does to hidden states @ lm_head before they are its logits, as far as its config says. See `check_logits`."""
    config = model.config.get_text_config()
    scale = 1.0
    for name, exponent in SCALES.items():
        value = getattr(config, name, None)
        scale *= value**exponent if isinstance(value, int | float) and value else 1.0
    caps = [cap for name in CAPS if (cap := getattr(config, name, None))]
    return Logits(
        scale=float(scale),
        softcap=next(iter(caps), None),
        bias=getattr(model.get_output_embeddings(), "bias", None),
    )


def check_logits(model: Any, logits: Logits) -> None:
    """Raise PipelineError if the model's logits are not those of `losses.sparse` for its hidden states, lm_head and `logits`."""
    name = type(lora.plain(model)).__name__
    if _is_spoilt_by_trying(model):
        return
    ids = _ids(model, 4)[None]  # (1, 4)
    with _trying(model):
        states = getattr(
            lora.body(model)(input_ids=ids, use_cache=False), "last_hidden_state", None
        )
        if states is None or model.get_output_embeddings() is None:
            raise PipelineError(
                f"{name}: has no hidden states or no lm_head that are known here; choose another student"
            )
        theirs = model(input_ids=ids, use_cache=False).logits
        ours = (states.to(theirs.dtype) @ lora.head(model).to(theirs.dtype).T).float()
        ours = logits.scale * (ours if logits.bias is None else ours + logits.bias.float())
        ours = (
            ours if logits.softcap is None else logits.softcap * torch.tanh(ours / logits.softcap)
        )
    if not _alike(model, ours, theirs):
        said = f"scale {logits.scale:g}, soft-cap {logits.softcap}, bias {'no' if logits.bias is None else 'yes'}"
        raise PipelineError(
            f"{name}: its logits are not what its config says ({said}); choose another student"
        )


def check_packing(model: Any) -> None:
    """Raise PipelineError if samples that are packed into one row see one another in this model."""
    if _is_spoilt_by_trying(model):
        return
    ids = [token for length in LENGTHS for token in _ids(model, length).tolist()]
    row = {"input_ids": ids, "labels": ids, "seq_lengths": LENGTHS} | {
        name: [0] * len(ids) for name in COLUMNS
    }
    batch = Collator(0, None, packed=True)([row])
    inputs = {name: _moved(batch[name], model.device) for name in BODY_INPUTS if name in batch}
    body = lora.body(model)
    with _trying(model):
        apart = [
            body(input_ids=ids, use_cache=False).last_hidden_state
            for ids in inputs["input_ids"].split(LENGTHS, dim=1)
        ]
        try:
            packed = body(**inputs, use_cache=False).last_hidden_state
        except TypeError:  # it takes no positions
            packed = torch.zeros_like(torch.cat(apart, dim=1))
    if not _alike(model, packed, torch.cat(apart, dim=1)):
        name = type(lora.plain(model)).__name__
        raise PipelineError(
            f"train.packing: a {name} lets samples that share a row see one another; set train.packing: false"
        )


def _is_spoilt_by_trying(model: Any) -> bool:
    """On a CPU, inference brings 4-bit weights into an order of its own."""
    return bool(getattr(model, "is_loaded_in_4bit", False)) and model.device.type == "cpu"


@contextmanager
def _trying(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(training)


def _ids(model: Any, count: int) -> Tensor:
    """(count,) token ids, spread over the vocabulary: special ones stand at its ends."""
    rows = model.get_input_embeddings().weight.shape[0]
    return torch.arange(1, count + 1, device=model.device) * rows // (count + 2)


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _alike(model: Any, mine: Tensor, theirs: Tensor) -> bool:
    whole = theirs.dtype == torch.float32 and not getattr(
        model, "is_loaded_in_4bit", False
    )  # whose arithmetic may be of 16 bits
    limit = ROUNDING if whole else ROUNDING_16_BIT
    return bool((mine.float() - theirs.float()).norm() <= limit * theirs.float().norm())
