"""Whether a model is as often right as it is sure. Its confidence is the probability that it gave to the tokens of its answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.records import Scored

BINS = 10
BY_DEGREES = (
    "rouge_l",
    "chrf",
)  # metrics that say how near, not whether; a probability of being right does not fit them


def calibration(answers: Sequence[Scored], metric: str) -> dict[str, Any] | None:
    """Expected calibration error over BINS bins of equal width (Guo et al. 2017, eq. 3), Brier score (mean squared distance of confidence
    from value), and the bins that hold any answers, for a reliability curve.

    Answers without a confidence (unreadable ones, or of a backend that gives no logprobs) are left out; None if that leaves none, or if the
    metric is one of degrees.
    """
    known = [
        (answer.confidence, answer.score.value)
        for answer in answers
        if answer.confidence is not None
    ]
    if not known or metric in BY_DEGREES:
        return None
    confidence, value = np.array(known, np.float64).T
    numbers = np.minimum(
        (confidence * BINS).astype(np.int64), BINS - 1
    )  # 1 belongs to the last bin
    bins = [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "count": int((numbers == number).sum()),
            "confidence": float(confidence[numbers == number].mean()),
            "accuracy": float(value[numbers == number].mean()),
        }
        for number in np.unique(numbers).tolist()
    ]
    gaps = [one["count"] * abs(one["confidence"] - one["accuracy"]) for one in bins]
    return {
        "ece": sum(gaps) / len(known),
        "brier": float(np.mean((confidence - value) ** 2)),
        "answers": len(known),
        "bins": bins,
    }
