"""The config of a run: its sections, the rules that span them, and the keys that are retired."""

from copy import deepcopy
from typing import Any, Self

from pydantic import model_validator

from pipeline.config import retired
from pipeline.config.base import is_runtime, walk
from pipeline.config.rules import RULES
from pipeline.config.sections import Sections


class Config(Sections):
    """A whole run. Paths are relative to the folder in which the command is given."""

    @model_validator(mode="before")
    @classmethod
    def drop_retired_keys(cls, tree: Any) -> Any:
        """Remove retired keys, so that older run folders can still be read.

        `loading.load` checks the values of these keys.
        """
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
