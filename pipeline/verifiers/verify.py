"""Check an answer against the ground truth, by the metric of the task."""

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import Task
from pipeline.errors import UnknownError
from pipeline.records import Score
from pipeline.verifiers import code_answers, json_answers, targets
from pipeline.verifiers.sandbox.sandbox import INVALID_REPLY, Sandbox
from pipeline.verifiers.scorers import NO_ANSWER, SCORERS, SHOWN

CLOSED = ("label", "exact", "numeric", "math")  # metrics of short answers that are right or wrong
LONGEST = 100_000  # characters of an answer or a ground truth
MEMORY_MIB = 1024  # memory limit of one check


@dataclass(frozen=True)
class CheckSettings:
    """Settings of a check; the limits are for one answer.

    All fields are JSON values, because the filter `correct` passes them as the settings of a
    `Measure`, whose name is a hash of their JSON.
    """

    verifier: str  # a key of VERIFIERS
    labels: Sequence[str] | None
    schema: Any  # a JSON schema, or None
    timeout_s: float
    memory_mib: int


def load_check(task: Task) -> CheckSettings:
    """Return the config's settings for checking answers. Raises PipelineError for a bad schema."""
    settings = task.verifier
    schema = None
    if settings.json_schema is not None:
        schema = json_answers.load_schema(Path(settings.json_schema))
    return CheckSettings(task.metric, task.labels, schema, settings.timeout_s, MEMORY_MIB)


def files(task: Task) -> list[Path]:
    """Return the files whose content can change a score."""
    schema = task.verifier.json_schema
    return [] if schema is None else [Path(schema)]


def verify(check: CheckSettings, answer: str | None, target: str) -> Score:
    """Score an answer; of several accepted targets the nearest counts.

    Raises UnknownError if its score cannot be determined.
    """
    verifier = VERIFIERS[check.verifier]
    accepted = targets.accepted(check.verifier, target)
    if len(accepted) == 1:
        return verifier(check, answer, accepted[0])
    scores = []
    unknown = None
    for text in accepted:
        try:
            scores.append(verifier(check, answer, text))
        except UnknownError as error:
            unknown = error
    best = max(scores, key=lambda score: score.value, default=None)
    if best is None or (unknown and best.value < 1.0):
        raise unknown or UnknownError("no target")
    return best


def check_target(check: CheckSettings, target: str) -> None:
    """Raise UnknownError if the metric cannot read a ground truth, so no answer could be right."""
    for text in targets.accepted(check.verifier, target):
        if not text.strip():
            raise UnknownError("the target is blank")
        if check.verifier == "code":
            targets.check_program_tests(text)
        elif check.verifier == "math":
            _ask("math", check, {"answer": text, "target": text})
        elif VERIFIERS[check.verifier](check, text, text).value == 0.0:
            raise UnknownError(f"nothing in the target can be compared: {text[:SHOWN]}")


def score(check: CheckSettings, answer: str | None, target: str) -> Score:
    """Score an answer as `verify` does, but return 0 if the score is unknown."""
    try:
        return verify(check, answer, target)
    except UnknownError as unknown:
        return Score(value=0.0, answer=answer, explanation=f"unknown: {unknown}")


def _score(name: str, check: CheckSettings, answer: str | None, target: str) -> Score:
    return SCORERS[name](answer, target, check.labels)


def _guard(
    ask: Callable[[CheckSettings, str, str], Score],
    check: CheckSettings,
    answer: str | None,
    target: str,
) -> Score:
    """Handle missing, empty and too long answers here; pass the others to `ask`."""
    if answer is None or not answer.strip():
        return NO_ANSWER
    if len(answer) > LONGEST or len(target) > LONGEST:
        raise UnknownError(f"longer than {LONGEST:,} characters")
    return ask(check, answer, target)


def _math(check: CheckSettings, answer: str, target: str) -> Score:
    if answer.strip() == target.strip():
        return Score(value=1.0, answer=answer, explanation="same text")
    return _ask("math", check, {"answer": answer, "target": target})


def _json(check: CheckSettings, answer: str, target: str) -> Score:
    return _ask("json", check, {"answer": answer, "target": target, "schema": check.schema})


def _code(check: CheckSettings, answer: str, target: str) -> Score:
    return code_answers.check(answer, target, check.timeout_s, check.memory_mib)


def _ask(verifier: str, check: CheckSettings, request: dict[str, Any]) -> Score:
    reply = _sandbox(verifier, check.timeout_s, check.memory_mib).ask(request)
    if isinstance(reply, dict) and isinstance(reply.get("unknown"), str):
        raise UnknownError(reply["unknown"])
    try:
        score = Score.model_validate(reply, strict=True)
    except ValidationError:
        raise UnknownError(INVALID_REPLY) from None
    if not 0.0 <= score.value <= 1.0:
        raise UnknownError(INVALID_REPLY)
    return score


@cache
def _sandbox(verifier: str, timeout_s: float, memory_mib: int) -> Sandbox:
    """Return this process's sandbox for a verifier. A start takes half a second, so it is kept."""
    sandbox = Sandbox("pipeline.verifiers.sandbox.worker", verifier, timeout_s, memory_mib)
    atexit.register(sandbox.close)
    return sandbox


VERIFIERS: dict[str, Callable[[CheckSettings, str | None, str], Score]] = {
    **{name: partial(_score, name) for name in SCORERS},
    "math": partial(_guard, _math),
    "json": partial(_guard, _json),
    "code": partial(_guard, _code),
}
