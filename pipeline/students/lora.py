"""LoRA and QLoRA: adapters on a frozen model, and the plain model with the adapters merged in.

Hu et al. 2021, "LoRA"; Dettmers et al. 2023, "QLoRA".
"""

from importlib.util import find_spec
from typing import Any

from pipeline.config import Lora
from pipeline.errors import PipelineError


def load_options(lora: Lora, dtype: Any) -> dict[str, Any]:
    """Return the options of from_pretrained under `lora`. 4-bit weights compute in `dtype`."""
    if lora.quantise is None:
        return {}
    check_quantise(lora)
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantised}


def check_quantise(lora: Lora) -> None:
    """Raise PipelineError if 4-bit weights are requested without bitsandbytes."""
    if lora.quantise is not None and find_spec("bitsandbytes") is None:
        raise PipelineError(
            "student.lora.quantise: 4bit needs bitsandbytes, which is not installed; "
            "install pipeline[qlora] (or pip install --no-deps bitsandbytes), or set "
            "student.lora.quantise: null"
        )


def attach(model: Any, lora: Lora) -> Any:
    """Freeze the model and put trainable adapters on its body's linear layers.

    torch's random generator draws the first values of the adapters. Raises PipelineError if a
    target is not a linear layer of the body.
    """
    check_targets(model, lora)
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.targets or _linear_layers(model),
    )
    # without this, gradient checkpointing finds no input that needs a gradient and computes none
    model.enable_input_require_grads()
    return get_peft_model(model, settings)


def check_targets(model: Any, lora: Lora) -> None:
    """Raise PipelineError if `lora.targets` names anything but linear layers of the body."""
    linear = _linear_layers(model)
    unknown = [name for name in lora.targets or () if name not in linear]
    if unknown:
        raise PipelineError(
            f"student.lora.targets: {unknown[0]} is no linear layer of this "
            f"{type(model).__name__}'s body; it has {', '.join(linear)}"
        )


def merged(model: Any) -> Any:
    """Return the plain model with its adapters merged in. A model without adapters is returned
    unchanged.

    4-bit weights are dequantised first. The original weights would not do, because the adapters
    were trained on top of the quantised ones.
    """
    from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    if not isinstance(model, PeftModel):
        return model
    if getattr(model, "is_loaded_in_4bit", False):
        # inference on a CPU leaves 4-bit weights reordered; reading the state restores their order
        trained, settings = get_peft_model_state_dict(model), model.peft_config["default"]
        base = model.unload()
        model = get_peft_model(base.dequantize(dtype=base.dtype), settings)
        set_peft_model_state_dict(model, trained)
    return model.merge_and_unload()


def body(model: Any) -> Any:
    """Return the transformer with its adapters but without its lm_head: it gives hidden states."""
    return plain(model).base_model


def head(model: Any) -> Any:
    """Return the weight of the lm_head, (V, H)."""
    return plain(model).get_output_embeddings().weight


def plain(model: Any) -> Any:
    """Return the causal language model without peft's wrapper. Its layers keep their adapters."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def _linear_layers(model: Any) -> list[str]:
    """Return the names of the body's linear layers, such as q_proj."""
    from torch import nn

    modules = model.base_model.named_modules()
    paths = [path for path, module in modules if isinstance(module, nn.Linear)]
    return sorted({path.rpartition(".")[2] for path in paths})
