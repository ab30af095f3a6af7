"""Read the ground truth of an example, by the metric of the task: several answers may be right."""

import ast
import json
from collections.abc import Sequence

from pipeline.errors import UnknownError
from pipeline.verifiers.code_fence import unfenced


def accepted(metric: str, target: str) -> Sequence[str]:
    """Return the answers that a ground truth accepts.

    A JSON list of texts accepts each of them, for `numeric` also one of numbers. For `json` a list
    is one value, and for `code` it holds tests that must all pass.
    """
    if metric == "json" or not target.lstrip().startswith("["):
        return (target,)
    try:
        items = json.loads(target)
    except (ValueError, RecursionError):
        return (target,)
    kinds = str | int | float if metric == "numeric" else str
    if not items or not all(isinstance(item, kinds) for item in items):
        return (target,)
    if metric == "code":
        return ("\n".join(items),)
    return [str(item) for item in items]


def check_program_tests(target: str) -> None:
    """Raise UnknownError if the tests of a program cannot be compiled, without running them."""
    tests = unfenced(target)
    try:
        compile(tests, "tests", "exec", dont_inherit=True)
        empty = not ast.parse(tests).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise UnknownError(f"the tests are not Python: {error}") from None
    if empty:
        raise UnknownError("the target holds no test")
