"""Which decontamination filters a config turns on."""

from collections.abc import Iterator
from functools import partial

from pipeline.config import Config, Source
from pipeline.filters.decontamination import contamination
from pipeline.filters.measures import NamedFilter


def filters(config: Config) -> Iterator[NamedFilter]:
    """What must stay unseen, before any other reason: ablate draws from what was turned down for those."""
    settings = config.filter
    if settings.contamination:
        others = [Source(path=path) for path in settings.contamination.files]
        how = partial(contamination.contaminated, near=settings.contamination.near)
        yield NamedFilter(
            "contamination", (contamination.measure(config.task.eval_seeds, others),), how
        )
