"""Build the student's first weights: cut layers, trim the vocabulary, or start at random."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Config, Shape
from pipeline.data import prompts, seeds
from pipeline.data.encoding import Encoder
from pipeline.data.vocabulary import Vocabulary
from pipeline.models import resolve, saving
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config, load_weights
from pipeline.records import Rendered, Sample, Seed
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.students import layers, vocabulary_trimming
from pipeline.students import lora as adapters
from pipeline.students.checks import check_untrimmed, meta_model, same_tokenizer
from pipeline.students.rounds import price, warning
from pipeline.students.source import source

log = logging.getLogger(__name__)

IMPORTANCE_PROMPTS = 64  # for student.choose: importance


@dataclass(frozen=True)
class Start:
    """The student's start. `model`: its folder or hub id if nothing had to be made; `counts`: for
    the manifest."""

    model: str | None
    counts: dict[str, Any] = field(default_factory=dict)


def build(config: Config, folder: Path, rows: Path, frames: Path) -> Start:
    """Make the student's first weights in `folder`.

    rows, frames: the folders of the training rows and of their top-k logprobs.
    """
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
        model = load_weights(name, revision, "auto")
        tokenizer = Tokenizer(name, revision)
    counts = _cut_layers(config, model, name, tokenizer)
    if student.trim_vocabulary:
        counts |= _trim(config, model, tokenizer, folder, rows, frames)
    else:
        tokenizer.save(folder)
        trimmed_before = Vocabulary.read(name)
        if trimmed_before is not None:
            trimmed_before.write(folder)
    saving.save(model, folder)
    layers.check_saved(model, name, meta_model(load_config(str(folder), None)))
    return Start(None, counts)


def load_student(
    config: Config, start: str, revision: str | None, dtype: Any, arithmetic: Any = None
) -> Any:
    """Load the model to be trained: its first weights, or under student.lora these frozen with
    adapters on them.

    dtype: of the weights; under quantise: 4bit of those that are not quantised.
    arithmetic: of 4-bit weights, `dtype` if None.
    """
    lora = config.student.lora
    if lora is None:
        return load_weights(start, revision, dtype)
    options = adapters.load_options(lora, arithmetic or dtype)
    return adapters.attach(load_weights(start, revision, dtype, **options), lora)


def random_config(shape: Shape, tokenizer: Tokenizer) -> Any:
    """Return the configuration of a random student."""
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
    """Remove the layers that the config does not keep. Returns those kept, and the scores that
    chose them."""
    student = config.student
    if student.layers is None and student.keep_layers is None:
        return {}
    total = len(layers.layers_of(model, name))
    layers.check(name, total, student.layers, student.keep_layers)
    counts: dict[str, Any] = {}
    shown = ""
    if student.keep_layers is not None:
        kept = student.keep_layers
    elif student.choose == "importance":
        scores = layers.importance(model, name, _importance_prompts(config, tokenizer))
        kept = layers.highest(scores, student.layers or total)
        counts["importance"] = scores
        shown = "; block influence " + ", ".join(f"{score:.3f}" for score in scores)
    else:
        kept = layers.even(total, student.layers or total)
    paid = price(name, model.config, kept)
    layers.keep(model, name, kept)
    log.info(f"train init: layers {', '.join(map(str, kept))} of {total}{shown}; {paid}")
    if advice := warning(config, paid):
        log.warning(advice)
    return {"layers": kept, "parameters_cut": round(paid.parameters, 4), **counts}


def _importance_prompts(config: Config, tokenizer: Tokenizer) -> list[list[int]]:
    """Return the student's prompt, as token ids, for seeds spread evenly over all of them."""
    all_seeds = seeds.load(config.task.seeds)
    prompt = prompts.load(config.train.prompt)
    indices = layers.even(len(all_seeds), min(IMPORTANCE_PROMPTS, len(all_seeds)))
    rendered = [prompt.render(all_seeds[index], tokenizer.control_tokens) for index in indices]
    return [tokenizer.encode(prompt) for prompt in rendered]


def _trim(
    config: Config, model: Any, tokenizer: Tokenizer, folder: Path, rows: Path, frames: Path
) -> dict[str, Any]:
    """Remove the tokens that the data does not use from the model and the tokenizer, which is saved
    in `folder`."""
    check_untrimmed(tokenizer)
    same = same_tokenizer(config, tokenizer)
    samples = list(Samples(rows))
    prompt = prompts.load(config.train.prompt)
    all_seeds = list(seeds.load(config.task.seeds))
    rendered = _all_prompts(prompt, all_seeds, tokenizer)
    replies = [sample.text for sample in samples]
    encoder = Encoder(tokenizer, prompt, same)

    used = vocabulary_trimming.special_ids(model)
    for seed in all_seeds:
        if seed.target:
            target = prompt.front.target_reply(seed, config.task.metric)
            used.update(tokenizer.encode_reply(target, prompt.is_chat))
    for text in rendered:
        used.update(tokenizer.encode(text))
    for sample in samples:
        used.update(tokenizer.encode_reply(sample.text, prompt.is_chat))
        for example in encoder.encode_sample(sample):
            used.update(example.input_ids)
    if same:
        used |= _exact_entries(samples, frames)

    kept = vocabulary_trimming.vocabulary(tokenizer, used)
    trimmed = vocabulary_trimming.save_tokenizer(tokenizer, kept, folder)
    vocabulary_trimming.check_same(tokenizer, trimmed, kept, rendered, replies)
    before = tokenizer.vocab_size
    saved = vocabulary_trimming.trim(model, tokenizer.name, kept)
    kept.write(folder)
    log.info(
        f"train init: {len(kept.kept):,} of {before:,} tokens, which saves {saved:,} parameters"
    )
    return {"tokens": len(kept.kept), "tokens_before": before, "parameters_saved": saved}


def _all_prompts(
    prompt: prompts.Prompt, all_seeds: Sequence[Seed], tokenizer: Tokenizer
) -> list[Rendered]:
    """Render the student's prompt for all seeds, with each prefix that a form may use."""
    prefixes = ("", prompt.front.prefixes.answer, prompt.front.prefixes.rationale)
    rendered = []
    for prefix in prefixes:
        form = replace(prompt, prefix=prefix)
        rendered += [form.render(seed, tokenizer.control_tokens) for seed in all_seeds]
    return rendered


def _exact_entries(samples: list[Sample], frames: Path) -> set[int]:
    """Return the ids of all entries that are not draws, over all rows that have logprobs."""
    folder = TopKFolder(frames)
    ids: set[int] = set()
    for sample in samples:
        if sample.frame is not None:
            topk = folder.topk_of(sample)
            ids |= set(topk.ids[np.arange(topk.ids.shape[1]) < topk.exact[:, None]].tolist())
    return ids
