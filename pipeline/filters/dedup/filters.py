"""Which deduplication filters a config turns on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.filters.best_by import Judge, scored_filter
from pipeline.filters.dedup import duplicates, embeddings
from pipeline.filters.measure_cache import columns_of_run
from pipeline.filters.measures import SAMPLE_IDS, Measure
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.verdict import Verdict
from pipeline.models import resolve
from pipeline.storage.samples import Samples, kept_rows


def filters(config: Config) -> Iterator[NamedFilter]:
    """What is there already: word for word, nearly so, or in other words."""
    settings = config.filter

    def against(judge: Judge, measures: tuple[Measure, ...]) -> Judge:
        def judged(left: NDArray[np.int64], *columns: Any, **how: Any) -> dict[int, Verdict]:
            return judge(
                left,
                *columns,
                **how,
                others=[_other(run, measures, config) for run in settings.against],
            )

        return judged

    if settings.duplicate:
        digests = (Measure(duplicates.digests),)
        yield NamedFilter("duplicate", (SAMPLE_IDS, *digests), against(duplicates.exact, digests))
    if settings.near:
        sets = tuple(
            Measure(duplicates.sets, {"of": of, "size": settings.near.shingle})
            for of in settings.near.of
        )
        near = partial(
            against(duplicates.near, sets),
            threshold=settings.near.threshold,
            scored=settings.near.best_by is not None,
        )
        yield scored_filter("near", (SAMPLE_IDS,), sets, settings.near.best_by, near, config)
    if settings.semantic:
        vectors = tuple(
            embeddings.measure(of, settings.semantic.model, settings.semantic.revision)
            for of in settings.semantic.of
        )
        alike = partial(
            against(duplicates.semantic, vectors),
            threshold=settings.semantic.threshold,
            scored=settings.semantic.best_by is not None,
        )
        yield scored_filter(
            "semantic", (SAMPLE_IDS,), vectors, settings.semantic.best_by, alike, config
        )


def files(config: Config) -> list[Path]:
    """Return the manifests of the other runs whose kept rows are compared with."""
    stages = ("generate", "filter")
    return [Path(run) / name / "manifest.json" for run in config.filter.against for name in stages]


def identities(config: Config) -> dict[str, str]:
    """Return what tells the encoder from others of the same name."""
    encoder = config.filter.semantic
    if not encoder:
        return {}
    return {f"encoder {encoder.model}": resolve.identity(encoder.model, encoder.revision)}


def _other(run: str, measures: tuple[Measure, ...], config: Config) -> duplicates.Other:
    """Another run's kept rows."""
    kept = Path(run) / "filter" / "kept"
    Samples(kept)  # raises PipelineError if the rows are not of what was generated there
    ids, *columns = columns_of_run(Path(run), "generate", (SAMPLE_IDS, *measures), config.filter)
    return duplicates.Other(Path(run).name, kept_rows(kept), ids, tuple(columns))
