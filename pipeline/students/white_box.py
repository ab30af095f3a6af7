"""Which layers of student and teacher an arm compares, and checks from their configs alone."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pipeline.config import Arm, Config
from pipeline.errors import PipelineError
from pipeline.students.checks import meta_model
from pipeline.students.layers import even, layers_of

Pairs = list[tuple[int, int]]  # (student's layer, teacher's layer)
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Plan:
    """The pairs of layers that the terms of an arm compare; no pairs for a term that is off.

    `relation` reads the states after the last layers. `widths` are those of the hidden states of
    student and teacher.
    """

    hidden: Pairs
    attention: Pairs
    relation: Pairs
    widths: tuple[int, int]


def check(config: Config, models: tuple[Any, Any]) -> None:
    """Raise PipelineError for the first white-box arm that does not fit the models.

    `models`: configurations of the student, before it is cut, and of the teacher.
    """
    student = config.student
    whole = models[0].get_text_config().num_hidden_layers
    cut = deepcopy(models[0])
    cut.get_text_config().num_hidden_layers = len(student.keep_layers or ()) or (
        student.layers or whole
    )
    for name, arm in config.train.arms.items():
        if arm.white_box:
            check_modules(arm, name, models)
            plan(arm, name, (cut, models[1]), None)


def plan(arm: Arm, name: str, models: tuple[Any, Any], origin: Sequence[int] | None) -> Plan:
    """Return the layers that an arm compares.

    Args:
        name: that of the arm, for errors.
        models: configurations of the student, as it is trained, and of the teacher.
        origin: for each of the student's layers the teacher's layer that it came from; None if the
            student is not a cut of the teacher.

    Raises PipelineError for a layer that a model does not have.
    """
    student, teacher = (model.get_text_config() for model in models)
    counts = (student.num_hidden_layers, teacher.num_hidden_layers)

    def pairs(term: str, layers: Any) -> Pairs:
        found = _pairs(layers, counts, origin)
        _check(f"train.arms.{name}.{term}.layers", found, counts)
        return found

    return Plan(
        hidden=pairs("hidden", arm.hidden.layers) if arm.hidden else [],
        attention=pairs("attention", arm.attention.layers) if arm.attention else [],
        relation=_pairs("last", counts, None) if arm.relation else [],
        widths=(student.hidden_size, teacher.hidden_size),
    )


def origin(config: Config, kept: Sequence[int] | None, layers: int) -> list[int] | None:
    """Return the teacher's layer of each of the student's, or None for a student of another model.

    kept: the teacher's layers that a cut kept, None without a cut. `layers`: those of the student.
    """
    teacher, student = config.teacher, config.student
    same = (teacher.model, teacher.revision) == (student.model, student.revision)
    if student.model != "teacher" and not same:
        return None
    return list(range(layers)) if kept is None else list(kept)


def check_modules(arm: Arm, name: str, models: tuple[Any, Any]) -> None:
    """Raise PipelineError if the layers of a model, or their projections, are not found.

    `models` are the configurations of student and teacher.
    """
    for model_config in models:
        model = meta_model(model_config)
        layer = layers_of(model, type(model).__name__)[0]
        names = [path.rpartition(".")[2] for path, _ in layer.named_modules()]
        missing = [module for module in ("self_attn", *PROJECTIONS) if module not in names]
        if arm.attention and missing:
            raise PipelineError(
                f"train.arms.{name}.attention: the layers of a {type(model).__name__} have no "
                f"{missing[0]}; leave attention out"
            )


def _pairs(layers: Any, counts: tuple[int, int], origin: Sequence[int] | None) -> Pairs:
    student, teacher = counts
    if layers == "last":
        return [(student - 1, teacher - 1)]
    if layers == "auto" and origin is not None:
        return list(enumerate(origin))
    if layers in ("auto", "even"):
        return list(enumerate(even(teacher, student)))
    return [(first, second) for first, second in layers]


def _check(key: str, pairs: Pairs, counts: tuple[int, int]) -> None:
    for pair in pairs:
        for side, layer, count in zip(("student", "teacher"), pair, counts, strict=True):
            if layer >= count:
                raise PipelineError(
                    f"{key}: {list(pair)} names layer {layer} of the {side}, which has {count}; "
                    f"count from 0 to {count - 1}"
                )
