"""Staged synthetic-data distillation for task-specific LLM students."""

__version__ = "0.1.0"
