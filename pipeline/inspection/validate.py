"""Check a config and its files before any model is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config, Source, Student, Task
from pipeline.data import licences, prompts, seeds
from pipeline.data.prompts import Prompt
from pipeline.errors import PipelineError, UnknownError
from pipeline.filters import build
from pipeline.models import resolve
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.records import Seed
from pipeline.students import checks, layers, rounds, white_box
from pipeline.students import source as student_source
from pipeline.students.build import random_config
from pipeline.training.healing import text as healing_text
from pipeline.verifiers import verify
from pipeline.verifiers.verify import CheckSettings

NAMED = 5  # unreadable targets in a message


def check_config(config: Config) -> list[str]:
    """Check seeds, held-out examples, prompts, models and keys; return a summary with both prompts.

    Raises PipelineError on the first fault.
    """
    examples = seeds.load(config.task.seeds)
    teacher_prompts = [prompts.load(path) for path in config.generate.prompt]
    student_prompt = prompts.load(config.train.prompt)
    held_out = seeds.load_eval(
        examples, config.task.eval_seeds, lambda seed: str(student_prompt.render(seed))
    )
    for prompt in (*teacher_prompts, student_prompt):
        prompts.check(prompt, [*examples, *held_out])
    _check_targets(config.task, config.task.seeds, examples)
    _check_targets(config.task, config.task.eval_seeds, held_out)
    filters = build.check(config, examples)
    _check_teacher(config)
    _check_teacher_chat(config, teacher_prompts, examples[0])
    student, _ = student_source.source(config)
    if student != "random":
        resolve.check(student)
    healing_text.check(config)
    paid = _check_local_student(config, student, student_prompt, examples[0])

    labelled = sum(seed.target is not None for seed in examples)
    samples = len(examples) * config.generate.samples * len(teacher_prompts)
    arms = [
        f"{name} ({' + '.join((arm.method, *arm.white_box))})"
        for name, arm in config.train.arms.items()
    ]
    return [
        f"seeds: {len(examples):,}, {labelled:,} with ground truth; "
        f"held out: {len(held_out):,}, none of them among the seeds",
        f"teacher: {config.teacher.model} ({config.teacher.backend}), "
        f"{samples:,} samples to generate",
        f"student: {student}{_changes(config.student)}",
        *paid,
        f"arms: {', '.join(arms)}",
        f"filters: {', '.join(filters)}",
        *licences.check_declared(config.licences).lines,
        f"run folder: {Path(config.run_dir)}",
        f"the student's first prompt:\n{_indent(str(student_prompt.render(examples[0])))}",
        f"the teacher's first prompt:\n{_indent(str(teacher_prompts[0].render(examples[0])))}",
    ]


def _check_targets(task: Task, source: Source, examples: Sequence[Seed]) -> None:
    """Raise PipelineError if the metric cannot read a ground truth. It names the first of them."""
    check = verify.load_check(task)
    targets = {str(seed.target) for seed in examples if seed.target is not None}
    reasons = {target: _why_unreadable(check, target) for target in targets}
    bad = [
        (number, seed.id, reasons[str(seed.target)])
        for number, seed in enumerate(examples)
        if reasons.get(str(seed.target))
    ]
    if bad:
        places = seeds.places(source)
        named = [f"{places[number]} (seed {name}: {why})" for number, name, why in bad[:NAMED]]
        raise PipelineError(
            f"task.metric: {task.metric} cannot read {len(bad):,} of {len(examples):,} targets: "
            f"{', '.join(named)}; correct them, leave them empty, or change the metric or labels"
        )


def _why_unreadable(check: CheckSettings, target: str) -> str | None:
    try:
        verify.check_target(check, target)
    except UnknownError as reason:
        return str(reason)
    return None


def _changes(student: Student) -> str:
    """Name the changes to the student's model before training, and if only adapters train."""
    parts = {
        f"layers {student.keep_layers}": student.keep_layers,
        f"{student.layers} layers ({student.choose})": student.layers,
        "vocabulary trimmed to the data": student.trim_vocabulary,
        f"healed on {student.heal.tokens:,} tokens" if student.heal else "": student.heal,
        "adapters trained": student.lora,
    }
    return "".join(f", {text}" for text, applies in parts.items() if applies)


def _check_local_student(config: Config, name: str, prompt: Prompt, example: Seed) -> list[str]:
    """Check what can be checked of a student without its weights; return the price of its cut.

    A student on the hub, or in a package that was never used, is checked before training, once it
    is on this machine.
    """
    if name == "random":
        if _teacher_is_local(config):
            tokenizer = Tokenizer(tokenizer_path(config.teacher))
            _check_chat(tokenizer, prompt, example)
            model_config = random_config(config.student.shape, tokenizer)
            checks.check(config, name, model_config, tokenizer)
            _check_white_box(config, model_config)
        return []
    name = resolve.folder(name) or name
    if not Path(name).is_dir():
        return []
    tokenizer, model_config = Tokenizer(name), load_config(name, None)
    _check_chat(tokenizer, prompt, example)
    checks.check(config, name, model_config, tokenizer)
    _check_white_box(config, model_config)
    if _teacher_is_local(config):
        for arm in config.train.arms:
            checks.shares_vocabulary(config, arm, tokenizer)
        checks.check_fidelity(config, tokenizer)
    return _price(config, name, model_config)


def _price(config: Config, name: str, model_config: Any) -> list[str]:
    """Return what the cut of a student removes, and a warning if that is much."""
    student = config.student
    total = model_config.get_text_config().num_hidden_layers
    kept = student.keep_layers or layers.even(total, student.layers or total)
    if len(kept) == total:
        return []
    paid = rounds.price(name, model_config, kept)
    advice = rounds.warning(config, paid)
    return [f"warning: {advice}"] if advice else [f"cut: {paid}"]


def _check_white_box(config: Config, student_config: Any) -> None:
    """Check the arms that need the teacher's weights, if the teacher is a folder."""
    if Path(config.teacher.model).is_dir():
        teacher_config = load_config(config.teacher.model, None)
        white_box.check(config, (student_config, teacher_config))


def _teacher_is_local(config: Config) -> bool:
    """Return whether the teacher's tokenizer is in a folder on this machine."""
    teacher = config.teacher
    return teacher.backend == "fake" or Path(teacher.tokenizer or teacher.model).is_dir()


def _check_teacher_chat(config: Config, teacher_prompts: list[Prompt], example: Seed) -> None:
    if _teacher_is_local(config) and any(prompt.is_chat for prompt in teacher_prompts):
        tokenizer = Tokenizer(tokenizer_path(config.teacher))
        for prompt in teacher_prompts:
            _check_chat(tokenizer, prompt, example)


def _check_chat(tokenizer: Tokenizer, prompt: Prompt, example: Seed) -> None:
    """Raise PipelineError if the chat template does not take a prompt."""
    try:
        tokenizer.check(prompt.render(example, tokenizer.control_tokens))
    except PipelineError as error:
        raise PipelineError(f"{prompt.name}: {error}") from None


def _check_teacher(config: Config) -> None:
    teacher = config.teacher
    if teacher.backend == "vllm":
        resolve.check(teacher.model)
    local = any(host in str(teacher.base_url) for host in ("://127.0.0.1", "://localhost"))
    key = teacher.api_key_env
    if teacher.backend == "openai" and not local and not os.environ.get(key):
        raise PipelineError(
            f"teacher.api_key_env: the environment variable {key} is not set; "
            "export the server's key there"
        )


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
