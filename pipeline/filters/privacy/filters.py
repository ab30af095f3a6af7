"""Which privacy filters a config turns on."""

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.filters.measures import Measure
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.privacy import scan
from pipeline.filters.verdict import reject_as_measured


def filters(config: Config) -> Iterator[NamedFilter]:
    """What a student must not learn by heart."""
    settings = config.filter
    if settings.pii:
        told = {
            "kinds": settings.pii.kinds,
            "regions": settings.pii.regions,
            "inputs": settings.pii.inputs,
        }
        yield NamedFilter("pii", (Measure(scan.pii, told),), reject_as_measured)
    if settings.secrets:
        yield NamedFilter(
            "secrets",
            (Measure(scan.secrets, {"inputs": settings.secrets.inputs}),),
            reject_as_measured,
        )
