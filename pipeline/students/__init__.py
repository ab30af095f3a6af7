"""Where the student comes from: a model as it is, with only some of its layers or tokens, or a random one; and what of it is trained."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import adapters
from pipeline.config import Config, Shape
from pipeline.data import prompts, seeds
from pipeline.data.encoding import Encoder
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.models import resolve
from pipeline.models.resolve import tokenizer_of
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config, load_weights
from pipeline.records import Sample
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.students import layers, trimming

MEASURED_SEEDS = 64  # prompts on which choose: importance measures


@dataclass(frozen=True)
class Start:
    """What `build` made: `model` is a folder or hub id of elsewhere where nothing had to be made; `counts` is for the manifest."""

    model: str | None
    counts: dict[str, Any] = field(default_factory=dict)


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
    return {"student": name if name == "random" else resolve.identity(name, revision)}


def reads_seeds(config: Config) -> bool:
    """Whether the student's first weights depend on the seeds as its prompt shows them."""
    return config.student.trim_vocabulary or config.student.choose == "importance"


def check_vocabulary(config: Config, arm: str, student: Tokenizer) -> bool:
    """Whether the teacher's token ids are the student's, or were before its vocabulary was trimmed.

    Raises PipelineError if they are not and the arm is kd.
    """
    same = _is_teachers(config, student)
    if not same and config.train.arms[arm].method == "kd":
        raise PipelineError(
            f"train {arm}: the tokenizer of {student.name} differs from that of the teacher {config.teacher.model}; kd needs the same "
            "vocabulary. Choose a student of the teacher's family, or train this one with method: sft"
        )
    return same


def check_fidelity(config: Config, student: Tokenizer) -> None:
    """Raise PipelineError under evaluate.fidelity if teacher and student have not the same vocabulary, a trimmed one aside."""
    if config.evaluate.fidelity and not _is_teachers(config, student):
        raise PipelineError(
            f"evaluate.fidelity: the tokenizer of {student.name} differs from that of the teacher {config.teacher.model}, so their "
            "distributions cannot be compared; leave it out, or choose a student of the teacher's family"
        )


def made(folder: Path) -> tuple[str, str | None]:
    """(folder or hub id, revision) of the model of a finished part of train; an untouched one may lie elsewhere."""
    found = read_json(folder / "student.json")
    return str(found["model"] or folder / "model"), found["revision"]


def build(config: Config, folder: Path, rows: Path, frames: Path) -> Start:
    """Make the student's first weights in `folder`. `rows` and `frames` are where the training rows and their top-k logprobs are."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    name, revision = source(config)
    student = config.student
    if name == "random":
        tokenizer = Tokenizer(tokenizer_of(config.teacher), config.teacher.revision)
        model = _random(student.shape, tokenizer, config.train.seed)
    else:
        name = resolve.resolve(name)
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
    layers.check_saved(model, name, _hollow(load_config(str(folder), None)))
    return Start(None, counts)


def load_student(config: Config, start: str, revision: str | None, dtype: Any, arithmetic: Any = None) -> Any:
    """The model to be trained: its first weights and, under student.lora, adapters on them frozen.

    `dtype`: of the weights; under quantise: 4bit of those that stay whole. `arithmetic`: of 4-bit weights, None for `dtype` as well.
    """
    lora = config.student.lora
    if lora is None:
        return load_weights(start, revision, dtype)
    return adapters.attach(load_weights(start, revision, dtype, **adapters.load_options(lora, arithmetic or dtype)), lora)


def check(config: Config, name: str, model_config: Any, tokenizer: Tokenizer) -> None:
    """What can be told of a student without its weights. Raises PipelineError for the first key that does not fit the model."""
    student = config.student
    layers.check(name, model_config.get_text_config().num_hidden_layers, student.layers, student.keep_layers)
    if student.trim_vocabulary:
        _check_untrimmed(tokenizer)
        trimming.check(tokenizer)
    if student.lora is not None:
        adapters.check_quantise(student.lora)
        adapters.targets(_hollow(model_config), student.lora)


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


def _is_teachers(config: Config, student: Tokenizer) -> bool:
    teacher = config.teacher
    trimmed = Vocabulary.read(student.name)
    known = teacher.backend != "openai" or teacher.tokenizer is not None
    return known and Tokenizer(tokenizer_of(teacher), teacher.revision).hash == (trimmed.tokenizer if trimmed else student.hash)


def _random(shape: Shape, tokenizer: Tokenizer, seed: int) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(random_config(shape, tokenizer))


def _hollow(model_config: Any) -> Any:
    """The model without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)


def _cut_layers(config: Config, model: Any, name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Leave the model the layers that the config asks for. Returns which they are, and the scores that decided."""
    student = config.student
    if student.layers is None and student.keep_layers is None:
        return {}
    there = len(layers.of(model, name))
    layers.check(name, there, student.layers, student.keep_layers)
    scores: list[float] = []
    if student.keep_layers is not None:
        kept = student.keep_layers
    elif student.choose == "importance":
        scores = layers.importance(model, name, _measured_prompts(config, tokenizer))
        kept = layers.likeliest(scores, student.layers or there)
    else:
        kept = layers.even(there, student.layers or there)
    layers.keep(model, name, kept)
    shown = f"; block influence {', '.join(f'{score:.3f}' for score in scores)}" if scores else ""
    print(f"train init: layers {', '.join(map(str, kept))} of {there}{shown}", flush=True)
    return {"layers": kept, **({"importance": scores} if scores else {})}


def _measured_prompts(config: Config, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of the student's prompt for seeds spread evenly over all of them."""
    found = seeds.load(config.task.seeds)
    prompt = prompts.load(config.train.prompt)
    some = [found[index] for index in layers.even(len(found), min(MEASURED_SEEDS, len(found)))]
    return [tokenizer.encode(prompt.render(seed, tokenizer.control_tokens)) for seed in some]


def _trim(config: Config, model: Any, tokenizer: Tokenizer, folder: Path, rows: Path, frames: Path) -> dict[str, Any]:
    """Leave model and tokenizer the tokens that the data uses; the tokenizer goes to `folder`."""
    _check_untrimmed(tokenizer)
    same = _is_teachers(config, tokenizer)
    samples = list(Samples(rows))
    prompt = prompts.load(config.train.prompt)
    found = seeds.load(config.task.seeds)
    forms = [replace(prompt, prefix=prefix) for prefix in ("", prompt.front.prefixes.answer, prompt.front.prefixes.rationale)]
    asked = [form.render(seed, tokenizer.control_tokens) for form in forms for seed in found]
    used = trimming.special_ids(model)
    used |= {token for seed in found if seed.target for token in tokenizer.encode_reply(prompt.front.written(seed))}
    used |= {token for rendered in asked for token in tokenizer.encode(rendered)}
    encoder = Encoder(tokenizer, prompt, same)
    used |= {token for sample in samples for example in encoder.sample(sample) for token in example.input_ids}
    used |= {token for sample in samples for token in tokenizer.encode_reply(sample.text)}
    if same:
        used |= _exact_entries(samples, frames)
    kept = trimming.vocabulary(tokenizer, used)
    trimmed = trimming.save_tokenizer(tokenizer, kept, folder)
    trimming.check_same(tokenizer, trimmed, kept, asked, [sample.text for sample in samples])
    before = tokenizer.vocab_size
    saved = trimming.trim(model, tokenizer.name, kept)
    kept.write(folder)
    print(f"train init: {len(kept.kept):,} of {before:,} tokens, which saves {saved:,} parameters", flush=True)
    return {"tokens": len(kept.kept), "tokens_before": before, "parameters_saved": saved}


def _check_untrimmed(tokenizer: Tokenizer) -> None:
    if Vocabulary.read(tokenizer.name) is not None:
        raise PipelineError(
            f"student.trim_vocabulary: {tokenizer.name} is trimmed already; set it to false, or start from the model it was made from"
        )


def _exact_entries(samples: list[Sample], frames: Path) -> set[int]:
    """The ids of all entries that are no draws, over all rows that have logprobs."""
    folder = TopKFolder(frames)
    found: set[int] = set()
    for sample in samples:
        if sample.frame is not None:
            topk = folder.of(sample)
            found |= set(topk.ids[np.arange(topk.ids.shape[1]) < topk.exact[:, None]].tolist())
    return found
