"""Tiny random students and tokenizers."""

import json
from pathlib import Path
from typing import Any

import torch

from pipeline.models.tokenizer import Tokenizer
from tests.support.task import ROOT

TEXTS = ["Is 7 even?\nAnswer:", " yes, it is even\n", " no, it is odd\n"]
SIZE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def tiny(kind: str, **changes: Any) -> Any:
    """Return a random model of four layers."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**{**SIZE, "num_key_value_heads": 2, **changes}))
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    return Qwen2ForCausalLM(Qwen2Config(**{**SIZE, "num_key_value_heads": 2, **sliding, **changes}))


def bpe(folder: Path, kind: str = "byte_level") -> Tokenizer:
    """Train a tokenizer of 600 tokens on this repository's own text."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    text = (ROOT / "CONTRIBUTING.md").read_text() + "\n".join(TEXTS) * 20
    special = ["<s>", "</s>", "<unk>"]
    if kind == "byte_level":
        raw = Raw(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        raw = Raw(models.BPE(byte_fallback=True, unk_token="<unk>"))
        raw.normalizer = normalizers.Replace(" ", "▁")
        raw.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        special = special + [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
        text = text.replace(" ", "▁")
    lines = text.split("\n") if kind == "byte_level" else text.replace("▁", " ▁").split(" ")
    raw.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tree = json.loads(raw.to_str())
    tree["added_tokens"] = [  # bytes are not control tokens
        token for token in tree["added_tokens"] if not token["content"].startswith("<0x")
    ]
    raw = Raw.from_str(json.dumps(tree))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return Tokenizer(str(folder))
