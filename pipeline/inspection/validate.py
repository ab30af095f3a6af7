"""Check a config and its files before any model is loaded."""

import os
from pathlib import Path
from typing import Any

from pipeline.config import Config, Student
from pipeline.data import licences, prompts, seeds
from pipeline.errors import PipelineError
from pipeline.filters import build
from pipeline.models import resolve
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.students import checks, source, white_box
from pipeline.students.build import random_config
from pipeline.verifiers import verify
from pipeline.verifiers.scorers import find_label


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
    targets = [seed.target for seed in (*examples, *held_out) if seed.target is not None]
    _check_labels(config, targets)
    verify.load_check(config.task)
    filters = build.check(config, examples)
    _check_teacher(config)
    student, _ = source.source(config)
    if student != "random":
        resolve.check(student)
    _check_local_student(config, student)

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
        f"arms: {', '.join(arms)}",
        f"filters: {', '.join(filters)}",
        *licences.check_declared(config.licences).lines,
        f"run folder: {Path(config.run_dir)}",
        f"the student's first prompt:\n{_indent(str(student_prompt.render(examples[0])))}",
        f"the teacher's first prompt:\n{_indent(str(teacher_prompts[0].render(examples[0])))}",
    ]


def _check_labels(config: Config, targets: list[str]) -> None:
    labels = config.task.labels
    unknown = sorted({target for target in targets if labels and not find_label(target, labels)})
    if unknown:
        raise PipelineError(
            f"task.labels: the seeds also have {', '.join(map(repr, unknown[:5]))}; "
            "add them to task.labels, or fix the seeds"
        )


def _changes(student: Student) -> str:
    """Name the changes to the student's model before training, and if only adapters train."""
    parts = {
        f"layers {student.keep_layers}": student.keep_layers,
        f"{student.layers} layers ({student.choose})": student.layers,
        "vocabulary trimmed to the data": student.trim_vocabulary,
        "adapters trained": student.lora,
    }
    return "".join(f", {text}" for text, applies in parts.items() if applies)


def _check_local_student(config: Config, name: str) -> None:
    """Check what can be checked of a student without its weights.

    A student on the hub or in a package is checked before training, once it is on this machine.
    """
    teacher = config.teacher
    teacher_is_local = (
        teacher.backend == "fake" or Path(teacher.tokenizer or teacher.model).is_dir()
    )
    if name == "random":
        if teacher_is_local:
            tokenizer = Tokenizer(tokenizer_path(teacher))
            model_config = random_config(config.student.shape, tokenizer)
            checks.check(config, name, model_config, tokenizer)
            _check_white_box(config, model_config)
    elif Path(name).is_dir():
        tokenizer = Tokenizer(name)
        model_config = load_config(name, None)
        checks.check(config, name, model_config, tokenizer)
        _check_white_box(config, model_config)
        if teacher_is_local:
            for arm in config.train.arms:
                checks.shares_vocabulary(config, arm, tokenizer)
            checks.check_fidelity(config, tokenizer)


def _check_white_box(config: Config, student_config: Any) -> None:
    """Check the arms that need the teacher's weights, if the teacher is a folder."""
    if Path(config.teacher.model).is_dir():
        teacher_config = load_config(config.teacher.model, None)
        white_box.check(config, (student_config, teacher_config))


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
