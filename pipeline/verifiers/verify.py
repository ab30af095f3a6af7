"""Check an answer against the ground truth."""

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.config import Task
from pipeline.records import Score
from pipeline.verifiers import code_answers, json_answers
from pipeline.verifiers.sandbox.sandbox import Sandbox, UnknownError
from pipeline.verifiers.scorers import SCORERS

LONGEST = 100_000  # characters


@dataclass(frozen=True)
class Check:
    """How answers are checked: `labels` of a label task, `schema` (JSON schema) of a json one; the limits are for one answer.

    All are JSON values.
    """

    verifier: str
    labels: Sequence[str] | None
    schema: Any
    timeout_s: float
    memory_mib: int


def load_check(task: Task) -> Check:
    """What the config says. Raises PipelineError if its schema cannot be read, or is none."""
    path = task.verifier.json_schema
    schema = None if path is None else json_answers.load_schema(Path(path))
    return Check(
        task.metric, task.labels, schema, task.verifier.timeout_s, task.verifier.memory_mib
    )


def files(task: Task) -> list[Path]:
    """Files outside the run whose content decides."""
    return [Path(path) for path in (task.verifier.json_schema,) if path is not None]


def verify(how: Check, answer: str | None, target: str) -> Score:
    """How good an answer is. Raises UnknownError where that cannot be found out."""
    return VERIFIERS[how.verifier](how, answer, target)


def score(how: Check, answer: str | None, target: str) -> Score:
    """As `verify`, for averages: what is unknown counts as nothing, and its explanation says so."""
    try:
        return verify(how, answer, target)
    except UnknownError as unknown:
        return Score(value=0.0, answer=answer, explanation=f"unknown: {unknown}")


def _scored(name: str, how: Check, answer: str | None, target: str) -> Score:
    return SCORERS[name](answer, target, how.labels)


def _guarded(
    ask: Callable[[Check, str, str], Score], how: Check, answer: str | None, target: str
) -> Score:
    """What needs no process: nothing to check, and too much of it."""
    if answer is None or not answer.strip():
        return Score(value=0.0, explanation="no answer found")
    if len(answer) > LONGEST or len(target) > LONGEST:
        raise UnknownError(f"longer than {LONGEST:,} characters")
    return ask(how, answer, target)


def _math(how: Check, answer: str, target: str) -> Score:
    if answer.strip() == target.strip():
        return Score(value=1.0, answer=answer, explanation="same text")
    return _asked(
        _sandbox("math", how.timeout_s, how.memory_mib), {"answer": answer, "target": target}
    )


def _json(how: Check, answer: str, target: str) -> Score:
    sandbox = _sandbox("json", how.timeout_s, how.memory_mib)
    return _asked(sandbox, {"answer": answer, "target": target, "schema": how.schema})


def _code(how: Check, answer: str, target: str) -> Score:
    return code_answers.check(answer, target, how.timeout_s, how.memory_mib)


def _asked(sandbox: Sandbox, request: dict[str, Any]) -> Score:
    reply = sandbox.ask(request)
    if "unknown" in reply:
        raise UnknownError(reply["unknown"])
    return Score.model_validate(reply)


@cache
def _sandbox(verifier: str, timeout_s: float, memory_mib: int) -> Sandbox:
    """One for each process: it takes half a second to start."""
    sandbox = Sandbox("pipeline.verifiers.sandbox.worker", verifier, timeout_s, memory_mib)
    atexit.register(sandbox.close)
    return sandbox


VERIFIERS: dict[str, Callable[[Check, str | None, str], Score]] = {
    **{name: partial(_scored, name) for name in SCORERS},
    "math": partial(_guarded, _math),
    "json": partial(_guarded, _json),
    "code": partial(_guarded, _code),
}
