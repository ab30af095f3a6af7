"""Filter on whether the answer is right, by the ground truth of its example."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnknownError
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample
from pipeline.verifiers.verify import Check, verify

NO_TRUTH = "no ground truth"
MAX_CHARACTERS = 80  # of a verdict's value

Checked = tuple[float | None, str]  # the score, None if unknown; answer and explanation


def check_answers(batch: Batch, **check: Any) -> list[Checked]:
    """Score each answer by the ground truth of its example; without ground truth it passes.

    `check` holds the fields of `verify.Check`.
    """
    settings = Check(**check)
    return [_check(settings, sample) for sample in batch.samples]


def reject_wrong(
    rows: NDArray[np.int64], checked: Sequence[Checked], threshold: float, unknown: str
) -> dict[int, Verdict]:
    """Reject scores below the threshold as wrong_answer; if `unknown` is "drop", reject answers
    that could not be checked as unknown_correctness.
    """
    verdicts = {}
    for row in rows.tolist():
        score, explanation = checked[row]
        if score is None and unknown == "drop":
            verdicts[row] = Verdict("unknown_correctness", explanation)
        elif score is not None and score < threshold:
            verdicts[row] = Verdict("wrong_answer", explanation)
    return verdicts


def _check(check: Check, sample: Sample) -> Checked:
    if sample.seed.target is None:
        return 1.0, NO_TRUTH
    try:
        score = verify(check, sample.answer, sample.seed.target)
    except UnknownError as error:
        return None, f"{error} ({sample.answer})"[:MAX_CHARACTERS]
    answer = " ".join(str(sample.answer).split())[: MAX_CHARACTERS // 2]
    return score.value, f"{answer} ({score.explanation})"[:MAX_CHARACTERS]
