"""Schema of RUN/ablate/results.json; docs/reference/results.md describes every key."""

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.results_model import Figures, ResultsFile


class TrainingSetScores(Figures):
    """Scores of the arms that were trained on one training set; each has a different seed."""

    arms: list[str]
    rows: list[int]
    score: Interval
    each: list[float]


class Curve(Figures):
    """How the score grows with the share of the kept samples."""

    shares: list[float]
    per_doubling: Interval
    last_step: Interval


class AblationResults(ResultsFile):
    """All figures of an ablation, in the order of the file."""

    metric: str
    held_out: int
    arm: str
    repeats: int
    samples: int
    kept: int
    sets: dict[str, TrainingSetScores]
    curation: Interval
    curve: Curve | None = None
    note: str | None = None
