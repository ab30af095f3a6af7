"""Read YAML as people mean it: version 1.2 for numbers, no key twice, nothing without bounds."""

import math
import re
from collections.abc import Hashable
from typing import Any

import yaml

MOST_VALUES = 100_000  # of a file, with every alias written out
DEEPEST = 50  # sections in each other
LARGEST = 2**63
MERGE = "tag:yaml.org,2002:merge"  # <<
SAFE_TEXT = re.compile("[\0\ud800-\udfff]")  # no path and no UTF-8 can hold these


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except for numbers: 010 is ten, 1:30 a text, 1e-5 a number."""

    # PyYAML keeps the table in the class; without its own, all loaders of the process would change
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":int", ":float"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping. Raises ConstructorError, with the line, for a key given twice."""
        seen = set()
        for name, _ in node.value:
            if name.tag == MERGE or not isinstance(name, yaml.ScalarNode):
                continue
            key = self.construct_object(name)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice; remove one", name.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """Read a whole number: leading zeros do not make it octal, as 0o does."""
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        is_prefixed = text.lstrip("+-")[:2] in ("0x", "0o", "0b")
        value = int(text, 0 if is_prefixed else 10)
        if abs(value) >= LARGEST:
            raise yaml.constructor.ConstructorError(
                None, None, f"the number {text[:40]} is too large", node.start_mark
            )
        return value


for tag, pattern in (
    ("int", r"[-+]?(?:\d[\d_]*|0x[\da-fA-F_]+|0o[0-7_]+|0b[01_]+)"),
    (
        "float",
        r"[-+]?(?:(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d+)(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF))|\.nan",
    ),
):
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list("-+0123456789.")
    )
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def parse(text: str) -> Any:
    """Return the value that YAML text holds. Raises ValueError, in one line, for a text that is not
    YAML, that gives a key twice, or whose values are too many, too deep, infinite or unusable."""
    try:
        value = yaml.load(text, Loader)
        _count(value, {}, 0)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(f"sections are in each other more than {DEEPEST} deep") from None
    return value


def _count(value: Any, counted: dict[int, int], depth: int) -> int:
    """Return how many values there are with aliases written out. Raises ValueError if a value is
    not usable. `counted` remembers what an alias points to."""
    if depth > DEEPEST:
        raise ValueError(f"sections are in each other more than {DEEPEST} deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number that a setting could have; give a finite one")
    if isinstance(value, str) and SAFE_TEXT.search(value):
        raise ValueError(f"the text {value[:40]!r} has a character that no file may have")
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counted:
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(part, counted, depth + 1) for part in parts)
    if counted[id(value)] > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values, with every alias written out")
    return counted[id(value)]
