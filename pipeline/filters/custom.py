"""Filters of one's own: a Python function that looks at a sample and says why not, or None."""

import importlib
import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.filters.columns import Batch, Measure
from pipeline.filters.verdict import Objection
from pipeline.records import Sample
from pipeline.store import sha256

REASON = re.compile(r"[a-z][a-z0-9_]*")

Function = Callable[[Sample], str | Objection | None]


def measure(name: str) -> Measure:
    """What the function `name` ("my_module:my_filter") says. It is asked again when its file has changed."""
    return Measure(said, {"name": name, "content": sha256(source(name))})


def said(batch: Batch, name: str, content: str) -> list[Objection | None]:
    """The function's words on every sample: a reason, or a reason and a value, or None to keep it."""
    function = find(name)
    return [_read(name, sample, _ask(name, function, sample)) for sample in batch.samples]


@lru_cache
def find(name: str) -> Function:
    """The function behind "my_module:my_filter", looked for in the folder of the command, too. Raises PipelineError if there is none."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise PipelineError(f"filter.custom: '{name}' names no function; write my_module:my_filter")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PipelineError(f"filter.custom: {name}: {error}; the module must lie in this folder or be installed") from None
    if not callable(found):
        raise PipelineError(f"filter.custom: {name} is no function but {found!r}")
    function: Function = found
    return function


def source(name: str) -> Path:
    """The file whose content decides what the function says."""
    function: Any = find(name)
    while isinstance(function, partial):
        function = function.func
    file = getattr(sys.modules[function.__module__], "__file__", None)
    if file is None:
        raise PipelineError(f"filter.custom: {name} has no source file; put it into a module of its own")
    return Path(file)


def _ask(name: str, function: Function, sample: Sample) -> Any:
    try:
        return function(sample)
    except Exception as error:  # it is the user's code, and may raise anything
        raise PipelineError(f"filter.custom: {name} fails on sample {sample.id}: {type(error).__name__}: {error}; mend it there") from error


def _read(name: str, sample: Sample, words: Any) -> Objection | None:
    if words is None:
        return None
    reason, value = words if isinstance(words, tuple) and len(words) == 2 else (words, "")
    if not isinstance(reason, str) or not REASON.fullmatch(reason) or not isinstance(value, (str, int, float)):
        raise PipelineError(
            f"filter.custom: {name} says {words!r} of sample {sample.id}; "
            "it must return None, a reason such as 'too_rude', or (reason, value)"
        )
    return reason, value
