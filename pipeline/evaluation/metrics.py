"""Metrics in addition to the task's own, computed from stored answers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.errors import UnknownError
from pipeline.evaluation.bootstrap import Interval, bootstrap, bootstrap_ratio
from pipeline.evaluation.small_samples import UNIT
from pipeline.records import Scored
from pipeline.verifiers import json_answers, targets, verify
from pipeline.verifiers.code_fence import last_block
from pipeline.verifiers.scorers import SCORERS, find_label

Field = tuple[str, str, Any]  # path, type (true is not 1) and value of a leaf of a JSON value


def further(config: Config, answers: Sequence[Scored]) -> dict[str, Interval]:
    """Return the metrics of evaluate.also, and those for JSON tasks, by name.

    They score the answer that the task's own metric found in the reply. An unreadable answer
    counts 0.
    """
    intervals: dict[str, Interval] = {}
    for name in config.evaluate.also:
        if name != config.task.metric:
            intervals[name] = bootstrap([_value(name, answer) for answer in answers], scale=UNIT)
    if config.task.metric == "json":
        intervals |= _json_metrics(config, answers)
    return intervals


def macro_f1(answers: Sequence[Scored], labels: Sequence[str]) -> float:
    """Return the mean over labels of 2 right / (answered + true).

    A label that was neither answered nor true has 0. An unreadable answer counts for no label.
    """
    answered = [find_label(answer.score.answer or "", labels) for answer in answers]
    true = [_true_label(answer, labels) for answer in answers]
    scores = []
    for label in labels:
        right = sum(a == b == label for a, b in zip(answered, true, strict=True))
        either = answered.count(label) + true.count(label)
        scores.append(2 * right / either if either else 0.0)
    return float(np.mean(scores))


def _true_label(answer: Scored, labels: Sequence[str]) -> str | None:
    """Return the accepted label that was answered, or else the first one."""
    accepted = [find_label(text, labels) for text in targets.accepted("label", answer.target or "")]
    given = find_label(answer.score.answer or "", labels)
    return given if given in accepted else accepted[0]


def shared_fields(answer: str | None, target: str) -> tuple[int, int]:
    """Return (2 x shared fields, fields of both): numerator and denominator of an F1.

    A field is a leaf of the JSON value with the keys that lead to it; {} and [] are leaves. Order
    and position in a list are ignored, but equal leaves count as often as they occur. Numbers are
    compared by value. Text that is not JSON has no fields.
    """
    given, wanted = _fields_of(answer), _fields_of(target)
    return 2 * (given & wanted).total(), given.total() + wanted.total()


def _value(name: str, answer: Scored) -> float:
    try:
        accepted = targets.accepted(name, str(answer.target))
        return max(SCORERS[name](answer.score.answer, text, None).value for text in accepted)
    except UnknownError:  # the target has no number
        return 0.0


def _json_metrics(config: Config, answers: Sequence[Scored]) -> dict[str, Interval]:
    """Return the share of answers that fit the schema, and the F1 over all their fields."""
    check = verify.load_check(config.task)
    # compared with itself, an answer is right if it is JSON and fits the schema
    valid = [
        verify.score(check, answer.score.answer, answer.score.answer or "").value
        for answer in answers
    ]
    fields = [shared_fields(answer.score.answer, str(answer.target)) for answer in answers]
    both, either = zip(*fields, strict=True)
    return {
        "json_valid": bootstrap(valid, scale=UNIT),
        "json_field_f1": bootstrap_ratio(both, either),
    }


def _fields_of(text: str | None) -> Counter[Field]:
    if text is None or len(text) > verify.LONGEST:
        return Counter()
    try:
        return Counter(_leaves(json_answers.parse(last_block(text)), ""))
    except (ValueError, RecursionError):
        return Counter()


def _leaves(value: Any, path: str) -> Iterator[Field]:
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        parts = [(f"{path}.{key!r}", part) for key, part in value.items()]
    elif isinstance(value, list):
        parts = [(f"{path}[]", part) for part in value]
    if not parts:
        yield path, type(value).__name__, None if isinstance(value, dict | list) else value
    for below, part in parts:
        yield from _leaves(part, below)
