"""What label calibration changes: how strong the bias is, and how many answers are right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.filters.confidence.label_calibration import (
    NO_PRIOR,
    UNKNOWN,
    Prior,
    calibrate,
    is_readable,
)

# From here on a bias counts as strong: it was 0.05 and 0.29 on two tasks whose calibrated labels
# were 2 points worse and 20 better than the text (docs/log.md, "which KD, and how many steps").
STRONG = 0.1
INFORMED = 0.2  # below, the probabilities hardly tell the inputs apart


@dataclass(frozen=True)
class Bias:
    """How far the written labels are from the calibrated probabilities.

    changed: share of the labels that calibration changes.
    information: how much the calibrated probabilities tell about the label, from 0 (the same for
        every input) to 1 (certain). It is the mutual information of input and label divided by the
        logarithm of the number of labels.
    is_strong: the prompt favours some labels, and the probabilities still tell the inputs apart.
    """

    changed: float
    information: float
    is_strong: bool


def measure_bias(
    p: NDArray[np.float32], written: NDArray[np.int16], prior: Prior = NO_PRIOR
) -> Bias:
    """Return the bias of the labels `written` (N,) by their probabilities p (N, L).

    Unreadable rows do not count. Ground truth is not used.
    """
    known = is_readable(p) & (written != UNKNOWN)
    if not known.any():
        return Bias(0.0, 0.0, False)
    calibrated = calibrate(p[known], prior).astype(np.float64)
    changed = float((calibrated.argmax(axis=1) != written[known]).mean())
    uncertainty = _entropy(calibrated.mean(axis=0)) - _entropy(calibrated).mean()
    information = float(uncertainty / np.log(p.shape[1]))
    return Bias(changed, information, changed >= STRONG and information >= INFORMED)


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy over the last axis, in nats."""
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -(p * logs).sum(axis=-1)


@dataclass(frozen=True)
class Effect:
    """Shares of right answers on the same `rows`.

    The answers are the written text, the most likely label, and the most likely calibrated label.
    """

    rows: int
    text: float
    raw: float
    calibrated: float


def measure_effect(
    p: NDArray[np.float32],
    written: NDArray[np.int16],
    truth: NDArray[np.int16],
    prior: Prior = NO_PRIOR,
) -> Effect | None:
    """Return what calibration over all rows does to the rows with ground truth; None without any.

    Calibration itself does not use the ground truth.
    """
    known = is_readable(p) & (truth != UNKNOWN)
    if not known.any():
        return None
    right = truth[known]
    return Effect(
        rows=int(known.sum()),
        text=float((written[known] == right).mean()),
        raw=float((p[known].argmax(axis=1) == right).mean()),
        calibrated=float((calibrate(p, prior)[known].argmax(axis=1) == right).mean()),
    )
