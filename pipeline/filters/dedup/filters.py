"""The deduplication filters that a config turns on."""

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
from pipeline.storage.samples import Samples, kept_rows


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters on exact, near and semantic duplicates."""
    settings = config.filter
    if settings.duplicate:
        digests = (Measure(duplicates.content_digests),)
        exact = _with_other_runs(duplicates.reject_exact, digests, config)
        yield NamedFilter("duplicate", (SAMPLE_IDS, *digests), exact)
    if settings.near:
        sets = tuple(
            Measure(duplicates.shingle_sets, {"part": part, "size": duplicates.SHINGLE_WORDS})
            for part in settings.near.of
        )
        best_by = settings.near.best_by
        near = partial(
            _with_other_runs(duplicates.reject_near, sets, config),
            threshold=settings.near.threshold,
            scored=best_by is not None,
        )
        yield scored_filter("near", (SAMPLE_IDS,), sets, best_by, near, config)
    if settings.semantic:
        encoder = settings.semantic
        vectors = tuple(embeddings.measure(part, encoder.model) for part in encoder.of)
        semantic = partial(
            _with_other_runs(duplicates.reject_semantic, vectors, config),
            threshold=encoder.threshold,
            scored=encoder.best_by is not None,
        )
        yield scored_filter("semantic", (SAMPLE_IDS,), vectors, encoder.best_by, semantic, config)


def files(config: Config) -> list[Path]:
    """Return the manifests of the other runs that `filter.against` names."""
    stages = ("generate", "filter")
    return [Path(run) / name / "manifest.json" for run in config.filter.against for name in stages]


def identities(config: Config) -> dict[str, str]:
    """Return an identity of the encoder, which changes when its files do."""
    semantic = config.filter.semantic
    return embeddings.identities(semantic.model) if semantic else {}


def _with_other_runs(judge: Judge, measures: tuple[Measure, ...], config: Config) -> Judge:
    """Return a judge that also compares rows with the kept rows of `filter.against`."""

    def judge_with_others(
        rows: NDArray[np.int64], *columns: Any, **options: Any
    ) -> dict[int, Verdict]:
        others = [_kept_rows_of(run, measures, config) for run in config.filter.against]
        return judge(rows, *columns, **options, others=others)

    return judge_with_others


def _kept_rows_of(run: str, measures: tuple[Measure, ...], config: Config) -> duplicates.OtherRun:
    kept = Path(run) / "filter" / "kept"
    Samples(kept)  # raises PipelineError if its samples were generated anew since
    ids, *columns = columns_of_run(Path(run), "generate", (SAMPLE_IDS, *measures), config.filter)
    return duplicates.OtherRun(Path(run).name, kept_rows(kept), ids, tuple(columns))
