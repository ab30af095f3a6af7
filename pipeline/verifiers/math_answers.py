"""Compare mathematical expressions, by math-verify.

Runs only in the sandbox, since sympy evaluates what it reads, however large.
"""

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
POWER = re.compile(r"\*\*\s*(-?\w+)")  # as Python writes it


def compare(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compare {"answer", "target"}: {"value", "answer", "explanation"}, or {"unknown"}.

    The value is 1 if both are the same number, expression or set.
    """
    logging.disable()  # math-verify warns of each time-out that is turned off
    answer, target = request["answer"], request["target"]
    expected, given = read(target), read(answer)
    if not expected:
        return {"unknown": f"no expression in the target: {target[:SHOWN]}"}
    if not given:
        return {"value": 0.0, "explanation": f"no expression in the answer: {answer[:SHOWN]}"}
    try:
        right = verify(expected, given, timeout_seconds=None, raise_on_error=True)
    except Exception as error:  # sympy raises any kind of error; it says nothing about the answer
        return {"unknown": f"cannot be compared: {type(error).__name__}"}
    explanation = "equal" if right else f"is {target[:SHOWN]}"
    return {"value": float(right), "answer": answer, "explanation": explanation}


@lru_cache(maxsize=64)
def read(text: str) -> list[Any]:
    """Parse LaTeX, a formula in Python's notation, or the number among plain words.

    Returns an empty list if there is none. math-verify's own fall-backs are off: for a formula that
    they cannot read they return its last number. LaTeX is not tried on words, which it would read
    as products of letters.
    """
    if MARKED.search(text):
        return _parse(text, LatexExtractionConfig())
    plain = POWER.sub(r"^{\1}", text.strip().rstrip(".").lstrip("$"))
    if not FORMULA.search(plain) and WORD.search(NAMES.sub("", plain)):
        return _parse(plain, ExprExtractionConfig())
    return _parse(f"${NAMES.sub(_command, plain)}$", LatexExtractionConfig())


def _parse(text: str, target: Any) -> list[Any]:
    return parse(text, [target], fallback_mode="no_fallback", parsing_timeout=None)


def _command(name: re.Match[str]) -> str:
    return rf"\{name.group()} " if name.group() in ("pi", "infty") else name.group()
