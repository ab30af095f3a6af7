"""Keys that the run folders of older versions do not have, with the value that changes nothing.

A run that was started before a key existed continues as long as the key has this value.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

ADDED: Mapping[str, Any] = {  # by dotted key; * stands for the name of an arm
    "student.heal": None,
    "train.arms.*.hidden": None,
    "train.arms.*.attention": None,
    "train.arms.*.relation": None,
}


def is_neutral(key: str, value: str) -> bool:
    """Return whether a setting, whose value is JSON, is as if its key did not exist."""
    return any(
        fnmatchcase(key, pattern) and value == json.dumps(neutral)
        for pattern, neutral in ADDED.items()
    )
