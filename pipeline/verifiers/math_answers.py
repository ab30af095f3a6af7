"""Equality of expressions, by math-verify. Runs in the sandbox only: sympy evaluates what it reads, however large."""

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

SHOWN = 80
MARKED = re.compile(r"\\boxed|\\\(|\\\[|\$.*\$", re.DOTALL)
FORMULA = re.compile(r"[\\^_{}*!=]")
WORD = re.compile(r"[A-Za-z]{2,}")
NAMES = re.compile(r"(?<![\\A-Za-z])(?:sqrt|sin|cos|tan|log|ln|exp|pi|infty)(?![A-Za-z])")
POWER = re.compile(r"\*\*\s*(-?\w+)")  # Python's


def judge(request: Mapping[str, Any]) -> dict[str, Any]:
    """{"answer", "target"} to {"value", "answer", "explanation"}, or {"unknown"}. 1 if both are the same number, expression, set, …"""
    logging.disable()  # of time-outs that are turned off
    answer, target = request["answer"], request["target"]
    wanted, given = read(target), read(answer)
    if not wanted:
        return {"unknown": f"no expression in the target: {target[:SHOWN]}"}
    if not given:
        return {"value": 0.0, "explanation": f"no expression in the answer: {answer[:SHOWN]}"}
    try:
        right = verify(wanted, given, timeout_seconds=None, raise_on_error=True)
    except Exception as error:  # sympy raises of every kind; it says nothing about the answer
        return {"unknown": f"cannot be compared: {type(error).__name__}"}
    return {
        "value": float(right),
        "answer": answer,
        "explanation": "equal" if right else f"is {target[:SHOWN]}",
    }


@lru_cache(maxsize=64)
def read(text: str) -> list[Any]:
    """What math-verify makes of a text: LaTeX, a formula as Python writes it, or the number among plain words. Empty if nothing.

    Its own fall-backs are off: they take the last number of a formula that they cannot read for the whole. LaTeX is not tried on words,
    which it takes for products of letters.
    """
    if MARKED.search(text):
        return _latex(text)
    plain = POWER.sub(r"^{\1}", text.strip().rstrip(".").lstrip("$"))
    if not FORMULA.search(plain) and WORD.search(NAMES.sub("", plain)):
        return parse(
            plain, [ExprExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )
    return _latex(f"${NAMES.sub(_command, plain)}$")


def _latex(text: str) -> list[Any]:
    return parse(text, [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)


def _command(name: re.Match[str]) -> str:
    return rf"\{name.group()} " if name.group() in ("pi", "infty") else name.group()
