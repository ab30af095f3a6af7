"""The privacy filters that a config turns on."""

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.privacy import scan


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters for personal data and for secrets, if the config turns them on."""
    pii, secrets = config.filter.pii, config.filter.secrets
    if pii:
        settings = pii.model_dump(include={"kinds", "regions", "inputs"})
        yield NamedFilter.by_measure("pii", scan.pii, **settings)
    if secrets:
        yield NamedFilter.by_measure("secrets", scan.secrets, inputs=secrets.inputs)
