"""Keys of older configs and run folders that were removed, because nobody changed them.

A config may still set a retired key to its former default. A run that was started with the former
default continues.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Retired:
    """A removed key: its former default, and what to do instead of setting it."""

    default: Any
    advice: str


def _constant(default: Any, place: str) -> Retired:
    return Retired(default, f"it is always {json.dumps(default)} now ({place})")


def _revision(key: str) -> Retired:
    return Retired(None, f"write {key}: ID@REVISION")


RETIRED: Mapping[str, Retired] = {
    "task.verifier.memory_mib": _constant(1024, "MEMORY_MIB in verifiers/verify.py"),
    "filter.language.min_letters": _constant(20, "MIN_LETTERS in filters/heuristics/language.py"),
    "filter.language.least": _constant(0.02, "MIN_SHARE in filters/heuristics/language.py"),
    "filter.repetition.loop": _constant(12, "MAX_LOOP in filters/heuristics/repetition.py"),
    "filter.repetition.run": _constant(24, "MAX_RUN in filters/heuristics/repetition.py"),
    "filter.near.shingle": _constant(3, "SHINGLE_WORDS in filters/dedup/duplicates.py"),
    "filter.semantic.revision": _revision("filter.semantic.model"),
    "filter.diversity.revision": _revision("filter.diversity.model"),
    "evaluate.fidelity.batch_size": _constant(16, "BATCH_SIZE in evaluation/teacher_forcing.py"),
    "evaluate.memorisation.alternatives": _constant(255, "ALTERNATIVES in training/canaries.py"),
    "evaluate.memorisation.seed": _constant(0, "DRAW_SEED in stages/memorisation.py"),
}


def pop(tree: dict[str, Any]) -> dict[str, Any]:
    """Remove the retired keys from a tree of sections, in place; return them with their values."""
    removed: dict[str, Any] = {}
    for key in RETIRED:
        *sections, name = key.split(".")
        section: Any = tree
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and name in section:
            removed[key] = section.pop(name)
    return removed


def problem(key: str, value: Any) -> str | None:
    """Return what is wrong with a retired key that has this value; None at its former default."""
    retired = RETIRED[key]
    if value == retired.default:
        return None
    return f"this key is gone; {retired.advice}"
