"""The decontamination filters that a config turns on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.config import Config, Source
from pipeline.data import seeds
from pipeline.filters.decontamination import contamination
from pipeline.filters.named_filter import NamedFilter


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filter on texts that must stay unseen."""
    settings = config.filter.contamination
    if settings:
        others = [Source(path=path) for path in settings.files]
        measure = contamination.measure(config.task.eval_seeds, others, config.task.seeds)
        judge = partial(contamination.contaminated, near=settings.near)
        yield NamedFilter("contamination", (measure,), judge)


def files(config: Config) -> list[Path]:
    """Return the files of the held-out seeds and of the other texts that must stay unseen."""
    settings = config.filter.contamination
    if not settings:
        return []
    paths = (config.task.eval_seeds.path, *settings.files)
    return [Path(path) for path in paths if path]


def identities(config: Config) -> dict[str, str]:
    """Return what tells the held-out seeds from others of the same name."""
    if not config.filter.contamination:
        return {}
    held_out = seeds.identities(config.task.eval_seeds)
    return {f"held-out {name}": value for name, value in held_out.items()}
