"""Calibration: does a model's confidence predict how often its answers are right?

The confidence is the probability that the model gave to the tokens of its answer.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.results_model import Bin, Calibration
from pipeline.records import Scored

BINS = 10
BY_DEGREES = ("rouge_l", "chrf")  # similarity has degrees, so no answer is simply right


def calibration(answers: Sequence[Scored], metric: str) -> Calibration | None:
    """Return calibration error, Brier score and the bins of a reliability curve.

    The expected calibration error uses BINS bins of equal width (Guo et al. 2017, eq. 3); empty
    bins are left out. The Brier score is the mean squared difference between confidence and value.
    Answers without a confidence are skipped: unreadable answers, and all answers of a backend that
    gives no logprobs. Return None if all are skipped, or if the metric is in BY_DEGREES.
    """
    pairs = [
        (answer.confidence, answer.score.value)
        for answer in answers
        if answer.confidence is not None
    ]
    if not pairs or metric in BY_DEGREES:
        return None
    confidence, value = np.array(pairs, np.float64).T
    # a confidence of 1 belongs to the last bin
    numbers = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            count=int((numbers == number).sum()),
            confidence=float(confidence[numbers == number].mean()),
            accuracy=float(value[numbers == number].mean()),
        )
        for number in np.unique(numbers).tolist()
    ]
    gaps = [bin_.count * abs(bin_.confidence - bin_.accuracy) for bin_ in bins]
    return Calibration(
        ece=sum(gaps) / len(pairs),
        brier=float(np.mean((confidence - value) ** 2)),
        answers=len(pairs),
        bins=bins,
    )
