"""Filter that compares each answer with the ground truth of its example."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnknownError
from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample
from pipeline.verifiers.verify import CheckSettings, verify

NO_TRUTH = "no ground truth"
LOST = (None, "the process that checked it was lost")  # the row of a sample that kills its process
MAX_CHARACTERS = 80  # of a verdict's value

Checked = tuple[float | None, str]  # (score, or None if unknown; answer and explanation)


def check_answers(batch: Batch, **check: Any) -> list[Checked]:
    """Score each answer by the ground truth of its example. Without ground truth the score is 1.

    `check` holds the fields of `verify.CheckSettings`.
    """
    settings = CheckSettings(**check)
    return [_check(settings, sample) for sample in batch.samples]


def reject_wrong(
    rows: NDArray[np.int64], checked: Sequence[Checked], threshold: float, if_unknown: str
) -> dict[int, Verdict]:
    """Reject scores below the threshold, with the reason wrong_answer.

    If `if_unknown` is "drop", also reject unchecked answers, with the reason unknown_correctness.
    """
    verdicts = {}
    for row in rows.tolist():
        score, explanation = checked[row]
        if score is None and if_unknown == "drop":
            verdicts[row] = Verdict("unknown_correctness", explanation)
        elif score is not None and score < threshold:
            verdicts[row] = Verdict("wrong_answer", explanation)
    return verdicts


def _check(check: CheckSettings, sample: Sample) -> Checked:
    if sample.seed.target is None:
        return 1.0, NO_TRUTH
    try:
        score = verify(check, sample.answer, sample.seed.target)
    except UnknownError as error:
        return None, f"{error} ({sample.answer})"[:MAX_CHARACTERS]
    answer = " ".join(str(sample.answer).split())[: MAX_CHARACTERS // 2]
    return score.value, f"{answer} ({score.explanation})"[:MAX_CHARACTERS]
