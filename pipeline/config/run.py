"""The config of a run: all sections in one model."""

from copy import deepcopy
from typing import Any, Self

from pydantic import Field, model_validator

from pipeline.config import retired
from pipeline.config.base import Section, is_runtime, walk
from pipeline.config.evaluate import Evaluate
from pipeline.config.filter import Filter
from pipeline.config.generate import Generate, Score
from pipeline.config.rules import RULES
from pipeline.config.student import Student
from pipeline.config.task import Task
from pipeline.config.teacher import Licences, Teacher
from pipeline.config.train import Train


class Config(Section):
    """A whole run. Paths are relative to the folder in which the command is given."""

    run_dir: str = Field(json_schema_extra={"default": "runs/CONFIG"}, examples=["runs/warm"])
    """Folder of everything that the run writes; CONFIG is the config file's name."""
    task: Task
    licences: Licences = Licences()
    teacher: Teacher
    generate: Generate
    filter: Filter = Filter()
    score: Score = Score()
    student: Student = Student()
    train: Train
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="before")
    @classmethod
    def drop_retired_keys(cls, tree: Any) -> Any:
        """Remove retired keys, so that older run folders load. `load` checks their values."""
        if not isinstance(tree, dict):
            return tree
        copy = deepcopy(tree)
        retired.pop(copy)
        return copy

    @model_validator(mode="after")
    def keeps_rules(self) -> Self:
        for rule in RULES:
            if message := rule(self):
                raise ValueError(message)
        return self

    def settings(self, *paths: str) -> dict[str, Any]:
        """Return the values under `paths`, such as "teacher", that can change a result.

        The result maps dotted keys to values, without runtime settings.
        """
        return {
            key: getattr(section, name)
            for key, section, name in walk(self)
            if any(key == path or key.startswith(path + ".") for path in paths)
            and not is_runtime(section, name)
        }
