"""Compare mathematical expressions, by math-verify.

Runs only in the sandbox, since sympy evaluates what it reads, however large.
"""

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import (
    And,
    Expr,
    FiniteSet,
    Float,
    GreaterThan,
    LessThan,
    N,
    Or,
    Rational,
    StrictGreaterThan,
    StrictLessThan,
    Tuple,
)

from pipeline.verifiers import numbers

SHOWN = 80
MARKED = re.compile(r"\\boxed|\\\(|\\\[|\$.*\$", re.DOTALL)
FORMULA = re.compile(r"[\\^_{}*!=]")
WORD = re.compile(r"[A-Za-z]{2,}")
NAMES = re.compile(r"(?<![\\A-Za-z])(?:sqrt|sin|cos|tan|log|ln|exp|pi|infty)(?![A-Za-z])")
ROMAN = re.compile(r"\\(?:mathrm|text|operatorname)\s*\{\s*([eid])\s*\}")
MARKDOWN = (
    re.compile(r"(?<![\w*)\]}])\*\*(?=[^\s*])([^*\n]+)(?<=\S)\*\*(?![\w*(])"),
    re.compile(r"(?<![\w*)\]}])\*(?=[^\s*])([^*\n]+)(?<=\S)\*(?![\w*(])"),
    re.compile(r"(?<![\w*)\]}])__(?=\S)([^_\n]+)__(?!\w)"),
    re.compile(r"(?<=\S)\*\*+()\s*$"),
    re.compile(r"^\s*(?:#{1,6}\s|\*\*+(?=[\s\w]))()"),
)
SIMPLE = re.compile(r"[-+]?[\d\s.,:/'e+x*^{}-]+(?:[ap]m)?", re.IGNORECASE)
# between two numbers that are given together: "and", a comma, or a unit
JOINT = re.compile(r"\s*(?:(?:,|;|&|\band\b|\bor\b|\bto\b|[a-z]{1,12}\.?)\s*){1,3}\$?", re.I)
LIST = re.compile(r"\d\s*(?:,|;|&|,?\s*\b(?:and|or|to)\b)\s*\$?\d", re.IGNORECASE)
RELATIONS = {"<=": r"\le ", ">=": r"\ge ", "\u2264": r"\le ", "\u2265": r"\ge "}
TOLERANCE, EXACT = 1e-5, 1e-20  # relative; with decimals, and without
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
        right = any(_equal(a, b) for a in expected for b in given)
    except Exception as error:  # sympy raises any kind of error; it says nothing about the answer
        return {"unknown": f"cannot be compared: {type(error).__name__}"}
    explanation = "equal" if right else f"is {target[:SHOWN]}"
    return {"value": float(right), "answer": answer, "explanation": explanation}


def _equal(expected: Any, given: Any) -> bool:
    """Compare two readings. Small differences must not vanish in math-verify's rounding."""
    if isinstance(expected, str) or isinstance(given, str):  # times and dates
        return bool(expected == given)
    pairs = [(expected, given)]
    if _is_relation(expected) != _is_relation(given):  # 0 < x < 2 and (0, 2)
        pairs = [(_as_set(expected), _as_set(given))]
    for a, b in pairs:
        if not verify([a], [b], timeout_seconds=None, raise_on_error=True):
            return False
    return _is_close(expected, given)


def _is_relation(value: Any) -> bool:
    return isinstance(value, And | Or | StrictLessThan | LessThan | StrictGreaterThan | GreaterThan)


def _as_set(value: Any) -> Any:
    return value.as_set() if _is_relation(value) and len(value.free_symbols) == 1 else value


def _is_close(expected: Any, given: Any) -> bool:
    """Return False for two numbers whose difference counts, relative to their size."""
    if not (isinstance(expected, Expr) and isinstance(given, Expr)):
        return True
    if not (expected.is_number and given.is_number):
        return True
    difference = expected - given
    if difference.is_Rational:
        return bool(difference == 0) or _has_float(expected, given)
    size = max(abs(N(expected, 30)), abs(N(given, 30)))
    tolerance = TOLERANCE if _has_float(expected, given) else EXACT
    return bool(size == 0 or abs(N(difference, 30)) <= tolerance * size)


def _has_float(*values: Any) -> bool:
    return any(value.has(Float) for value in values)


@lru_cache(maxsize=64)
def read(text: str) -> list[Any]:
    """Parse LaTeX, a formula in Python's notation, or the number among plain words.

    Returns an empty list if there is none; several readings where a text has them, such as 0,75 and
    the set of 0 and 75. math-verify's own fall-backs are off: for a formula that they cannot read
    they return its last number. LaTeX is not tried on words, which it would read as products of
    letters.
    """
    text = _without_markdown(text)
    text = ROMAN.sub(r"\1", text)
    if MARKED.search(text):
        return _parse(text, LatexExtractionConfig())
    plain = POWER.sub(r"^{\1}", text.strip().rstrip(".").lstrip("$"))
    if not FORMULA.search(plain) and WORD.search(NAMES.sub("", plain)):
        return _among_words(plain)
    for symbol, command in RELATIONS.items():
        plain = plain.replace(symbol, command)
    parsed = _parse(f"${NAMES.sub(_command, plain)}$", LatexExtractionConfig())
    number = numbers.last_number(plain) if SIMPLE.fullmatch(plain) else None
    if number is None or number.text.strip() != plain.strip():
        return parsed
    if number.written is not None:
        return [number.written]
    own = [_sympy(number)]
    return [*own, *parsed] if "," in plain else own


def _sympy(number: numbers.Number) -> Any:
    assert number.value is not None
    exact = Rational(number.value.numerator, number.value.denominator)
    return exact if "." not in number.text and "," not in number.text else Float(exact, 30)


def _without_markdown(text: str) -> str:
    for pattern in MARKDOWN:
        text = pattern.sub(r"\1", text)
    return text.replace("`", "")


def _among_words(text: str) -> list[Any]:
    """Return the number among words; of several joined by "and", commas or units, all of them."""
    found = numbers.find_numbers(text)
    if not found or not found[-1].is_readable:
        return []
    if found[-1].written is not None:
        return [found[-1].written]
    joined = [found[-1]]
    rest = text[: text.rfind(found[-1].text)]
    for number in reversed(found[:-1]):
        begin = rest.rfind(number.text)
        if begin < 0 or not number.is_readable or number.written is not None:
            break
        if not JOINT.fullmatch(rest[begin + len(number.text) :]):
            break
        joined.insert(0, number)
        rest = rest[:begin]
    if len(joined) == 1:
        return _parse(found[-1].text, ExprExtractionConfig()) or [_sympy(found[-1])]
    values = [_sympy(number) for number in joined]
    if LIST.search(text):
        return [FiniteSet(*values)]
    return [Tuple(*values)]


def _parse(text: str, target: Any) -> list[Any]:
    return parse(text, [target], fallback_mode="no_fallback", parsing_timeout=None)


def _command(name: re.Match[str]) -> str:
    return rf"\{name.group()} " if name.group() in ("pi", "infty") else name.group()
