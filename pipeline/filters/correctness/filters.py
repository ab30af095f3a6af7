"""Which correctness filters a config turns on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.config.filter import TeachersAgree
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
    """Return the measure of answer keys under the task's metric."""
    return Measure(agreement.answer_keys, {"metric": config.task.metric})


def filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filters by ground truth, by the rationale, and by agreement with other answers."""
    settings = config.filter
    task = config.task
    answers = answers_measure(config)
    if settings.correct:
        correct = partial(
            ground_truth.reject_wrong, threshold=settings.threshold, if_unknown=settings.unknown
        )
        yield NamedFilter("correct", (_checked_answers(config),), correct)
    if settings.consistent:
        labels = {"metric": task.metric, "labels": task.labels}
        contradictions = Measure(agreement.find_contradictions, labels)
        yield NamedFilter("consistent", (contradictions,), reject_as_measured)
    if settings.agreement:
        votes = partial(
            agreement.reject_few_votes,
            min_vote_share=settings.agreement.min_vote_share,
            majority=settings.agreement.majority,
        )
        yield NamedFilter("agreement", (SEEDS, answers), votes)
    if settings.prompts_agree:
        prompts_agree = partial(
            agreement.reject_prompt_disagreement, min_share=settings.prompts_agree.min_share
        )
        measures = (SEEDS, answers, Measure(agreement.prompt_numbers))
        yield NamedFilter("prompts_agree", measures, prompts_agree)
    if settings.teachers_agree:
        yield _teachers_agree(settings.teachers_agree, answers, config)


def _teachers_agree(settings: TeachersAgree, answers: Measure, config: Config) -> NamedFilter:
    measures = (SEEDS, answers)

    def judge(rows: NDArray[np.int64], *columns: Any) -> dict[int, Verdict]:
        other_run = Path(settings.run)
        other_seeds, other_answers = columns_of_run(other_run, "generate", measures, config.filter)
        return agreement.reject_teacher_disagreement(
            rows,
            *columns,
            other_seeds=other_seeds,
            other_answers=other_answers,
            min_share=settings.min_share,
        )

    return NamedFilter("teachers_agree", measures, judge)


def judge_filters(config: Config) -> Iterator[NamedFilter]:
    """Yield the filter by the scores of a judge model."""
    settings = config.filter.judge
    if settings:
        low_scores = partial(
            judge.reject_low_scores,
            least=settings.least,
            drop_unjudged=settings.unjudged == "drop",
        )
        yield NamedFilter(
            "judge",
            (),
            low_scores,
            ask=judge.ReplyJudge(settings, config).score,
            after=lambda outcome: {"judge": _agreement_with_truth(config, outcome)},
        )


def _agreement_with_truth(config: Config, outcome: Outcome) -> dict[str, Any]:
    """Return how well the judge's scores separate right answers from wrong ones.

    Empty if one of the two is missing, or if the verifier starts a process for each answer.
    """
    if config.task.metric not in SCORERS:
        return {}
    check = _checked_answers(config)
    outcome.measured.fill([check], worker_count(config.filter))
    checked: Any = outcome.measured.column(check)
    correctness = np.full(len(checked), np.nan)
    for row, (score, explanation) in enumerate(checked):
        if score is not None and explanation != ground_truth.NO_TRUTH:
            correctness[row] = score
    scores = outcome.asked.values
    auc = judge.roc_auc(scores, correctness)
    if auc is None:
        return {}
    compared = ~np.isnan(scores) & ~np.isnan(correctness)
    return {"rows": int(compared.sum()), "agreement": auc}


def check(config: Config, seeds: Sequence[Seed]) -> None:
    """Raise PipelineError if the inputs of an example clash with names of the judge's prompt."""
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
    settings = config.filter.judge
    return {"judge": judge.ReplyJudge(settings, config).identity} if settings else {}


def _describe_agreement(note: Mapping[str, Any]) -> str:
    return (
        "judge: of two answers, one right and one wrong, "
        f"the right one has the higher score in {note['agreement']:.3f} of cases"
    )


def _checked_answers(config: Config) -> Measure:
    check = asdict(verify.load_check(config.task))
    slow = config.task.metric not in SCORERS
    return Measure(ground_truth.check_answers, check, slow, lost=ground_truth.LOST)


NOTES = {"judge": _describe_agreement}
