"""The student's first weights: a model as it is, a model with only some of its layers, or random ones."""

from pathlib import Path
from typing import Any

from pipeline.config import Config, Shape
from pipeline.errors import PipelineError
from pipeline.models import locate, tokenizer_of
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.store import read_json


def source(config: Config) -> tuple[str, str | None]:
    """(name, revision) of the model that the student starts from."""
    if config.student.model == "teacher":
        if config.teacher.backend != "vllm":
            raise PipelineError(
                f"student.model: teacher needs the teacher's weights, and backend {config.teacher.backend} has none here; name a model"
            )
        return config.teacher.model, config.teacher.revision
    return config.student.model, config.student.revision


def identities(config: Config) -> dict[str, str]:
    """What the student starts from, for fingerprints: the weights may be used where they are, and changed there."""
    name, revision = source(config)
    return {"student": name if name == "random" else locate.identity(name, revision)}


def check_vocabulary(config: Config, arm: str, student: Tokenizer) -> bool:
    """Whether the teacher's token ids are the student's. Raises PipelineError if they are not and the arm is kd."""
    teacher = config.teacher
    known = teacher.backend != "openai" or teacher.tokenizer is not None
    same = known and Tokenizer(tokenizer_of(teacher), teacher.revision).hash == student.hash
    if not same and config.train.arms[arm].method == "kd":
        raise PipelineError(
            f"train {arm}: the tokenizer of {student.name} differs from that of the teacher {teacher.model}; kd needs the same vocabulary. "
            "Choose a student of the teacher's family, or train this one with method: sft"
        )
    return same


def made(folder: Path) -> tuple[str, str | None]:
    """(folder or hub id, revision) of the model of a finished part of train; an untouched one may lie elsewhere."""
    found = read_json(folder / "student.json")
    return str(found["model"] or folder / "model"), found["revision"]


def build(config: Config, folder: Path) -> str | None:
    """Make the student's first weights in `folder`; where nothing has to be made, return the model's own folder or hub id instead."""
    name, revision = source(config)
    if name == "random":
        _random(config.student.shape, Tokenizer(tokenizer_of(config.teacher)), config.train.seed, folder)
        return None
    path = locate.resolve(name)
    if config.student.keep_layers is None:
        return path
    _keep_layers(path, revision, config.student.keep_layers, folder)
    return None


def _keep_layers(path: str, revision: str | None, keep: list[int], folder: Path) -> None:
    """A copy of the model with only the layers `keep`, in that order."""
    from torch import nn

    model = load_weights(path, revision, "auto")
    layers: Any = getattr(model.base_model, "layers", None)
    if layers is None:
        raise PipelineError(f"{path}: a {type(model).__name__} has no list of layers that is known here; give a student of its own")
    beyond = [index for index in keep if not 0 <= index < len(layers)]
    if beyond:
        raise PipelineError(
            f"student.keep_layers: {beyond[0]} is not a layer of {path}, which has {len(layers)}; count from 0 to {len(layers) - 1}"
        )
    kept = [layers[index] for index in keep]
    for position, layer in enumerate(kept):
        layer.self_attn.layer_idx = position
    model.base_model.layers = nn.ModuleList(kept)
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[index] for index in keep]
    model.save_pretrained(folder)
    Tokenizer(path, revision).save(folder)


def _random(shape: Shape, tokenizer: Tokenizer, seed: int, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.hf.eos_token_id,
        pad_token_id=tokenizer.hf.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
