"""The majority baseline: what a model scores that always gives the most frequent right answer.

A student below it has learned nothing of use, however large its share of the teacher's score.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.results_model import Results, TopAnswer
from pipeline.evaluation.small_samples import FLOOR
from pipeline.execution.paths import BASE
from pipeline.records import Scored
from pipeline.verifiers.scorers import normalise
from pipeline.verifiers.verify import CLOSED

ONE_ANSWER = 0.95  # share of one answer from which a model counts as having learned one answer


def baseline(metric: str, answers: Sequence[Scored]) -> tuple[str, NDArray[np.float64]] | None:
    """Return the most frequent target, and whether it is right for each example, (1, I).

    Of equally frequent targets the first one is taken. Return None for a metric without closed
    answers.
    """
    if metric not in CLOSED or not answers:
        return None
    targets = [normalise(str(answer.target)) for answer in answers]
    majority = Counter(targets).most_common(1)[0][0]
    return majority, np.array([[target == majority for target in targets]], np.float64)


def top_answer(metric: str, answers: Sequence[Scored]) -> TopAnswer | None:
    """Return the answer that a model gives most often, with its share and that of the truth."""
    given = [normalise(answer.score.answer) for answer in answers if answer.score.answer]
    if metric != "label" or not given:
        return None
    answer, count = Counter(given).most_common(1)[0]
    true = [normalise(str(scored.target)) == answer for scored in answers]
    return TopAnswer(answer=answer, share=count / len(answers), true_share=float(np.mean(true)))


def warnings(results: Results) -> Iterator[str]:
    """Yield a sentence for each model that is not shown to be better than the baseline.

    The base student is left out, since it is not trained. So are runs with too few examples.
    """
    base = results.baseline
    if base is None or results.held_out < FLOOR:
        return
    for name, difference in base.differences.items():
        if name == BASE:
            continue
        if difference.sign <= 0:
            yield (
                f"{name} is not significantly better than always answering '{base.answer}' "
                f"({base.score.mean:.3f})"
            )
        top = results.models[name].top_answer
        if top and top.share >= ONE_ANSWER > top.true_share:
            yield (
                f"{name} answers '{top.answer}' to {top.share:.0%} of the examples, and it is "
                f"right for {top.true_share:.0%}: it learned one answer"
            )
