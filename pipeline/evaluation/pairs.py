"""Tell whether two arms differ only in their method, or also in other training settings."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.results_model import Results

# Settings that every method has, with their defaults. The difference between a kd and an sft arm is
# an effect of the method only if these are equal.
TRAINING = {
    "text": "teacher",
    "limit": None,
    "selection": "kept",
    "share": 1.0,
    "epochs": None,
    "learning_rate": None,
    "form": "whole",
    "rationale_weight": 1.0,
    "corrected": False,
}


def methods_compared(results: Results, train: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return, for each kd - sft difference, the settings other than the method that differ.

    If the list is empty, the difference shows the effect of the method. `train` is the section
    `train` of the run's config.
    """
    pairs = {}
    for name in results.differences:
        if results.methods(name) != ("kd", "sft"):
            continue
        first, second = (_settings(results, train, side) for side in name.split(" - "))
        pairs[name] = [key for key in TRAINING if first[key] != second[key]]
    return pairs


def _settings(results: Results, train: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the TRAINING settings of an arm, or of the first of a group of repeats."""
    arm = results.repeats[name].arms[0] if name in results.repeats else name
    given = train.get("arms", {}).get(arm) or {}
    settings = {key: given.get(key, default) for key, default in TRAINING.items()}
    for key in ("epochs", "learning_rate"):
        if settings[key] is None:
            settings[key] = train.get(key)
    return settings
