"""Build the student's first weights: cut layers, trim the vocabulary, or start at random."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, Shape
from pipeline.data import prompts, seeds
from pipeline.data.encoding import Encoder
from pipeline.data.vocabulary import Vocabulary
from pipeline.models import resolve
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config, load_weights
from pipeline.records import Sample
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.students import layers, vocabulary_trimming
from pipeline.students import lora as adapters
from pipeline.students.checks import check_untrimmed, meta_model, same_tokenizer
from pipeline.students.source import source

log = logging.getLogger(__name__)

MEASURED_SEEDS = 64  # prompts on which choose: importance measures


@dataclass(frozen=True)
class Start:
    """What `build` made: `model` is a folder or hub id of elsewhere where nothing had to be made; `counts` is for the manifest."""

    model: str | None
    counts: dict[str, Any] = field(default_factory=dict)


def build(config: Config, folder: Path, rows: Path, frames: Path) -> Start:
    """Make the student's first weights in `folder`. `rows` and `frames` are where the training rows and their top-k logprobs are."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    name, revision = source(config)
    student = config.student
    if name == "random":
        tokenizer = Tokenizer(tokenizer_path(config.teacher), config.teacher.revision)
        model = _random(student.shape, tokenizer, config.train.seed)
    else:
        name = resolve.model_path(name)
        if student.layers is None and student.keep_layers is None and not student.trim_vocabulary:
            return Start(name)
        model, tokenizer = load_weights(name, revision, "auto"), Tokenizer(name, revision)
    counts = _cut_layers(config, model, name, tokenizer)
    if student.trim_vocabulary:
        counts |= _trim(config, model, tokenizer, folder, rows, frames)
    else:
        tokenizer.save(folder)
        trimmed_before = Vocabulary.read(name)
        if trimmed_before is not None:
            trimmed_before.write(folder)
    model.save_pretrained(folder)
    layers.check_saved(model, name, meta_model(load_config(str(folder), None)))
    return Start(None, counts)


def load_student(
    config: Config, start: str, revision: str | None, dtype: Any, arithmetic: Any = None
) -> Any:
    """The model to be trained: its first weights and, under student.lora, adapters on them frozen.

    `dtype`: of the weights; under quantise: 4bit of those that stay whole. `arithmetic`: of 4-bit weights, None for `dtype` as well.
    """
    lora = config.student.lora
    if lora is None:
        return load_weights(start, revision, dtype)
    return adapters.attach(
        load_weights(start, revision, dtype, **adapters.load_options(lora, arithmetic or dtype)),
        lora,
    )


def random_config(shape: Shape, tokenizer: Tokenizer) -> Any:
    """The configuration of a random student."""
    from transformers import LlamaConfig

    return LlamaConfig(
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


def _random(shape: Shape, tokenizer: Tokenizer, seed: int) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(random_config(shape, tokenizer))


def _cut_layers(config: Config, model: Any, name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Leave the model the layers that the config asks for. Returns which they are, and the scores that decided."""
    student = config.student
    if student.layers is None and student.keep_layers is None:
        return {}
    there = len(layers.layers_of(model, name))
    layers.check(name, there, student.layers, student.keep_layers)
    scores: list[float] = []
    if student.keep_layers is not None:
        kept = student.keep_layers
    elif student.choose == "importance":
        scores = layers.importance(model, name, _measured_prompts(config, tokenizer))
        kept = layers.highest(scores, student.layers or there)
    else:
        kept = layers.even(there, student.layers or there)
    layers.keep(model, name, kept)
    shown = f"; block influence {', '.join(f'{score:.3f}' for score in scores)}" if scores else ""
    log.info(f"train init: layers {', '.join(map(str, kept))} of {there}{shown}")
    return {"layers": kept, **({"importance": scores} if scores else {})}


def _measured_prompts(config: Config, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of the student's prompt for seeds spread evenly over all of them."""
    found = seeds.load(config.task.seeds)
    prompt = prompts.load(config.train.prompt)
    some = [found[index] for index in layers.even(len(found), min(MEASURED_SEEDS, len(found)))]
    return [tokenizer.encode(prompt.render(seed, tokenizer.control_tokens)) for seed in some]


def _trim(
    config: Config, model: Any, tokenizer: Tokenizer, folder: Path, rows: Path, frames: Path
) -> dict[str, Any]:
    """Leave model and tokenizer the tokens that the data uses; the tokenizer goes to `folder`."""
    check_untrimmed(tokenizer)
    same = same_tokenizer(config, tokenizer)
    samples = list(Samples(rows))
    prompt = prompts.load(config.train.prompt)
    found = seeds.load(config.task.seeds)
    forms = [
        replace(prompt, prefix=prefix)
        for prefix in ("", prompt.front.prefixes.answer, prompt.front.prefixes.rationale)
    ]
    asked = [form.render(seed, tokenizer.control_tokens) for form in forms for seed in found]
    used = vocabulary_trimming.special_ids(model)
    used |= {
        token
        for seed in found
        if seed.target
        for token in tokenizer.encode_reply(prompt.front.target_reply(seed))
    }
    used |= {token for rendered in asked for token in tokenizer.encode(rendered)}
    encoder = Encoder(tokenizer, prompt, same)
    used |= {
        token
        for sample in samples
        for example in encoder.encode_sample(sample)
        for token in example.input_ids
    }
    used |= {token for sample in samples for token in tokenizer.encode_reply(sample.text)}
    if same:
        used |= _exact_entries(samples, frames)
    kept = vocabulary_trimming.vocabulary(tokenizer, used)
    trimmed = vocabulary_trimming.save_tokenizer(tokenizer, kept, folder)
    vocabulary_trimming.check_same(
        tokenizer, trimmed, kept, asked, [sample.text for sample in samples]
    )
    before = tokenizer.vocab_size
    saved = vocabulary_trimming.trim(model, tokenizer.name, kept)
    kept.write(folder)
    log.info(
        f"train init: {len(kept.kept):,} of {before:,} tokens, which saves {saved:,} parameters"
    )
    return {"tokens": len(kept.kept), "tokens_before": before, "parameters_saved": saved}


def _exact_entries(samples: list[Sample], frames: Path) -> set[int]:
    """The ids of all entries that are no draws, over all rows that have logprobs."""
    folder = TopKFolder(frames)
    found: set[int] = set()
    for sample in samples:
        if sample.frame is not None:
            topk = folder.topk_of(sample)
            found |= set(topk.ids[np.arange(topk.ids.shape[1]) < topk.exact[:, None]].tolist())
    return found
