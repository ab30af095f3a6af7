"""Format figures for the terminal and the report."""

from collections.abc import Mapping

from pipeline.execution.paths import BASE


def label(name: str) -> str:
    return "base (untouched)" if name == BASE else name


def shown(interval: Mapping[str, float]) -> str:
    """0.920 [0.890, 0.950]"""
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def signed(interval: Mapping[str, float]) -> str:
    """-0.017 [-0.043, +0.007]"""
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def probability(p: float) -> str:
    """p 0.031, p < 0.001"""
    return f"p {p:.3f}" if p >= 0.001 else "p < 0.001"
