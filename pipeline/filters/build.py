"""The filters that a config turns on, in the order in which they run.

Cheap filters come first. Filters that choose among good rows come last. Decontamination precedes
all others, because an arm with selection: random also trains on samples that later filters
rejected.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.filters.confidence import filters as confidence
from pipeline.filters.correctness import filters as correctness
from pipeline.filters.decontamination import filters as decontamination
from pipeline.filters.dedup import filters as dedup
from pipeline.filters.heuristics import filters as heuristics
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.privacy import filters as privacy
from pipeline.filters.selection import filters as selection
from pipeline.records import Seed

ORDER = (
    decontamination.filters,
    heuristics.filters,
    correctness.filters,
    confidence.filters,
    privacy.filters,
    dedup.filters,
    correctness.judge_filters,
    selection.filters,
)
FILES = (heuristics.files, correctness.files, decontamination.files, dedup.files, selection.files)
IDENTITIES = (
    decontamination.identities,
    correctness.identities,
    confidence.identities,
    dedup.identities,
    selection.identities,
)
CHECKS = (correctness.check, confidence.check, heuristics.check)

# For each note that a filter's `after` may return: a function that describes it in one line.
NOTES: Mapping[str, Callable[[Mapping[str, Any]], str]] = confidence.NOTES | correctness.NOTES


def active(config: Config) -> list[NamedFilter]:
    """Return the filters of a run whose generate stage is finished."""
    return [filter_ for family in ORDER for filter_ in family(config)]


def check(config: Config, seeds: Sequence[Seed]) -> list[str]:
    """Return the filters' names. Raises PipelineError for a filter that cannot run."""
    names = [filter_.name for filter_ in active(config)]
    for check_family in CHECKS:
        check_family(config, seeds)
    missing = [path for path in files(config) if not path.is_file()]
    if missing:
        raise PipelineError(
            f"{missing[0]}: no such file, but a filter of the config needs it; "
            "correct the path, or finish that stage if it belongs to another run"
        )
    return names


def files(config: Config) -> list[Path]:
    """Return the outside files whose content can change a verdict."""
    return [path for family in FILES for path in family(config)]


def identities(config: Config) -> dict[str, str]:
    """Return identities of everything that filters load by name, such as the judge's model.

    An identity changes when the content behind a name does.
    """
    merged: dict[str, str] = {}
    for family in IDENTITIES:
        merged |= family(config)
    return merged
