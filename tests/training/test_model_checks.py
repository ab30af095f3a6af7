"""Checks before the first step: the student's logits, and that packed samples do not see one
another."""

from typing import Any

import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.training.model_checks import check_logits, check_packing, logits_of

SIZE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": SIZE,
    "qwen2": {
        **SIZE,
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "gemma2": {
        **SIZE,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "final_logit_softcapping": 2.0,
        "initializer_range": 0.5,
    },
    "cohere": {**SIZE, "logit_scale": 0.0625},
    "granite": {**SIZE, "logits_scaling": 4.0},
    "recurrent_gemma": {
        **SIZE,
        "num_hidden_layers": 3,
        "logits_soft_cap": 2.0,
        "initializer_range": 0.5,
    },
    "opt": {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"vocab_size": 300, "d_model": 32, "n_layers": 2, "n_heads": 4},
    "falcon": {
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": True,
    },
    "lfm2": {
        **SIZE,
        "layer_types": ["conv", "full_attention"],
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    },
    "mamba": {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def tiny(kind: str, **changes: object) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model: torch.nn.Module = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **{**KINDS[kind], **ends, **changes})
    )
    return model.train()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_what_the_config_says(kind: str) -> None:
    """A soft-cap under another name was silently left out of the loss."""
    model = tiny(kind)
    check_logits(model, logits_of(model))
    assert model.training


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("mpt", {"logit_scale": 0.5}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("cohere", {"logit_scale": 0.5}),
    ],
)
def test_logits_that_differ_from_the_config_are_refused(
    kind: str, change: dict[str, float]
) -> None:
    """MPT ignores the logit_scale of its own config."""
    expected = logits_of(tiny(kind, **change))
    with pytest.raises(
        PipelineError,
        match=r"its logits are not what its config says \(scale .*\); choose another student",
    ):
        check_logits(tiny(kind, **(change if kind == "mpt" else {})), expected)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "cohere"])
def test_packed_samples_do_not_see_one_another(kind: str) -> None:
    """Refusing a model that packs correctly would be a bug too."""
    check_packing(tiny(kind))


@pytest.mark.parametrize(
    "kind", ["opt", "bloom", "mpt", "falcon", "lfm2", "mamba", "recurrent_gemma"]
)
def test_models_whose_packed_samples_see_one_another_are_refused(kind: str) -> None:
    """Their losses were too low without a message."""
    with pytest.raises(
        PipelineError,
        match=r"lets samples that share a row see one another; set train\.packing: false",
    ):
        check_packing(tiny(kind))
