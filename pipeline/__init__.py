"""Staged synthetic-data distillation for task-specific LLM students."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Give `Captured`, a finished run as a map-style dataset, without importing it at start."""
    if name != "Captured":
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from pipeline.storage.samples import Captured

    return Captured
