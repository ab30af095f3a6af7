"""Custom filters: a Python function that returns a reason to reject a sample, or None."""

import ast
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.filters.measures import Batch, Measure
from pipeline.filters.verdict import Rejection
from pipeline.records import Sample
from pipeline.storage.files import sha256

REASON = re.compile(r"[a-z][a-z0-9_]*")

Function = Callable[[Sample], str | Rejection | None]


def measure(name: str) -> Measure:
    """Return the measure of function `name` ("my_module:my_filter").

    It is computed again if the function's file changes, or a file beside it that it imports.
    """
    return Measure(verdicts, {"name": name, "content": [sha256(path) for path in files(name)]})


def verdicts(batch: Batch, name: str, content: list[str]) -> list[Rejection | None]:
    """Call the function on each sample.

    `content` is not used here, but as a setting of the measure it changes the name of the cached
    column when the function's file changes.
    """
    function = find(name)
    return [_read(name, sample, _call(name, function, sample)) for sample in batch.samples]


@lru_cache
def find(name: str) -> Function:
    """Import the function "my_module:my_filter". Modules in the working directory are found too.

    Raises PipelineError if there is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise PipelineError(f"filter.custom: '{name}' names no function; write my_module:my_filter")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise PipelineError(
            f"filter.custom: {name}: {error}; the module must be in this folder or installed"
        ) from None
    except Exception as error:  # it is the user's code, and may raise anything
        raise PipelineError(
            f"filter.custom: {name} cannot be imported: {type(error).__name__}: {error}; "
            "fix the module"
        ) from error
    if not callable(function):
        raise PipelineError(
            f"filter.custom: {name} is no function, got {function!r}; name a function"
        )
    typed: Function = function
    return typed


def files(name: str) -> list[Path]:
    """Return the file of the function's module, and the files beside it that it imports."""
    find(name)
    first = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    if first is None:
        raise PipelineError(
            f"filter.custom: {name} has no source file; put it into a module of its own"
        )
    known, waiting = {Path(first)}, [Path(first)]
    while waiting:
        path = waiting.pop()
        beside = {path.with_name(f"{module}.py") for module in _imported(path)}
        new = [other for other in beside - known if other.is_file()]
        waiting += new
        known |= set(new)
    return sorted(known)


def _imported(path: Path) -> Iterator[str]:
    """Yield every part of every imported name: for `from a.b import c`, that is c, a and b.

    Some of these parts are names of modules beside the file.
    """
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names.append(getattr(node, "module", None) or "")
            yield from ".".join(names).split(".")


def _call(name: str, function: Function, sample: Sample) -> Any:
    try:
        return function(sample)
    except Exception as error:  # it is the user's code, and may raise anything
        raise PipelineError(
            f"filter.custom: {name} fails on sample {sample.id}: {type(error).__name__}: {error}; "
            "fix the function"
        ) from error


def _read(name: str, sample: Sample, returned: Any) -> Rejection | None:
    if returned is None:
        return None
    reason, value = returned if _is_pair(returned) else (returned, "")
    if isinstance(reason, str) and REASON.fullmatch(reason) and _is_value(value):
        return reason, value
    raise PipelineError(
        f"filter.custom: {name} returned {returned!r} for sample {sample.id}; "
        "it must return None, a reason such as 'too_rude', or (reason, value)"
    )


def _is_pair(returned: Any) -> bool:
    return isinstance(returned, tuple) and len(returned) == 2


def _is_value(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int)
