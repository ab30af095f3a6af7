"""Open a teacher or a student on the backend that the config names."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import Engine, Evaluate, Teacher
from pipeline.models.base import Model


def open_teacher(teacher: Teacher, log: Path) -> Model:
    """Open the teacher of a config. An engine writes its own output to the file `log`."""
    return TEACHERS[teacher.backend](teacher, log)


def open_student(
    evaluate: Evaluate, name: str, revision: str | None, replies: Sequence[str], log: Path
) -> Model:
    """Open a student, given by its folder or hub id, on the backend that evaluates it."""
    if evaluate.backend == "fake":
        return _fake(name, replies, evaluate.engine)
    return _vllm(name, revision, evaluate.engine, 0, log, math.inf)


def _vllm(
    name: str, revision: str | None, engine: Engine, k: int, log: Path, timeout_s: float
) -> Model:
    from pipeline.models.vllm_engine import VllmModel

    return VllmModel(name, revision, engine, k, log, timeout_s)


def _openai(teacher: Teacher) -> Model:
    from pipeline.models.openai_client import ServerModel

    return ServerModel(teacher)


def _fake(name: str, replies: Sequence[str], engine: Engine, delay_s: float = 0.0) -> Model:
    from pipeline.models.fake import FakeModel

    return FakeModel(name, replies, engine, delay_s)


TEACHERS: dict[str, Callable[[Teacher, Path], Model]] = {
    "vllm": lambda teacher, log: _vllm(
        teacher.model, teacher.revision, teacher.engine, teacher.logprobs, log, teacher.timeout_s
    ),
    "openai": lambda teacher, _: _openai(teacher),
    "fake": lambda teacher, _: _fake(
        teacher.model, teacher.replies or [], teacher.engine, teacher.delay_s
    ),
}
