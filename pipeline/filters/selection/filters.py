"""Which selection filters a config turns on."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
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
from pipeline.filters.selection.policies import LOTS
from pipeline.filters.verdict import Verdict
from pipeline.models import resolve


def filters(config: Config) -> Iterator[NamedFilter]:
    """Which of the good ones, and how many."""
    settings = config.filter
    if settings.difficulty:
        yield _difficulty(config)
    if settings.balance:
        by = settings.balance.by
        classes = (
            answers_measure(config) if by == "answer" else Measure(policies.groups, {"by": by})
        )
        spread = partial(
            policies.balanced,
            factor=settings.balance.factor,
            number=settings.balance.number,
            seed=settings.seed,
        )
        yield scored_filter(
            "balance", (classes, LOTS), (), settings.balance.best_by, spread, config
        )
    if settings.diversity:
        wide = settings.diversity
        vectors = embeddings.measure(wide.of, wide.model, wide.revision)
        unlike = partial(
            policies.diverse, number=wide.number, min_distance=wide.min_distance, seed=settings.seed
        )
        yield NamedFilter("diversity", (vectors, LOTS), unlike)
    if settings.budget and settings.budget.per_seed:
        some = partial(
            policies.within_seed_budget, number=settings.budget.per_seed, seed=settings.seed
        )
        yield scored_filter("seed_budget", (SEEDS, LOTS), (), settings.budget.best_by, some, config)
    if settings.budget and settings.budget.number:
        some = partial(policies.within_budget, number=settings.budget.number, seed=settings.seed)
        yield scored_filter("budget", (LOTS,), (), settings.budget.best_by, some, config)


def files(config: Config) -> list[Path]:
    """Return the manifest of the scores that difficulty is measured by."""
    difficulty = config.filter.difficulty
    if not difficulty or not difficulty.losses:
        return []
    return [Path(difficulty.losses) / "score" / "manifest.json"]


def identities(config: Config) -> dict[str, str]:
    """Return what tells the encoder from others of the same name."""
    encoder = config.filter.diversity
    if not encoder:
        return {}
    return {f"encoder {encoder.model}": resolve.identity(encoder.model, encoder.revision)}


def _difficulty(config: Config) -> NamedFilter:
    difficulty = config.filter.difficulty
    assert difficulty is not None
    lowest = -np.inf if difficulty.lowest is None else difficulty.lowest
    highest = np.inf if difficulty.highest is None else difficulty.highest
    if difficulty.losses is None:
        return NamedFilter(
            "difficulty",
            (SEEDS, answers_measure(config)),
            partial(policies.contested, lowest=lowest, highest=highest),
        )
    run = Path(difficulty.losses)

    def by_loss(left: NDArray[np.int64], ids: Sequence[str]) -> dict[int, Verdict]:
        theirs, certainty = columns_of_run(run, "score", (SAMPLE_IDS, CERTAINTY), config.filter)
        known = dict(zip(theirs, (-certainty[:, logprobs.MEAN_LOGPROB]).tolist(), strict=True))
        losses = np.array([known.get(identifier, np.nan) for identifier in ids], np.float32)
        return policies.of_difficulty(left, losses, lowest=lowest, highest=highest, easy="low")

    return NamedFilter("difficulty", (SAMPLE_IDS,), by_loss)
