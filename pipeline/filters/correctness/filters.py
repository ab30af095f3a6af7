"""Which correctness filters a config turns on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.filters.correctness import agreement, ground_truth, judge
from pipeline.filters.correctness.agreement import SEEDS
from pipeline.filters.measure_cache import columns_of_run, worker_count
from pipeline.filters.measures import Measure
from pipeline.filters.named_filter import NamedFilter, Outcome
from pipeline.filters.verdict import Verdict, reject_as_measured
from pipeline.records import Seed
from pipeline.verifiers import verify
from pipeline.verifiers.scorers import SCORERS


def answers_measure(config: Config) -> Measure:
    return Measure(agreement.answers, {"metric": config.task.metric})


def _agreement_with_truth(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return how well the judge's scores tell right answers from wrong ones, by ground truth.

    Empty where there are not both, or where checking takes a process for each answer.
    """
    if config.task.metric not in SCORERS:
        return {}
    check = _checked(config)
    _, marks = outcome.asked
    outcome.measured.fill([check], worker_count(config.filter))
    column: Any = outcome.measured.column(check)
    right = np.array(
        [
            np.nan if value is None or why == ground_truth.NO_TRUTH else value
            for value, why in column
        ]
    )
    found = judge.agreement(marks, right)
    return (
        {}
        if found is None
        else {"rows": int((~np.isnan(marks) & ~np.isnan(right)).sum()), "agreement": found}
    )


def filters(config: Config) -> Iterator[NamedFilter]:
    """Whether the answer is right, by ground truth, by its rationale, and by what others say."""
    settings, task = config.filter, config.task
    said = answers_measure(config)
    if settings.correct:
        how = partial(ground_truth.judge, threshold=settings.threshold, unknown=settings.unknown)
        yield NamedFilter("correct", (_checked(config),), how)
    if settings.consistent:
        yield NamedFilter(
            "consistent",
            (Measure(agreement.contradicted, {"metric": task.metric, "labels": task.labels}),),
            reject_as_measured,
        )
    if settings.agreement:
        agreed = partial(
            agreement.agreed,
            min_vote_share=settings.agreement.min_vote_share,
            majority=settings.agreement.majority,
        )
        yield NamedFilter("agreement", (SEEDS, said), agreed)
    if settings.prompts_agree:
        same = partial(agreement.prompts_agree, min_share=settings.prompts_agree.min_share)
        yield NamedFilter("prompts_agree", (SEEDS, said, Measure(agreement.prompts)), same)
    if settings.teachers_agree:
        others = settings.teachers_agree

        def same_as_theirs(left: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
            theirs = columns_of_run(Path(others.run), "generate", (SEEDS, said), config.filter)
            return agreement.teachers_agree(
                left,
                *columns,
                other_seeds=theirs[0],
                other_answers=theirs[1],
                min_share=others.min_share,
            )

        yield NamedFilter("teachers_agree", (SEEDS, said), same_as_theirs)


def judge_filters(config: Config) -> Iterator[NamedFilter]:
    """What another model thinks of it."""
    if config.filter.judge:
        low = partial(
            judge.low,
            least=config.filter.judge.least,
            drop_unjudged=config.filter.judge.unjudged == "drop",
        )
        yield NamedFilter(
            "judge",
            (),
            low,
            ask=judge.Bench(config).marks,
            after=lambda outcome: {"judge": _agreement_with_truth(config, outcome)},
        )


def check(config: Config, seeds: Sequence[Seed]) -> None:
    """Raise PipelineError if the judge's prompt could not take the inputs of a seed."""
    if config.filter.judge:
        judge.check(seeds)


def files(config: Config) -> list[Path]:
    """Return the verifier's files, the judge's prompt, and the manifest of another run."""
    settings = config.filter
    paths = verify.files(config.task) if settings.correct else []
    if settings.judge:
        paths.append(Path(settings.judge.prompt))
    if settings.teachers_agree:
        paths.append(Path(settings.teachers_agree.run) / "generate" / "manifest.json")
    return paths


def identities(config: Config) -> dict[str, str]:
    """Return what tells the judge from others of the same name."""
    return {"judge": judge.Bench(config).identity} if config.filter.judge else {}


def _describe_agreement(note: Mapping[str, Any]) -> str:
    return (
        "judge: of two answers, one right and one wrong, "
        f"the right one has the higher score in {note['agreement']:.3f} of cases"
    )


def _checked(config: Config) -> Measure:
    return Measure(
        ground_truth.of,
        asdict(verify.load_check(config.task)),
        slow=config.task.metric not in SCORERS,
    )


NOTES = {"judge": _describe_agreement}
