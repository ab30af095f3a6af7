from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Why a sample is turned down: a snake_case reason, and the value that decided."""

    reason: str
    value: str | float | int
