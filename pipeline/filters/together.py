"""The filters that look at many rows together: what is there already, and which of the good ones are taken."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.filters import agreement, confidence, duplicates, embeddings, selection
from pipeline.filters.columns import Measure, NamedFilter
from pipeline.filters.measuring import columns_of
from pipeline.filters.verdict import Verdict
from pipeline.storage.samples import Samples, kept_rows

Judge = Callable[..., dict[int, Verdict]]
IDENTITY = Measure(duplicates.identity)
CERTAINTY = Measure(confidence.certainty)
SEEDS = Measure(agreement.seeds)
LOTS = Measure(selection.lots)


def answers(config: Config) -> Measure:
    return Measure(agreement.answers, {"metric": config.task.metric})


def copies(config: Config) -> Iterator[NamedFilter]:
    """What is there already: word for word, nearly so, or in other words."""
    settings = config.filter

    def against(judge: Judge, measures: tuple[Measure, ...]) -> Judge:
        def judged(left: NDArray[np.int64], *columns: Any, **how: Any) -> dict[int, Verdict]:
            return judge(left, *columns, **how, others=[_other(run, measures, config) for run in settings.against])

        return judged

    if settings.duplicate:
        digests = (Measure(duplicates.digests),)
        yield NamedFilter("duplicate", (IDENTITY, *digests), against(duplicates.exact, digests))
    if settings.near:
        sets = tuple(Measure(duplicates.sets, {"of": of, "size": settings.near.shingle}) for of in settings.near.of)
        near = partial(against(duplicates.near, sets), threshold=settings.near.threshold, scored=settings.near.best_by is not None)
        yield _scored("near", (IDENTITY,), sets, settings.near.best_by, near, config)
    if settings.semantic:
        vectors = tuple(embeddings.measure(of, settings.semantic.model, settings.semantic.revision) for of in settings.semantic.of)
        alike = partial(
            against(duplicates.semantic, vectors), threshold=settings.semantic.threshold, scored=settings.semantic.best_by is not None
        )
        yield _scored("semantic", (IDENTITY,), vectors, settings.semantic.best_by, alike, config)


def choice(config: Config) -> Iterator[NamedFilter]:
    """Which of the good ones, and how many."""
    settings = config.filter
    if settings.difficulty:
        yield _difficulty(config)
    if settings.balance:
        by = settings.balance.by
        classes = answers(config) if by == "answer" else Measure(selection.groups, {"by": by})
        spread = partial(selection.balanced, factor=settings.balance.factor, number=settings.balance.number, seed=settings.seed)
        yield _scored("balance", (classes, LOTS), (), settings.balance.best_by, spread, config)
    if settings.diversity:
        wide = settings.diversity
        vectors = embeddings.measure(wide.of, wide.model, wide.revision)
        unlike = partial(selection.diverse, number=wide.number, min_distance=wide.min_distance, seed=settings.seed)
        yield NamedFilter("diversity", (vectors, LOTS), unlike)
    if settings.budget and settings.budget.per_seed:
        some = partial(selection.within_seed_budget, number=settings.budget.per_seed, seed=settings.seed)
        yield _scored("seed_budget", (SEEDS, LOTS), (), settings.budget.best_by, some, config)
    if settings.budget and settings.budget.number:
        some = partial(selection.within_budget, number=settings.budget.number, seed=settings.seed)
        yield _scored("budget", (LOTS,), (), settings.budget.best_by, some, config)


def _difficulty(config: Config) -> NamedFilter:
    difficulty = config.filter.difficulty
    assert difficulty is not None
    lowest = -np.inf if difficulty.lowest is None else difficulty.lowest
    highest = np.inf if difficulty.highest is None else difficulty.highest
    if difficulty.losses is None:
        return NamedFilter("difficulty", (SEEDS, answers(config)), partial(selection.contested, lowest=lowest, highest=highest))
    run = Path(difficulty.losses)

    def by_loss(left: NDArray[np.int64], ids: Sequence[str]) -> dict[int, Verdict]:
        theirs, certainty = columns_of(run, "score", (IDENTITY, CERTAINTY), config.filter)
        known = dict(zip(theirs, (-certainty[:, confidence.MEAN_LOGPROB]).tolist(), strict=True))
        losses = np.array([known.get(identifier, np.nan) for identifier in ids], np.float32)
        return selection.of_difficulty(left, losses, lowest=lowest, highest=highest, easy="low")

    return NamedFilter("difficulty", (IDENTITY,), by_loss)


def _scored(
    name: str, first: tuple[Measure, ...], then: tuple[Measure, ...], best_by: str | None, judge: Judge, config: Config
) -> NamedFilter:
    """A filter whose judge takes the columns of `first`, with `best_by` scores (N,), higher ones for better rows, and those of `then`."""
    scores = (SEEDS, answers(config)) if best_by == "votes" else (CERTAINTY,) if best_by else ()

    def judged(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
        begin, end = len(first), len(first) + len(scores)
        score = [_score(best_by, columns[begin:end])] if best_by else []
        return judge(left, *columns[:begin], *score, *columns[end:])

    return NamedFilter(name, (*first, *scores, *then), judged)


def _score(best_by: str, columns: Sequence[Any]) -> NDArray[np.float32]:
    if best_by == "votes":
        return agreement.vote_shares(*columns)
    which = {"mean_logprob": confidence.MEAN_LOGPROB, "answer_margin": confidence.ANSWER_MARGIN}[best_by]
    found: NDArray[np.float32] = columns[0][:, which]
    return found


def _other(run: str, measures: tuple[Measure, ...], config: Config) -> duplicates.Other:
    """Another run's kept rows."""
    kept = Path(run) / "filter" / "kept"
    Samples(kept)  # raises PipelineError if the rows are not of what was generated there
    ids, *columns = columns_of(Path(run), "generate", (IDENTITY, *measures), config.filter)
    return duplicates.Other(Path(run).name, kept_rows(kept), ids, tuple(columns))
