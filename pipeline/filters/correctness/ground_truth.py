"""Whether an answer is right."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.measures import Batch
from pipeline.filters.verdict import Verdict
from pipeline.records import Sample
from pipeline.verifiers.sandbox.sandbox import UnknownError
from pipeline.verifiers.verify import Check, verify

NO_TRUTH = "no ground truth"
SHOWN = 80  # characters of a verdict's value

Found = tuple[float | None, str]  # the answer's value, None where it is unknown; the answer and why


def of(batch: Batch, **check: Any) -> list[Found]:
    """How each answer does by its seed's ground truth. `check`: the fields of verifiers.Check. Without ground truth it passes."""
    how = Check(**check)
    return [_one(how, sample) for sample in batch.samples]


def judge(
    left: NDArray[np.int64], found: Sequence[Found], threshold: float, unknown: str
) -> dict[int, Verdict]:
    """wrong_answer: worth less than the threshold. unknown_correctness: could not be checked, with `unknown` drop."""
    verdicts = {}
    for row in left.tolist():
        value, why = found[row]
        if value is None and unknown == "drop":
            verdicts[row] = Verdict("unknown_correctness", why)
        elif value is not None and value < threshold:
            verdicts[row] = Verdict("wrong_answer", why)
    return verdicts


def _one(check: Check, sample: Sample) -> Found:
    if sample.seed.target is None:
        return 1.0, NO_TRUTH
    try:
        score = verify(check, sample.answer, sample.seed.target)
    except UnknownError as error:
        return None, f"{error} ({sample.answer})"[:SHOWN]
    answer = " ".join(str(sample.answer).split())
    return score.value, f"{answer[: SHOWN // 2]} ({score.explanation})"[:SHOWN]
