"""Filters: each looks at all samples and gives each a verdict, or None to keep it.

They run in the order of `active`; a sample is turned down by the first that objects, and later ones do not see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config import Filter, Task
from pipeline.filters import correctness, duplicates, form
from pipeline.filters.verdict import Verdict
from pipeline.prompts import Prompt
from pipeline.records import Sample

FilterFunction = Callable[[Sequence[Sample]], list[Verdict | None]]


@dataclass(frozen=True)
class NamedFilter:
    name: str
    apply: FilterFunction


def active(settings: Filter, task: Task, asked: Sequence[Prompt]) -> list[NamedFilter]:
    """The filters that the config turns on, in the order in which they run. `asked` are the prompts, by number."""
    lengths = settings.min_tokens > 0 or settings.max_tokens is not None
    reasoned = [prompt.wants_rationale for prompt in asked]
    table: list[tuple[str, bool, FilterFunction]] = [
        ("finished", settings.finished, form.finished),
        ("length", lengths, lambda samples: form.length(samples, settings.min_tokens, settings.max_tokens)),
        ("refusal", settings.refusal, form.refusal),
        ("parseable", settings.parseable, lambda samples: form.parseable(samples, reasoned, task.metric, task.labels)),
        ("correct", settings.correct, lambda samples: correctness.correct(samples, task.metric, task.labels)),
        ("duplicate", settings.duplicate, duplicates.duplicate),
    ]
    return [NamedFilter(name, function) for name, on, function in table if on]
