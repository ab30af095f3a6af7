"""Filters that hold an answer against the truth."""

from collections.abc import Sequence

from pipeline.filters.verdict import Verdict
from pipeline.records import Sample
from pipeline.scoring import SCORERS


def correct(samples: Sequence[Sample], metric: str, labels: Sequence[str] | None) -> list[Verdict | None]:
    """wrong_answer: differs from the seed's ground truth. Samples of seeds without one are kept."""

    def judge(sample: Sample) -> Verdict | None:
        if sample.seed.target is None:
            return None
        score = SCORERS[metric](sample.answer, sample.seed.target, labels)
        return None if score.value == 1.0 else Verdict("wrong_answer", f"{sample.answer} ({score.explanation})")

    return [judge(s) for s in samples]
