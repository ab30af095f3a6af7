"""LoRA and QLoRA: adapters on a frozen model, and the plain model that comes of them (Hu et al. 2021; Dettmers et al. 2023)."""

from importlib.util import find_spec
from typing import Any

from pipeline.config import Lora
from pipeline.errors import PipelineError


def load_options(lora: Lora, dtype: Any) -> dict[str, Any]:
    """What from_pretrained needs so that a model is loaded as `lora` wants it. `dtype`: of 4-bit arithmetic."""
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
    """Raise PipelineError if 4-bit weights are asked for and cannot be had."""
    if lora.quantise is not None and find_spec("bitsandbytes") is None:
        raise PipelineError(
            "student.lora.quantise: 4bit needs bitsandbytes, which is not installed; "
            "install pipeline[qlora] (or pip install --no-deps bitsandbytes), or set student.lora.quantise: null"
        )


def attach(model: Any, lora: Lora) -> Any:
    """The model frozen, with trainable adapters on its body's linear layers. Draws their first values from torch's generator.

    Raises PipelineError if a target is no linear layer of the body.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets(model, lora),
    )
    model.enable_input_require_grads()  # else gradient checkpointing finds nothing to differentiate
    return get_peft_model(model, settings)


def targets(model: Any, lora: Lora) -> list[str]:
    """Names of the body's linear layers that get an adapter. Raises PipelineError if `lora.targets` names anything else."""
    from torch import nn

    linear = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.base_model.named_modules()
            if isinstance(module, nn.Linear)
        }
    )
    unknown = [name for name in lora.targets or () if name not in linear]
    if unknown:
        raise PipelineError(
            f"student.lora.targets: {unknown[0]} is no linear layer of this {type(model).__name__}'s body; it has {', '.join(linear)}"
        )
    return lora.targets or linear


def merged(model: Any) -> Any:
    """The plain model with its adapters merged in, for an ordinary folder; one without adapters is returned as it is.

    4-bit weights are dequantised first: the result is what the adapters were trained on, not the model as it was before quantisation.
    """
    from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    if not isinstance(model, PeftModel):
        return model
    if getattr(model, "is_loaded_in_4bit", False):
        # reading the state also undoes the order that inference on a CPU leaves 4-bit weights in
        trained, settings = get_peft_model_state_dict(model), model.peft_config["default"]
        bare = model.unload()
        model = get_peft_model(bare.dequantize(dtype=bare.dtype), settings)
        set_peft_model_state_dict(model, trained)
    return model.merge_and_unload()


def body(model: Any) -> Any:
    """What gives hidden states: the transformer without its lm_head, adapters included."""
    return plain(model).base_model


def head(model: Any) -> Any:
    """The lm_head's weight, (V, H)."""
    return plain(model).get_output_embeddings().weight


def plain(model: Any) -> Any:
    """The causal language model that adapters, if any, are put into."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model
