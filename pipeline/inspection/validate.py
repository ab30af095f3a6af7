"""What can be known before a model is loaded."""

import os
from pathlib import Path

from pipeline.config import Config, Student
from pipeline.data import licences, prompts, seeds
from pipeline.errors import PipelineError
from pipeline.filters import build
from pipeline.models import resolve
from pipeline.models.resolve import tokenizer_path
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.students import checks, source
from pipeline.students.build import random_config
from pipeline.verifiers import verify
from pipeline.verifiers.scorers import normalise


def check_config(config: Config) -> list[str]:
    """Seeds, held-out seeds, prompts, models, keys. Returns what was found, and the first prompt; raises on the first fault."""
    found = seeds.load(config.task.seeds)
    targets = sum(seed.target is not None for seed in found)
    teacher_prompts, student_prompt = (
        [prompts.load(path) for path in config.generate.prompt],
        prompts.load(config.train.prompt),
    )
    held_out = seeds.load_eval(
        found, config.task.eval_seeds, lambda seed: str(student_prompt.render(seed))
    )
    for prompt in (*teacher_prompts, student_prompt):
        prompts.check(prompt, [*found, *held_out])
    samples = len(found) * config.generate.samples * len(teacher_prompts)
    first = teacher_prompts[0].render(found[0])
    _check_labels(config, [seed.target for seed in (*found, *held_out) if seed.target is not None])
    verify.load_check(config.task)
    chosen = build.check(config, found)
    _check_teacher(config)
    name, _ = source.source(config)
    if name != "random":
        resolve.check(name)
    _check_local_student(config, name)
    return [
        f"seeds: {len(found):,}, of which {targets:,} with ground truth; held out: {len(held_out):,}, none of them among the seeds",
        f"teacher: {config.teacher.model} ({config.teacher.backend}), {samples:,} samples to make",
        f"student: {name}{_changes(config.student)}",
        f"arms: {', '.join(f'{arm} ({settings.method})' for arm, settings in config.train.arms.items())}",
        f"filters: {', '.join(chosen)}",
        *licences.check_declared(config.licences).lines,
        f"run folder: {Path(config.run_dir)}",
        f"the student's first prompt:\n{_indent(str(student_prompt.render(found[0])))}",
        f"the teacher's first prompt:\n{_indent(str(first))}",
    ]


def _check_labels(config: Config, targets: list[str]) -> None:
    known = {normalise(label) for label in config.task.labels or ()}
    unknown = sorted({target for target in targets if known and normalise(target) not in known})
    if unknown:
        raise PipelineError(
            f"task.labels: the seeds also have {', '.join(map(repr, unknown[:5]))}; add them, or mend the seeds"
        )


def _changes(student: Student) -> str:
    """What is done to the student's model before training, and what of it is trained."""
    parts = {
        f"layers {student.keep_layers}": student.keep_layers,
        f"{student.layers} layers ({student.choose})": student.layers,
        "vocabulary trimmed to the data": student.trim_vocabulary,
        "adapters trained": student.lora,
    }
    return "".join(f", {text}" for text, holds in parts.items() if holds)


def _check_local_student(config: Config, name: str) -> None:
    """What a student's folder tells without its weights. One on the hub or in a package is checked when it is there, before training."""
    there = (
        config.teacher.backend == "fake"
        or Path(config.teacher.tokenizer or config.teacher.model).is_dir()
    )
    if name == "random":
        if there:
            tokenizer = Tokenizer(tokenizer_path(config.teacher))
            checks.check(config, name, random_config(config.student.shape, tokenizer), tokenizer)
    elif Path(name).is_dir():
        tokenizer = Tokenizer(name)
        checks.check(config, name, load_config(name, None), tokenizer)
        for arm in config.train.arms if there else ():
            checks.check_vocabulary(config, arm, tokenizer)
        if there:
            checks.check_fidelity(config, tokenizer)


def _check_teacher(config: Config) -> None:
    teacher = config.teacher
    if teacher.backend == "vllm":
        resolve.check(teacher.model)
    remote = teacher.backend == "openai" and not any(
        host in str(teacher.base_url) for host in ("://127.0.0.1", "://localhost")
    )
    if remote and not os.environ.get(teacher.api_key_env):
        raise PipelineError(
            f"teacher.api_key_env: the environment variable {teacher.api_key_env} is not set; export the server's key there"
        )


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
