"""What can be known before a model is loaded."""

import os
from pathlib import Path

from pipeline import prompts, seeds, students
from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.models import locate
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_config
from pipeline.scoring import normalise


def check(config: Config) -> list[str]:
    """Seeds, held-out seeds, prompts, models, keys. Returns what was found, and the first prompt; raises on the first fault."""
    found = seeds.load(config.task.seeds)
    targets = sum(seed.target is not None for seed in found)
    teacher_prompts, student_prompt = [prompts.load(path) for path in config.generate.prompt], prompts.load(config.train.prompt)
    held_out = seeds.load_eval(found, config.task.eval_seeds, lambda seed: str(student_prompt.render(seed)))
    for prompt in (*teacher_prompts, student_prompt):
        prompts.check(prompt, [*found, *held_out])
    samples = len(found) * config.generate.samples * len(teacher_prompts)
    first = teacher_prompts[0].render(found[0])
    _check_labels(config, [seed.target for seed in (*found, *held_out) if seed.target is not None])
    _check_teacher(config)
    name, _ = students.source(config)
    if name != "random":
        locate.check(name)
    _check_local_student(config, name)
    return [
        f"seeds: {len(found):,}, of which {targets:,} with ground truth; held out: {len(held_out):,}, none of them among the seeds",
        f"teacher: {config.teacher.model} ({config.teacher.backend}), {samples:,} samples to make",
        f"student: {name}" + (f", layers {config.student.keep_layers}" if config.student.keep_layers else ""),
        f"arms: {', '.join(f'{arm} ({settings.method})' for arm, settings in config.train.arms.items())}",
        f"run folder: {Path(config.run_dir)}",
        f"the student's first prompt:\n{_indent(str(student_prompt.render(found[0])))}",
        f"the teacher's first prompt:\n{_indent(str(first))}",
    ]


def _check_labels(config: Config, targets: list[str]) -> None:
    known = {normalise(label) for label in config.task.labels or ()}
    unknown = sorted({target for target in targets if known and normalise(target) not in known})
    if unknown:
        raise PipelineError(f"task.labels: the seeds also have {', '.join(map(repr, unknown[:5]))}; add them, or mend the seeds")


def _check_local_student(config: Config, name: str) -> None:
    """What a student's folder tells without its weights. One on the hub or in a package is checked when it is there, before training."""
    if not Path(name).is_dir():
        return
    layers = load_config(name, None).get_text_config().num_hidden_layers
    beyond = [layer for layer in config.student.keep_layers or () if layer >= layers]
    if beyond:
        raise PipelineError(f"student.keep_layers: {beyond[0]} is not a layer of {name}, which has {layers}; count from 0 to {layers - 1}")
    if config.teacher.backend == "fake" or Path(config.teacher.tokenizer or config.teacher.model).is_dir():
        for arm in config.train.arms:
            students.check_vocabulary(config, arm, Tokenizer(name))


def _check_teacher(config: Config) -> None:
    teacher = config.teacher
    if teacher.backend == "vllm":
        locate.check(teacher.model)
    remote = teacher.backend == "openai" and not any(host in str(teacher.base_url) for host in ("://127.0.0.1", "://localhost"))
    if remote and not os.environ.get(teacher.api_key_env):
        raise PipelineError(
            f"teacher.api_key_env: the environment variable {teacher.api_key_env} is not set; export the server's key there"
        )


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
