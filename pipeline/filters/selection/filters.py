"""Which selection filters a config turns on."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.config.filter import Budget, Difficulty
from pipeline.filters.best_by import scored_filter
from pipeline.filters.confidence import logprobs
from pipeline.filters.confidence.logprobs import CERTAINTY
from pipeline.filters.correctness.agreement import SEEDS
from pipeline.filters.correctness.filters import answers_measure
from pipeline.filters.dedup import embeddings
from pipeline.filters.measure_cache import columns_of_run
from pipeline.filters.measures import SAMPLE_IDS, Measure
from pipeline.filters.named_filter import NamedFilter
from pipeline.filters.selection import policies
from pipeline.filters.selection.policies import DRAWS
from pipeline.filters.verdict import Verdict


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters that choose which of the good rows to keep, and how many."""
    settings = config.filter
    if settings.difficulty:
        yield _difficulty(settings.difficulty, config)
    if settings.balance:
        by = settings.balance.by
        classes = (
            answers_measure(config) if by == "answer" else Measure(policies.class_keys, {"by": by})
        )
        balance = partial(
            policies.balance,
            factor=settings.balance.factor,
            number=settings.balance.number,
            seed=settings.seed,
        )
        best_by = settings.balance.best_by
        yield scored_filter("balance", (classes, DRAWS), (), best_by, balance, config)
    if settings.diversity:
        encoder = settings.diversity
        vectors = embeddings.measure(encoder.of, encoder.model)
        diversify = partial(
            policies.diversify,
            number=encoder.number,
            min_distance=encoder.min_distance,
            seed=settings.seed,
        )
        yield NamedFilter("diversity", (vectors, DRAWS), diversify)
    if settings.budget:
        yield from _budget(settings.budget, config)


def _budget(settings: Budget, config: Config) -> Iterator[NamedFilter]:
    seed = config.filter.seed
    best_by = settings.best_by
    if settings.per_seed:
        per_seed = partial(policies.cap_rows_per_seed, number=settings.per_seed, seed=seed)
        yield scored_filter("seed_budget", (SEEDS, DRAWS), (), best_by, per_seed, config)
    if settings.number:
        total = partial(policies.cap_rows, number=settings.number, seed=seed)
        yield scored_filter("budget", (DRAWS,), (), best_by, total, config)


def files(config: Config) -> list[Path]:
    """Return the manifest of the scores that difficulty is measured by."""
    difficulty = config.filter.difficulty
    if not difficulty or not difficulty.losses:
        return []
    return [Path(difficulty.losses) / "score" / "manifest.json"]


def identities(config: Config) -> dict[str, str]:
    """Return what tells the encoder from others of the same name."""
    diversity = config.filter.diversity
    return embeddings.identities(diversity.model) if diversity else {}


def _difficulty(settings: Difficulty, config: Config) -> NamedFilter:
    """Return the filter by a student's losses if the config names any, else by votes."""
    lowest = -np.inf if settings.lowest is None else settings.lowest
    highest = np.inf if settings.highest is None else settings.highest
    if settings.losses is None:
        by_votes = partial(policies.bound_vote_difficulty, lowest=lowest, highest=highest)
        return NamedFilter("difficulty", (SEEDS, answers_measure(config)), by_votes)
    run = Path(settings.losses)

    def by_loss(rows: NDArray[np.int64], ids: Sequence[str]) -> dict[int, Verdict]:
        scored_ids, certainty = columns_of_run(run, "score", (SAMPLE_IDS, CERTAINTY), config.filter)
        losses = dict(zip(scored_ids, -certainty[:, logprobs.MEAN_LOGPROB], strict=True))
        values = np.array([losses.get(id_, np.nan) for id_ in ids], np.float32)
        return policies.bound_difficulty(rows, values, lowest=lowest, highest=highest, easy="low")

    return NamedFilter("difficulty", (SAMPLE_IDS,), by_loss)
