"""Filters of one's own: a Python function that looks at a sample and says why not, or None."""

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
    """What the function `name` ("my_module:my_filter") says; another measure when its file, or one beside it that it uses, has changed."""
    return Measure(said, {"name": name, "content": [sha256(path) for path in files(name)]})


def said(batch: Batch, name: str, content: list[str]) -> list[Rejection | None]:
    """The function's words on every sample: a reason, or a reason and a value, or None to keep it."""
    function = find(name)
    return [_read(name, sample, _ask(name, function, sample)) for sample in batch.samples]


@lru_cache
def find(name: str) -> Function:
    """The function behind "my_module:my_filter", looked for in the folder of the command, too. Raises PipelineError if there is none."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise PipelineError(f"filter.custom: '{name}' names no function; write my_module:my_filter")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise PipelineError(
            f"filter.custom: {name}: {error}; the module must lie in this folder or be installed"
        ) from None
    except Exception as error:  # it is the user's code, and may raise anything
        raise PipelineError(
            f"filter.custom: {name} cannot be imported: {type(error).__name__}: {error}; mend it there"
        ) from error
    if not callable(found):
        raise PipelineError(f"filter.custom: {name} is no function but {found!r}")
    function: Function = found
    return function


def files(name: str) -> list[Path]:
    """The files whose content decides what the function says: that of its module, and those in the same folder that it uses."""
    find(name)
    first = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    if first is None:
        raise PipelineError(
            f"filter.custom: {name} has no source file; put it into a module of its own"
        )
    found, open_ = {Path(first)}, [Path(first)]
    while open_:
        path = open_.pop()
        beside = {path.with_name(f"{module}.py") for module in _imported(path)}
        open_ += [other for other in beside - found if other.is_file()]
        found |= set(open_)
    return sorted(found)


def _imported(path: Path) -> Iterator[str]:
    """Every part of a name that a Python file imports: whichever of them is a module."""
    nodes = ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else ()
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (part for name in names for part in name.split("."))


def _ask(name: str, function: Function, sample: Sample) -> Any:
    try:
        return function(sample)
    except Exception as error:  # it is the user's code, and may raise anything
        raise PipelineError(
            f"filter.custom: {name} fails on sample {sample.id}: {type(error).__name__}: {error}; mend it there"
        ) from error


def _read(name: str, sample: Sample, words: Any) -> Rejection | None:
    if words is None:
        return None
    reason, value = words if isinstance(words, tuple) and len(words) == 2 else (words, "")
    told = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if not isinstance(reason, str) or not REASON.fullmatch(reason) or not told:
        raise PipelineError(
            f"filter.custom: {name} says {words!r} of sample {sample.id}; "
            "it must return None, a reason such as 'too_rude', or (reason, value)"
        )
    return reason, value
