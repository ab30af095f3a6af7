"""Metrics beside the task's own, from stored answers alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Interval, bootstrap, bootstrap_ratio
from pipeline.records import Scored
from pipeline.verifiers import json_answers, verify
from pipeline.verifiers.code_fence import unfenced
from pipeline.verifiers.scorers import SCORERS, normalise

Field = tuple[
    str, str, Any
]  # of a leaf of a JSON value its path, its type (true is not 1) and itself


def further(config: Config, answers: Sequence[Scored]) -> dict[str, Interval]:
    """The metrics of evaluate.also, and those of the kind of task, by name. They see the answer as the task's own metric read it; one that
    could not be read counts 0."""
    found = {
        name: bootstrap([_value(name, answer) for answer in answers])
        for name in config.evaluate.also
        if name != config.task.metric
    }
    return found | (_of_json(config, answers) if config.task.metric == "json" else {})


def macro_f1(answers: Sequence[Scored], labels: Sequence[str]) -> float:
    """The mean over labels of 2 right / (said + meant), 0 for one that is neither; unreadable answers are said to be none."""
    said = [normalise(answer.score.answer or "") for answer in answers]
    meant = [normalise(answer.target or "") for answer in answers]
    found = []
    for label in map(normalise, labels):
        right = sum(a == b == label for a, b in zip(said, meant, strict=True))
        either = said.count(label) + meant.count(label)
        found.append(2 * right / either if either else 0.0)
    return float(np.mean(found))


def shared_fields(answer: str | None, target: str) -> tuple[int, int]:
    """(2 x the fields that both have, the fields of either counted together): the two parts of an F1 to be summed over answers.

    A field is a leaf of the JSON value with the keys on the way to it. The order of a list does not count, nor where in it a leaf stands;
    leaves are counted as often as they stand there. Numbers are compared by value, and {} and [] are leaves. What is no JSON has none.
    """
    given, wanted = _fields_of(answer), _fields_of(target)
    return 2 * (given & wanted).total(), given.total() + wanted.total()


def _value(name: str, answer: Scored) -> float:
    return SCORERS[name](answer.score.answer, str(answer.target), None).value


def _of_json(config: Config, answers: Sequence[Scored]) -> dict[str, Interval]:
    """Validity: the share of answers that are JSON and fit the schema, if any. Field F1: over the fields of all answers together."""
    how = verify.load_check(config.task)
    # held against itself, an answer is right if it can be read and fits
    valid = [
        verify.score(how, answer.score.answer, answer.score.answer or "").value
        for answer in answers
    ]
    fields = [shared_fields(answer.score.answer, str(answer.target)) for answer in answers]
    both, either = zip(*fields, strict=True)
    return {"json_valid": bootstrap(valid), "json_field_f1": bootstrap_ratio(both, either)}


def _fields_of(text: str | None) -> Counter[Field]:
    if text is None or len(text) > verify.LONGEST:
        return Counter()
    try:
        return Counter(_leaves(json_answers.parse(unfenced(text)), ""))
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
